# SPDX-License-Identifier: Apache-2.0
"""The task: one robot, one prompt, one episode at a time."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from .dynamics import step as carry_out
from .perturbations import Disturber, Perturbations
from .prompts import draw_prompt
from .scene import render_base, render_wrist
from .state import BLOCK_HALF, COLOURS, Block, State, proprioception

MAX_STEPS = 150
IMAGE_SIZE = 224
MIN_IMAGE_SIZE = 8

_CLEAR_M = 0.01  # a finger this far from a block has let go of it
_LAYOUT, _PROMPT, _DISTURBANCE = range(3)  # streams of an episode's seed
_BLOCK_ROOM = 0.1  # between blocks at the start, for the fingers to fit
_PAD_ROOM = 0.12
_PLACE_X, _PLACE_Y = 0.15, 0.19


class Tabletop:
    """A robot hand over a table with three coloured blocks and a pad.

    The task is to put the block that the prompt names on the pad: to lie there
    whole, alone and at rest, with the fingers off it.

    A seed settles everything that is drawn: where things are, what is asked and
    of which block, what is disturbed. Layout, prompt and disturbances have a
    generator each, so that a seed has one layout whatever the perturbations.

    image_size     width and height of both cameras, pixels.
    perturbations  None: Perturbations() as it stands.
    max_steps      control steps (10 a second) until the episode is lost.

    Example:
        world = Tabletop()
        obs = world.reset(seed=0)
        while not world.done:
            obs = world.step(policy(obs))
        print(world.success)
    """

    def __init__(
        self,
        *,
        image_size: int = IMAGE_SIZE,
        perturbations: Optional[Perturbations] = None,
        max_steps: int = MAX_STEPS,
    ) -> None:
        if image_size < MIN_IMAGE_SIZE:
            raise ValueError(
                f"image_size: got {image_size}, want at least {MIN_IMAGE_SIZE}"
            )
        if max_steps < 1:
            raise ValueError(f"max_steps: got {max_steps}, want at least 1")
        self.image_size = image_size
        self.max_steps = max_steps
        self._perturbations = perturbations or Perturbations()
        self.start(0)

    def reset(self, seed: int) -> Dict[str, Any]:
        """Starts the episode of a seed >= 0; its first observation."""
        self.start(seed)
        return self.observe()

    def start(self, seed: int, target: Optional[int] = None) -> None:
        """Like `reset`, without rendering.

        target  the block to ask for, an index of COLOURS, in place of the
                seed's own.
        """
        if seed < 0:
            raise ValueError(f"seed: got {seed}, want at least 0")
        if target is not None and not 0 <= target < len(COLOURS):
            raise ValueError(
                f"target: got {target}, want 0 to {len(COLOURS) - 1}"
            )
        self.seed = seed
        self.steps = 0
        self.state = _draw_layout(np.random.default_rng([seed, _LAYOUT]))
        prompts = np.random.default_rng([seed, _PROMPT])
        drawn = int(prompts.integers(len(COLOURS)))
        self.target = drawn if target is None else target
        self.prompt = draw_prompt(self.target, prompts)
        self._disturber = Disturber(
            self._perturbations, np.random.default_rng([seed, _DISTURBANCE])
        )

    def step(self, action: np.ndarray) -> Dict[str, Any]:
        """Carries out one action [7] (dynamics.step); the next observation.

        Raises RuntimeError once the episode is done, ValueError for an action
        of another shape or with a value that is not finite.
        """
        self.act(action)
        return self.observe()

    def act(self, action: np.ndarray) -> None:
        """Like `step`, without rendering."""
        if self.done:
            raise RuntimeError(
                f"the episode of seed {self.seed} ended after {self.steps} "
                "steps, want reset() before another step"
            )
        carry_out(self.state, self._disturber.shake(action))
        self.steps += 1
        self._disturber.nudge(self.state, self.steps)

    def observe(self) -> Dict[str, Any]:
        """What a policy sees, in the form of openpi's LIBERO client.

        observation/image        uint8 [image_size, image_size, 3], RGB, upright
        observation/wrist_image  the same, from the camera on the hand
        observation/state        float64 [8], see state.proprioception
        prompt                   str
        """
        size = self.image_size
        return {
            "observation/image": render_base(self.state, size),
            "observation/wrist_image": render_wrist(self.state, size),
            "observation/state": proprioception(self.state),
            "prompt": self.prompt,
        }

    @property
    def success(self) -> bool:
        """Whether the target lies on the pad, alone, at rest and let go of."""
        state = self.state
        others = (i for i in range(len(COLOURS)) if i != self.target)
        return (
            state.on_pad(self.target)
            and state.grip is None
            and state.finger >= BLOCK_HALF + _CLEAR_M
            and not state.moved
            and not any(state.over_pad(i) for i in others)
        )

    @property
    def done(self) -> bool:
        return self.success or self.steps >= self.max_steps


def _draw_layout(rng: np.random.Generator) -> State:
    """Blocks and pad apart from each other, the hand open above them."""
    while True:
        pad_x, pad_y = _draw_place(rng)
        places = [_draw_place(rng) for _ in COLOURS]
        if _apart(pad_x, pad_y, places):
            break
    blocks = [
        Block(x, y, BLOCK_HALF, float(rng.uniform(-0.4, 0.4)))
        for x, y in places
    ]
    return State(
        x=float(rng.uniform(-0.1, 0.0)),
        y=float(rng.uniform(-0.06, 0.06)),
        z=float(rng.uniform(0.15, 0.19)),
        yaw=float(rng.uniform(-0.15, 0.15)),
        pad_x=pad_x,
        pad_y=pad_y,
        blocks=blocks,
    )


def _draw_place(rng: np.random.Generator) -> Tuple[float, float]:
    return (
        float(rng.uniform(-_PLACE_X, _PLACE_X)),
        float(rng.uniform(-_PLACE_Y, _PLACE_Y)),
    )


def _apart(
    pad_x: float, pad_y: float, places: List[Tuple[float, float]]
) -> bool:
    for index, (x, y) in enumerate(places):
        if math.hypot(x - pad_x, y - pad_y) < _PAD_ROOM:
            return False
        for other_x, other_y in places[:index]:
            if math.hypot(x - other_x, y - other_y) < _BLOCK_ROOM:
                return False
    return True
