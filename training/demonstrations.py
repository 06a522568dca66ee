# SPDX-License-Identifier: Apache-2.0
"""What the expert would do, in states that a clone of it comes into.

A demonstration is one state and the chunk of actions that the expert answers
there. The states are not only the expert's own: it acts through a shaky arm,
carries its chunks out blindly for a few steps, and chance drives it at times
(noise injected as in DART, Laskey et al. 2017), so that a clone learns the way
back from its own mistakes. Images are not kept: they follow from the state
(render.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
from piserve.worlds.tabletop import (
    ACTION_DIM,
    PHRASINGS,
    Perturbations,
    State,
    Tabletop,
    expert_chunk,
)
from piserve.worlds.tabletop.state import FINGER_MAX, Block

HORIZON = 10
FIRST_SEED = 1_000_000  # episodes below it are for evaluation

# x y z yaw tilt_x tilt_y finger pad_x pad_y, then x y z yaw of each block.
STATE_DIM = 21

_SHAKES = (0.1, 0.1, 0.2, 0.4)  # action noise; each as likely
_KEPT = 0.5  # share of the steps that become a demonstration
_DRIFT = 0.02  # chance of a step that an accident begins
_METRES = 65536.0  # how a number is stored in 16 bits: metres, radians
_RADIANS = 8192.0
_ANGLES = [3, 4, 5, 12, 16, 20]


@dataclasses.dataclass
class Demonstrations:
    """Rows of states with their answers.

    states    float64 [n, STATE_DIM].
    chunks    float32 [n, HORIZON, ACTION_DIM].
    targets   uint8 [n], index of the colour that is asked for.
    phrasing  uint8 [n], index of the phrasing it is asked in.
    """

    states: np.ndarray
    chunks: np.ndarray
    targets: np.ndarray
    phrasing: np.ndarray

    def __len__(self) -> int:
        return len(self.states)

    def proprioception(self) -> np.ndarray:
        """float64 [n, 8]: what the robot tells of each state."""
        tip, finger = self.states[:, :3], self.states[:, 6:7]
        turn = _axis_angles(*self.states[:, 3:6].T)
        return np.concatenate([tip, turn, finger, -finger], axis=1)

    def save(self, path: pathlib.Path) -> None:
        np.savez_compressed(
            path,
            states=np.rint(self.states * _scales()).astype(np.int16),
            chunks=np.rint(self.chunks * 127).astype(np.int8),
            targets=self.targets,
            phrasing=self.phrasing,
        )

    @classmethod
    def load(cls, path: pathlib.Path) -> Demonstrations:
        with np.load(path) as file:
            return cls(
                file["states"] / _scales(),
                file["chunks"].astype(np.float32) / np.float32(127),
                file["targets"],
                file["phrasing"],
            )


def row_of(state: State) -> list[float]:
    """The STATE_DIM numbers of a state that pictures and the robot show."""
    row = [state.x, state.y, state.z, state.yaw, state.tilt_x, state.tilt_y]
    row += [state.finger, state.pad_x, state.pad_y]
    for block in state.blocks:
        row += [block.x, block.y, block.z, block.yaw]
    return row


def state_of(row: np.ndarray) -> State:
    """The state of a row, without what the hand holds."""
    x, y, z, yaw, tilt_x, tilt_y, finger, pad_x, pad_y = row[:9].tolist()
    return State(
        x=x,
        y=y,
        z=z,
        yaw=yaw,
        pad_x=pad_x,
        pad_y=pad_y,
        blocks=[Block(*part) for part in row[9:].reshape(3, 4).tolist()],
        tilt_x=tilt_x,
        tilt_y=tilt_y,
        finger=min(finger, FINGER_MAX),
    )


def _axis_angles(
    yaw: np.ndarray, tilt_x: np.ndarray, tilt_y: np.ndarray
) -> np.ndarray:
    """float64 [n, 3]: the rotation vectors of hands, as state.proprioception.

    The product of the quaternions of the lean and of the turn about z.
    """
    half = np.hypot(tilt_x, tilt_y) / 2
    sine = np.sinc(half / np.pi) / 2  # sin(half) / (2 half)
    w, x, y = np.cos(half), sine * tilt_x, sine * tilt_y
    c, s = np.cos(yaw / 2), np.sin(yaw / 2)
    vector = np.stack([x * c + y * s, y * c - x * s, w * s], axis=1)
    length = np.linalg.norm(vector, axis=1)
    angle = 2 * np.arctan2(length, w * c)
    return vector * (angle / np.maximum(length, 1e-30))[:, np.newaxis]


def demonstrate(seed: int) -> Demonstrations:
    """The demonstrations of one episode."""
    rng = np.random.default_rng([seed, 3])
    shake = float(rng.choice(_SHAKES))
    world = Tabletop(
        perturbations=Perturbations(
            action_noise=shake, nudges=(0, 3), nudge_before=60
        )
    )
    world.start(seed)
    phrasing = int(rng.integers(len(PHRASINGS)))
    rows, chunks = [], []
    for action, chunk in _drive(world, rng):
        if chunk is not None:
            rows.append(row_of(world.state))
            chunks.append(chunk)
        world.act(action)
    count = len(rows)
    return Demonstrations(
        np.array(rows).reshape(count, STATE_DIM),
        np.array(chunks, np.float32).reshape(count, HORIZON, ACTION_DIM),
        np.full(count, world.target, np.uint8),
        np.full(count, phrasing, np.uint8),
    )


def _drive(
    world: Tabletop, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The next action, and the expert's chunk where it shall be kept."""
    plan: list[np.ndarray] = []
    accident = 0
    push = np.zeros(ACTION_DIM)
    while not world.done:
        if accident == 0 and rng.random() < _DRIFT:
            accident = int(rng.integers(2, 7))
            push = rng.uniform(-1, 1, ACTION_DIM)
            push[6] = rng.choice([-1.0, 0.0, 0.0, 1.0])
            plan = []
        wanted = rng.random() < _KEPT
        chunk = None
        if wanted or (not plan and accident == 0):
            chunk = expert_chunk(world.state, world.target, HORIZON)
        if accident > 0:
            accident -= 1
            action = push
        else:
            if not plan:
                assert chunk is not None
                plan = list(chunk[: int(rng.integers(1, 9))])
            action = plan.pop(0)
        yield action, chunk


