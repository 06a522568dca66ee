# SPDX-License-Identifier: Apache-2.0
"""Whether render.py draws what the world draws: prints how pixels differ."""

from __future__ import annotations

import argparse
import pathlib
import sys

import numpy as np
import torch
from piserve.worlds.tabletop import IMAGE_SIZE, render_base, render_wrist

from demonstrations import Demonstrations, state_of
from render import Renderer

_SHARE_EQUAL = 0.99  # of pixels, within a level of 255
_MEAN_LEVELS = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demonstrations", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=40)
    args = parser.parse_args()
    states = Demonstrations.load(args.demonstrations).states
    rng = np.random.default_rng(0)
    states = states[rng.integers(len(states), size=args.count)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    renderer = Renderer(device, IMAGE_SIZE)
    rows = torch.from_numpy(states).to(device)
    good = True
    for name, ours, theirs in (
        ("base", renderer.base(rows), render_base),
        ("wrist", renderer.wrist(rows), render_wrist),
    ):
        got = ours.permute(0, 2, 3, 1).cpu().numpy().astype(int)
        want = [theirs(state_of(row), IMAGE_SIZE) for row in states]
        error = np.abs(got - np.array(want)).max(axis=-1)
        equal, mean = (error <= 1).mean(), error.mean()
        worst = error.mean(axis=(1, 2)).max()
        print(
            f"{name:<6} within a level {equal:.5f}  mean {mean:.4f} levels  "
            f"worst picture {worst:.4f}"
        )
        good = good and equal >= _SHARE_EQUAL and mean <= _MEAN_LEVELS
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
