# SPDX-License-Identifier: Apache-2.0
"""Runs episodes in processes of their own and keeps count."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from multiprocessing.connection import Connection, wait
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from .ledger import Ledger
from .protocol import EpisodeRun
from .schedule import (
    FAILURE,
    INFRASTRUCTURE,
    SUCCESS,
    Episode,
    EpisodeRecord,
    Schedule,
)
from .worker import CRASHED, ENDED, LASTING, Work, work

__all__ = ["Episode", "EpisodeRecord", "EvaluationError", "evaluate"]

_TICK_S = 1.0


class EvaluationError(RuntimeError):
    """An error that no repetition mends: the policy does not fit, say."""


def evaluate(
    work_: Work,
    episodes: Sequence[Episode],
    ledger: Ledger,
    *,
    processes: int = 1,
    attempts: int = 3,
    patience: int = 5,
    episode_timeout_s: float = 1800.0,
    on_record: Optional[Callable[[EpisodeRecord], None]] = None,
) -> List[EpisodeRecord]:
    """Runs the episodes that `ledger` does not decide and writes them to it.

    processes          simulators at a time, each in a process of its own.
    attempts, patience see Schedule.
    episode_timeout_s  after which a simulator is taken for hung and is killed.
    on_record          called after each line of the ledger.

    Returns a record of each episode that was begun now or before; of those that
    were given up it may have none. Raises EvaluationError for an error that no
    repetition mends; what was measured until then is in the ledger.
    """
    wanted = set(episodes)
    before = [EpisodeRecord.of_json(line) for line in ledger.episodes]
    schedule = Schedule(
        Schedule.unfinished(episodes, before),
        attempts=attempts,
        patience=patience,
    )
    crew = _Crew(work_, schedule, episode_timeout_s)

    def write(record: EpisodeRecord) -> None:
        ledger.add(record.as_json())
        before.append(record)
        if on_record is not None:
            on_record(record)

    crew.run(processes, write)
    last = {Episode(r.task, r.trial): r for r in before}
    return [last[episode] for episode in sorted(wanted & set(last))]


class _Crew:
    """The worker processes of one evaluation."""

    def __init__(
        self, work_: Work, schedule: Schedule, episode_timeout_s: float
    ) -> None:
        self._work = work_
        self._schedule = schedule
        self._timeout_s = episode_timeout_s
        self._members: List[_Member] = []

    def run(
        self, processes: int, write: Callable[[EpisodeRecord], None]
    ) -> None:
        self._members = [_Member(n, self._work) for n in range(processes)]
        try:
            while self._give() or any(m.episode for m in self._members):
                for member in self._ready():
                    self._hear(member, write)
        finally:
            for member in self._members:
                member.stop()

    def _give(self) -> bool:
        """Gives each idle process an episode; whether one got one."""
        given = False
        for member in self._members:
            if member.episode is None:
                busy = [m.task for m in self._members if m is not member]
                episode = self._schedule.take(member.task, busy)
                if episode is not None:
                    member.begin(episode)
                    given = True
        return given

    def _ready(self) -> List[_Member]:
        """Processes with an answer, an end, or too long without either."""
        busy = {m.connection: m for m in self._members if m.episode}
        heard: List[Any] = wait(list(busy), timeout=_TICK_S)
        hung = [m for m in busy.values() if m.seconds > self._timeout_s]
        ready: Dict[int, _Member] = {m.number: m for m in hung}
        ready.update({busy[c].number: busy[c] for c in heard})
        return list(ready.values())

    def _hear(
        self, member: _Member, write: Callable[[EpisodeRecord], None]
    ) -> None:
        episode, seconds = member.episode, member.seconds
        assert episode is not None
        kind, content = member.answer()
        if kind == LASTING:
            raise EvaluationError(
                f"task {episode.task}, trial {episode.trial}: {content}"
            )
        if kind == ENDED:
            errors = self._schedule.ended(episode)
            write(_record(episode, content, seconds, errors))
            return
        lost = self._schedule.broke(episode, content)
        if lost is not None:
            write(EpisodeRecord(*episode, INFRASTRUCTURE, 0, seconds, [], lost))


class _Member:
    """One worker process, made anew when it has ended."""

    def __init__(self, number: int, work_: Work) -> None:
        self.number = number
        self.episode: Optional[Episode] = None
        self.task: Optional[int] = None  # that the process has loaded
        self._work = work_
        self._began = 0.0
        self._process: Any = None
        self._connection: Optional[Connection] = None

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    @property
    def seconds(self) -> float:
        """Since the episode was begun."""
        return time.monotonic() - self._began

    def begin(self, episode: Episode) -> None:
        if self._process is None or not self._process.is_alive():
            self._start()
        self.episode, self.task = episode, episode.task
        self._began = time.monotonic()
        with contextlib.suppress(OSError):  # it has ended: answer() says so
            self.connection.send(episode)

    def answer(self) -> Tuple[str, Any]:
        """What the process sent, or why it can send nothing any more."""
        self.episode = None
        try:
            if self.connection.poll():
                kind, content = self.connection.recv()
            else:
                kind = CRASHED
                content = f"no end after {self.seconds:.0f} s: killed"
        except (EOFError, OSError):
            self._process.join(10.0)
            code = self._process.exitcode
            kind = CRASHED
            content = f"the simulator's process ended with {code}"
        if kind == CRASHED:
            self.stop()
        return kind, content

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
        self._process, self.task = None, None

    def _start(self) -> None:
        self.stop()
        context = multiprocessing.get_context("spawn")  # gRPC cannot be forked
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, self.number, self._work), daemon=True
        )
        self._process.start()
        theirs.close()


def _record(
    episode: Episode, run: EpisodeRun, seconds: float, errors: List[str]
) -> EpisodeRecord:
    return EpisodeRecord(
        task=episode.task,
        trial=episode.trial,
        outcome=SUCCESS if run.success else FAILURE,
        steps=run.steps,
        seconds=seconds,
        infer_ms=[1e3 * s for s in run.infer_s],
        errors=errors,
    )
