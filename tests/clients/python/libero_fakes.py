# SPDX-License-Identifier: Apache-2.0
"""A simulator that is none: quick, exact, and broken when asked.

An even trial is won by the policy's action number `WINS_AT`, an odd one never.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time

import numpy as np
from piserve.libero import Observation, Task

WINS_AT = 7
TASKS = [Task(i, f"task_{i}", f"do {i}") for i in range(3)]


class FakeEnvironment:
    """Notes all that is asked of it."""

    def __init__(self, wins_at=WINS_AT):
        self.calls = []
        self.steps = 0
        self.observed = False
        self.closed = False
        self._wins_at = wins_at
        self._trial = 0

    def reset(self, trial):
        self.calls.append(("reset", trial))
        self._trial, self.steps = trial, 0

    def step(self, action, *, observed):
        self.calls.append(("step", action.tolist(), observed))
        self.steps += 1
        self.observed = observed
        won = self.steps == 10 + self._wins_at
        return won and self._trial % 2 == 0

    def observe(self):
        assert self.observed, "the step before did not render"
        self.calls.append(("observe", self.steps))
        base = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        return Observation(
            base=base,
            wrist=base + 100,
            position=np.array([self.steps, 0.1, 0.2]),
            quaternion=np.array([0.0, 0.0, 0.0, 1.0]),
            gripper=np.array([0.04, -0.04]),
        )

    def privileged(self):
        return np.arange(12.0)

    def close(self):
        self.closed = True


@dataclasses.dataclass(frozen=True)
class FakeFactory:
    """Makes fakes, in any process; a fault strikes once for each folder.

    fault  "", "raises", "dies" or "hangs": what the second step does.
    """

    folder: str = ""
    fault: str = ""

    def __call__(self, task):
        if not self.fault:
            return FakeEnvironment()
        return _Faulty(self)


class _Faulty(FakeEnvironment):
    def __init__(self, factory):
        super().__init__()
        self._factory = factory

    def step(self, action, *, observed):
        if self.steps == 1 and self._first_time():
            if self._factory.fault == "dies":
                os._exit(9)
            if self._factory.fault == "hangs":
                time.sleep(60.0)
            raise RuntimeError("the simulator is broken")
        return super().step(action, observed=observed)

    def _first_time(self):
        if not self._factory.folder:
            return True  # every time
        try:
            with open(
                pathlib.Path(self._factory.folder, "struck"), "x"
            ) as file:
                file.write(f"{os.getpid()}\n")
        except FileExistsError:
            return False
        return True
