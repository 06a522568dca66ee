# SPDX-License-Identifier: Apache-2.0
"""openpi's protocol for LIBERO: what a policy is shown, when, for how long.

Source: openpi examples/libero/main.py (eval_libero, _quat2axisangle). Resizing
is left to the server, which does the same to the same pixels.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, Dict, List

import numpy as np

from .environment import Environment, Observation

ACTION_DIM = 7
STATE_DIM = 8
PRIVILEGED_BLOCK = "simulator"  # of a policy's state: see docs/libero.md

MAX_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Actions that a policy has for an episode of each suite."""

WAIT_ACTION = np.array([0.0] * 6 + [-1.0])
"""Does nothing and opens the hand, while objects fall to rest."""


@dataclass(frozen=True)
class Protocol:
    """How an episode is run; the defaults are openpi's."""

    max_steps: int
    wait_steps: int = 10
    replan_steps: int = 5

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.replan_steps < 1 or self.wait_steps < 1:
            raise ValueError(
                f"got max_steps {self.max_steps}, replan_steps "
                f"{self.replan_steps}, wait_steps {self.wait_steps}; "
                "want at least 1 of each"
            )


@dataclass
class EpisodeRun:
    """How an episode ended.

    steps    actions of the policy that were carried out.
    infer_s  seconds of each call of the policy.
    frames   uint8 [h, 2 * w, 3]: what the policy saw, if that was to be kept.
    """

    success: bool
    steps: int
    infer_s: List[float] = field(default_factory=list)
    frames: List[np.ndarray] = field(default_factory=list)


def run_episode(
    environment: Environment,
    infer: Callable[[Dict[str, Any]], Any],
    trial: int,
    prompt: str,
    protocol: Protocol,
    *,
    privileged: bool = False,
    filmed: bool = False,
) -> EpisodeRun:
    """Runs one trial until the task is done or the steps are used up.

    infer       answers an observation dict with {"actions": [horizon, 7]}.
    privileged  appends the simulator's own knowledge to the state; for a
                scripted control, never for a policy.
    filmed      keeps what the policy saw.

    Raises ValueError for a chunk that is too short or not [.., 7]; what the
    environment and `infer` raise passes through.
    """
    environment.reset(trial)
    for waited in range(protocol.wait_steps):
        last = waited == protocol.wait_steps - 1
        environment.step(WAIT_ACTION, observed=last)
    run = EpisodeRun(success=False, steps=0)
    plan: Deque[np.ndarray] = deque()
    while run.steps < protocol.max_steps:
        if not plan:
            obs = request(environment.observe(), prompt)
            if privileged:
                obs["observation/state"] = np.concatenate(
                    [obs["observation/state"], environment.privileged()]
                )
            if filmed:
                run.frames.append(frame(obs))
            start = time.monotonic()
            reply = infer(obs)
            run.infer_s.append(time.monotonic() - start)
            plan.extend(_plan(reply["actions"], protocol.replan_steps))
        action = plan.popleft()
        run.steps += 1
        more = run.steps < protocol.max_steps
        if environment.step(action, observed=more and not plan):
            run.success = True
            break
    return run


def request(seen: Observation, prompt: str) -> Dict[str, Any]:
    """The observation dict of openpi's client, images turned by 180 degrees."""
    return {
        "observation/image": np.ascontiguousarray(seen.base[::-1, ::-1]),
        "observation/wrist_image": np.ascontiguousarray(seen.wrist[::-1, ::-1]),
        "observation/state": np.concatenate(
            [
                seen.position,
                axis_angle(seen.quaternion),
                seen.gripper,
            ]
        ),
        "prompt": prompt,
    }


def frame(obs: Dict[str, Any]) -> np.ndarray:
    """uint8 [h, 2 * w, 3]: both images of a request, beside each other."""
    both: np.ndarray = np.concatenate(
        [obs["observation/image"], obs["observation/wrist_image"]], axis=1
    )
    return both


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """float64 [3], rad, of a unit quaternion x y z w."""
    w = min(1.0, max(-1.0, float(quaternion[3])))
    scale = math.sqrt(1.0 - w * w)
    if scale == 0.0:
        return np.zeros(3)
    turned: np.ndarray = quaternion[:3] * (2.0 * math.acos(w) / scale)
    return turned


def _plan(actions: Any, replan_steps: int) -> np.ndarray:
    chunk = np.asarray(actions, dtype=np.float64)
    if chunk.ndim != 2 or chunk.shape[1] != ACTION_DIM:
        raise ValueError(
            f"actions: got shape {list(chunk.shape)}, "
            f"want [horizon, {ACTION_DIM}]"
        )
    if len(chunk) < replan_steps:
        raise ValueError(
            f"actions: got a chunk of {len(chunk)}, "
            f"want at least replan_steps = {replan_steps}"
        )
    planned: np.ndarray = chunk[:replan_steps]
    return planned
