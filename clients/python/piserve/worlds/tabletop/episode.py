# SPDX-License-Identifier: Apache-2.0
"""Runs a policy for one episode, the way openpi's LIBERO client does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, List, Mapping, Optional, Protocol, Union

import numpy as np

from .dynamics import ACTION_DIM
from .state import COLOURS, proprioception
from .world import Tabletop


class Infers(Protocol):
    """A policy as piserve.PolicyClient and openpi's client are one."""

    def infer(self, obs: Any) -> Mapping[str, Any]:
        """{"actions": [horizon, >= 7]} for an observation dict."""
        ...


PolicyFunction = Callable[[Mapping[str, Any]], Any]


@dataclass
class EpisodeResult:
    """What became of an episode of `steps` steps.

    target       the colour that the prompt names.
    actions      float64 [steps, 7], as the policy gave them.
    states       float64 [steps + 1, 8], the first before the first action.
    infer_s      seconds of each call of the policy.
    """

    seed: int
    prompt: str
    target: str
    success: bool
    steps: int
    actions: np.ndarray
    states: np.ndarray
    infer_s: List[float] = field(default_factory=list)


def run_episode(
    policy: Union[Infers, PolicyFunction],
    seed: int,
    *,
    world: Optional[Tabletop] = None,
    replan_steps: int = 5,
    on_step: Optional[Callable[[Tabletop], None]] = None,
) -> EpisodeResult:
    """Runs the episode of a seed to its end.

    policy        has `infer(obs)`, or is called with obs. Answers a chunk
                  [horizon, 7], or a dict with it under "actions"; a callable
                  may answer a single action [7]. Columns past the 7th are
                  ignored.
    world         in which to run; it is reset. None: a new Tabletop().
    replan_steps  actions that are carried out of each chunk; a shorter chunk is
                  carried out whole.
    on_step       called with the world at the start and after each step.

    Raises ValueError for an answer of another shape or that is not finite; what
    the policy raises passes through.
    """
    if replan_steps < 1:
        raise ValueError(f"replan_steps: got {replan_steps}, want at least 1")
    world = world if world is not None else Tabletop()
    world.start(seed)
    actions: List[np.ndarray] = []
    states = [proprioception(world.state)]
    infer_s: List[float] = []
    plan: List[np.ndarray] = []
    if on_step is not None:
        on_step(world)
    while not world.done:
        if not plan:
            plan = _ask(policy, world, replan_steps, infer_s)
        action = plan.pop(0)
        world.act(action)
        actions.append(action)
        states.append(proprioception(world.state))
        if on_step is not None:
            on_step(world)
    return EpisodeResult(
        seed=seed,
        prompt=world.prompt,
        target=COLOURS[world.target],
        success=world.success,
        steps=world.steps,
        actions=np.array(actions),
        states=np.array(states),
        infer_s=infer_s,
    )


def _ask(
    policy: Union[Infers, PolicyFunction],
    world: Tabletop,
    replan_steps: int,
    infer_s: List[float],
) -> List[np.ndarray]:
    obs = world.observe()
    call: PolicyFunction = getattr(policy, "infer", policy)  # type: ignore[arg-type]
    start = time.monotonic()
    answer = call(obs)
    infer_s.append(time.monotonic() - start)
    return list(_chunk(answer)[:replan_steps])


def _chunk(answer: Any) -> np.ndarray:
    """The float64 [horizon, 7] in a policy's answer."""
    if isinstance(answer, Mapping):
        if "actions" not in answer:
            raise ValueError(
                f"the policy's answer has {sorted(answer)}, want actions"
            )
        answer = answer["actions"]
    chunk = np.asarray(answer, dtype=np.float64)
    if chunk.ndim == 1:
        chunk = chunk[np.newaxis]
    if chunk.ndim != 2 or len(chunk) < 1 or chunk.shape[1] < ACTION_DIM:
        raise ValueError(
            f"the policy's actions: got shape {list(chunk.shape)}, "
            f"want [horizon, {ACTION_DIM}]"
        )
    if not np.isfinite(chunk).all():
        raise ValueError("the policy's actions are not all finite")
    return chunk[:, :ACTION_DIM]
