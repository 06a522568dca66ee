# SPDX-License-Identifier: Apache-2.0
"""LIBERO itself as an Environment. Needs the extra `libero`."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from dataclasses import dataclass
from typing import Any, Callable, Iterator, List, Tuple

import numpy as np

from .environment import Environment, Observation, Task

CAMERAS = ("agentview_image", "robot0_eye_in_hand_image")
IMAGE_SIZE = 256


class SimulatorMissing(RuntimeError):
    """LIBERO is not installed."""


def tasks_of(suite: str) -> List[Task]:
    """The tasks of a suite in LIBERO's order.

    Raises SimulatorMissing if LIBERO is not installed.
    """
    found = _benchmark(suite)
    return [
        Task(index, task.name, str(task.language))
        for index, task in enumerate(found.tasks)
    ]


def trials_of(suite: str, task: int) -> int:
    """How many start states LIBERO has for a task."""
    with _quiet():
        return len(_benchmark(suite).get_task_init_states(task))


@dataclass(frozen=True)
class SimulatorFactory:
    """Makes the environment of a task of `suite`; crosses processes.

    render  "sent" or "all": see LiberoEnvironment.
    """

    suite: str
    seed: int
    render: str = "sent"

    def __call__(self, task: int) -> Environment:
        return LiberoEnvironment(self.suite, task, self.seed, self.render)


class LiberoEnvironment:
    """One task of LIBERO; about 1.5 GB of memory.

    render  "sent" renders the cameras in steps with `observed` only; "all" in
            every step, as LIBERO does. Both show the same pixels.

    Every reset seeds and rebuilds the task, so that a trial is the same
    whichever process runs it, and whenever.
    """

    def __init__(
        self, suite: str, task: int, seed: int, render: str = "sent"
    ) -> None:
        if render not in ("sent", "all"):
            raise ValueError(f"render: got {render!r}, want 'sent' or 'all'")
        self._seed = seed
        self._lazy = render == "sent"
        self._wanted = True
        self._seen: Any = None
        with _quiet():
            found = _benchmark(suite)
            self._starts = found.get_task_init_states(task)
            self._env = _make(found.get_task_bddl_file_path(task))
        self._sensors = _Shutter(self._env.env, lambda: self._wanted)

    def reset(self, trial: int) -> None:
        if not 0 <= trial < len(self._starts):
            raise ValueError(
                f"trial: got {trial}, want 0 to {len(self._starts) - 1}"
            )
        self._env.seed(self._seed)
        self._wanted = not self._lazy
        with _quiet():
            self._env.reset()
        self._sensors.install()
        self._seen = self._env.set_init_state(self._starts[trial])

    def step(self, action: np.ndarray, *, observed: bool) -> bool:
        self._wanted = observed or not self._lazy
        self._seen, _, done, _ = self._env.step(action.tolist())
        return bool(done)

    def observe(self) -> Observation:
        if not self._wanted:
            raise ValueError("observe: the last step was not `observed`")
        seen = self._seen
        return Observation(
            base=seen["agentview_image"],
            wrist=seen["robot0_eye_in_hand_image"],
            position=np.array(seen["robot0_eef_pos"], np.float64),
            quaternion=np.array(seen["robot0_eef_quat"], np.float64),
            gripper=np.array(seen["robot0_gripper_qpos"], np.float64),
        )

    def privileged(self) -> np.ndarray:
        """Bounding boxes of the goal's object and destination, low and high.

        Of a goal with several conditions: the first that is not met.
        """
        world = self._env.env
        goals = world.parsed_problem["goal_state"]
        unmet = [goal for goal in goals if not world._eval_predicate(goal)]
        goal = (unmet or goals)[0]
        boxes = [_bounding_box(world, name) for name in (goal[1], goal[-1])]
        return np.concatenate([corner for box in boxes for corner in box])

    def physics(self) -> np.ndarray:
        """float64: the whole state of the simulation, for comparisons."""
        return np.array(self._env.get_sim_state(), np.float64)

    def close(self) -> None:
        self._env.close()


class _Shutter:
    """Stands before a simulator's cameras and stays shut unless asked.

    The sensors are still sampled in every step, so that their phase is as ever;
    disabling them would shift it, and with it the pixels.
    """

    def __init__(self, world: Any, is_open: Callable[[], bool]) -> None:
        self._world = world
        self._is_open = is_open

    def install(self) -> None:
        """To be called after each reset, which makes the sensors anew."""
        for name in CAMERAS:
            observable = self._world._observables[name]
            observable._sensor = self._covered(observable._sensor)

    def _covered(self, sensor: Callable[[Any], Any]) -> Callable[[Any], Any]:
        dark = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)

        @functools.wraps(sensor)  # LIBERO reads its attributes
        def covered(cache: Any) -> Any:
            return sensor(cache) if self._is_open() else dark

        return covered


def _bounding_box(world: Any, name: str) -> Tuple[np.ndarray, np.ndarray]:
    """Corners of an object or a region, by its collision shapes, world axes."""
    model, data = world.sim.model, world.sim.data
    if name in world.object_sites_dict:
        site = model.site_name2id(name)
        half = np.abs(data.site_xmat[site].reshape(3, 3)) @ np.abs(
            model.site_size[site]
        )
        return data.site_xpos[site] - half, data.site_xpos[site] + half
    shapes = world.get_object(name).contact_geoms
    lows, highs = [], []
    for geom in map(model.geom_name2id, shapes):
        half = np.abs(data.geom_xmat[geom].reshape(3, 3)) @ np.abs(
            model.geom_size[geom]
        )
        lows.append(data.geom_xpos[geom] - half)
        highs.append(data.geom_xpos[geom] + half)
    return np.min(lows, axis=0), np.max(highs, axis=0)


def _benchmark(suite: str) -> Any:
    try:
        with _quiet():
            from libero.libero import benchmark
    except ImportError as error:
        raise SimulatorMissing(
            "LIBERO is not installed (from a checkout: "
            "pip install 'clients/python[libero]' in an "
            f"environment of its own): {error}"
        ) from error
    with _quiet():
        return benchmark.get_benchmark_dict()[suite]()


def _make(bddl_file: str) -> Any:
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    os.environ.setdefault("PYOPENGL_PLATFORM", os.environ["MUJOCO_GL"])
    from libero.libero.envs import OffScreenRenderEnv

    return OffScreenRenderEnv(
        bddl_file_name=bddl_file,
        camera_heights=IMAGE_SIZE,
        camera_widths=IMAGE_SIZE,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what LIBERO prints while it loads out of the progress line."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(
        io.StringIO()
    ):
        yield
