# SPDX-License-Identifier: Apache-2.0
"""What an evaluation asks of a simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Task:
    """A task of a suite: its number, its name and what the robot is told."""

    index: int
    name: str
    prompt: str


@dataclass(frozen=True)
class Observation:
    """What the simulator shows after a step, as it gives it.

    base, wrist  uint8 [h, w, 3], upside down as LIBERO renders them.
    position     float64 [3], of the hand, m.
    quaternion   float64 [4], of the hand, x y z w.
    gripper      float64 [2], joints of the two fingers, m.
    """

    base: np.ndarray
    wrist: np.ndarray
    position: np.ndarray
    quaternion: np.ndarray
    gripper: np.ndarray


class Environment(Protocol):
    """The simulator of one task. Used by one thread.

    What a method raises means that the simulator is broken: the episode is then
    repeated in a new one, and never counted against the policy.
    """

    def reset(self, trial: int) -> None:
        """Puts the task into the start state of a trial."""
        ...

    def step(self, action: np.ndarray, *, observed: bool) -> bool:
        """One control step with float64 [7]; whether the task is done.

        observed  whether `observe` will be called before the next step: only
                  then must the cameras be rendered.
        """
        ...

    def observe(self) -> Observation:
        """What is seen after a step with `observed`."""
        ...

    def privileged(self) -> np.ndarray:
        """float64 [12]: what no robot knows; see `expert.Scene`."""
        ...

    def close(self) -> None:
        """Gives the simulator's memory back."""
        ...