def generate(count: int, first_seed: int, workers: int) -> Demonstrations:
    """At least `count` demonstrations, the same for the same first seed."""
    parts: list[Demonstrations] = []
    total = 0
    start = time.monotonic()
    with multiprocessing.Pool(workers) as pool:
        seeds = iter(range(first_seed, first_seed + 100_000_000))
        for part in pool.imap(demonstrate, seeds_of(seeds, count), 8):
            if total >= count:
                break
            parts.append(part)
            total += len(part)
            _show_progress(len(parts), total, count, time.monotonic() - start)
    print(file=sys.stderr)
    return Demonstrations(
        *(
            np.concatenate([getattr(part, field.name) for part in parts])
            for field in dataclasses.fields(Demonstrations)
        )
    )


def seeds_of(seeds: Iterator[int], count: int) -> Iterator[int]:
    """Enough seeds for `count` demonstrations: an episode gives over ten."""
    for _ in range(max(1, count // 10)):
        yield next(seeds)


def _scales() -> np.ndarray:
    scales = np.full(STATE_DIM, _METRES)
    scales[_ANGLES] = _RADIANS
    return scales


def _show_progress(
    episodes: int, total: int, count: int, elapsed_s: float
) -> None:
    if episodes % 50 == 0 or total >= count:
        print(
            f"\r{episodes} episodes, {total}/{count} demonstrations, "
            f"{elapsed_s:.0f} s ",
            end="",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--workers", type=int, default=None)
    args = parser.parse_args()
    made = generate(args.count, args.first_seed, args.workers)
    made.save(args.out)
    size_mb = args.out.stat().st_size / 1e6
    print(f"wrote {len(made)} demonstrations to {args.out}, {size_mb:.1f} MB")


if __name__ == "__main__":
    main()
