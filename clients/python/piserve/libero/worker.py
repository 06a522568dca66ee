# SPDX-License-Identifier: Apache-2.0
"""The process of one simulator: runs the episodes it is sent."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Callable, Dict, List, Optional, Tuple

import grpc

from piserve import PolicyClient
from piserve.errors import (
    InvalidObservation,
    MessageTooLarge,
    NotAllowed,
    PolicyError,
    PolicyMismatch,
    PolicyNotFound,
)
from piserve.worlds.pictures import PictureError, save_gif

from .environment import Environment, Task
from .protocol import EpisodeRun, Protocol, run_episode
from .schedule import Episode

_CONTROL_HZ = 20.0  # of LIBERO; a film has a picture for each call

# No repetition mends these: the run ends and says so.
_LASTING = (
    InvalidObservation,
    MessageTooLarge,
    NotAllowed,
    PolicyMismatch,
    PolicyNotFound,
)


@dataclass(frozen=True)
class Served:
    """Where a policy is served, and how long its answers may take."""

    server: str
    policy: str = ""
    model_digest: str = ""
    timeout_s: float = 30.0
    ready_s: float = 60.0
    tls_root: str = ""
    api_key_file: str = ""

    def connect(self, robot_id: str = "") -> PolicyClient:
        """A client of its own. Raises OSError if a file cannot be read."""
        key = (
            pathlib.Path(self.api_key_file).read_text().strip()
            if self.api_key_file
            else None
        )
        tls = (
            grpc.ssl_channel_credentials(
                pathlib.Path(self.tls_root).read_bytes()
            )
            if self.tls_root
            else None
        )
        return PolicyClient(
            self.server,
            policy=self.policy,
            timeout=self.timeout_s,
            api_key=key,
            tls=tls,
            robot_id=robot_id,
            model_digest=self.model_digest,
        )


@dataclass(frozen=True)
class Work:
    """What every worker is told once. Crosses processes.

    make_environment  called with a task's index.
    seed              of the noise that the policy starts from.
    privileged        see run_episode.
    films             folder for films of what the policy saw; empty: none.
    """

    make_environment: Callable[[int], Environment]
    tasks: List[Task]
    protocol: Protocol
    served: Served
    seed: int = 7
    privileged: bool = False
    films: str = ""

    def noise_seed(self, episode: Episode, call: int) -> int:
        """The same for the same call of the same episode, whoever runs it."""
        place = (self.seed << 16) + episode.task
        return ((place << 16) + episode.trial << 16) + call & (1 << 64) - 1


# What a worker sends, as ("kind", ...):
ENDED = "ended"  # (ENDED, EpisodeRun): success or failure of the policy
BROKE = "broke"  # (BROKE, str): an infrastructure error; try again
CRASHED = "crashed"  # (CRASHED, str): the same, and the worker ends
LASTING = "lasting"  # (LASTING, str): an error that no repetition mends


def work(connection: Connection, number: int, work_: Work) -> None:
    """Answers each Episode received until the other end closes.

    Ends after an error of the environment, which is not to be trusted then, and
    with the parent, however that ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seat = _Seat(work_, f"libero-{number}")
    try:
        while True:
            episode: Episode = connection.recv()
            kind, content = seat.answer(episode)
            connection.send((kind, content))
            if kind == CRASHED:
                return
    except (EOFError, OSError):
        return  # the parent is gone
    finally:
        seat.close()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Seat:
    """A client and the environment of the task that was asked for last."""

    def __init__(self, work_: Work, robot_id: str) -> None:
        self._work = work_
        self._tasks = {task.index: task for task in work_.tasks}
        self._robot_id = robot_id
        self._client: Optional[PolicyClient] = None
        self._environment: Optional[Environment] = None
        self._task = -1

    def answer(self, episode: Episode) -> Tuple[str, Any]:
        """What to send: (kind, content)."""
        try:
            run = self._run(episode)
            self._save_film(episode, run)
            run.frames = []
            return ENDED, run
        except (*_LASTING, PictureError) as error:
            return LASTING, _words(error)
        except PolicyError as error:
            return BROKE, _words(error)
        except Exception as error:
            return CRASHED, _words(error)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _run(self, episode: Episode) -> EpisodeRun:
        if self._client is None:
            self._client = self._work.served.connect(self._robot_id)
        client = self._client
        client.wait_until_ready(self._work.served.ready_s)
        environment = self._loaded(episode.task)
        calls = 0

        def infer(obs: Dict[str, Any]) -> Any:
            nonlocal calls
            seed = self._work.noise_seed(episode, calls)
            calls += 1
            return client.infer(obs, seed=seed)

        return run_episode(
            environment,
            infer,
            episode.trial,
            self._tasks[episode.task].prompt,
            self._work.protocol,
            privileged=self._work.privileged,
            filmed=bool(self._work.films),
        )

    def _loaded(self, task: int) -> Environment:
        if self._environment is not None and self._task == task:
            return self._environment
        if self._environment is not None:
            self._environment.close()
            self._environment = None
        self._environment = self._work.make_environment(task)
        self._task = task
        return self._environment

    def _save_film(self, episode: Episode, run: EpisodeRun) -> None:
        if not self._work.films:
            return
        folder = pathlib.Path(self._work.films)
        folder.mkdir(parents=True, exist_ok=True)
        end = "success" if run.success else "failure"
        name = f"task{episode.task:02d}_trial{episode.trial:02d}_{end}.gif"
        fps = _CONTROL_HZ / self._work.protocol.replan_steps
        save_gif(folder / name, run.frames, fps=fps)


def _words(error: BaseException) -> str:
    return f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}"
