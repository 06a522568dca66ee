# SPDX-License-Identifier: Apache-2.0
"""Whether a server answers what this folder's PyTorch model does.

Takes a checkpoint folder and the address of a server that hosts it in FLOAT32,
sends observations of the tabletop with given noise, and prints how far the
server's actions are from the model's, relative to their root mean square.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from piserve import PolicyClient
from piserve.worlds.tabletop import ACTION_DIM, Tabletop, expert_action

from data import Normalizer, Prompter, padded, to_pixels
from export import ASSET, trained_model
from model import Pi0
from render import patches

# How far float32 arithmetic leads from the exact result depends on the weights,
# so it is measured: PyTorch's float32 against its float64. Another order of the
# same float32 sums is one more draw of that error; both add up.
_DRAWS = 3.0


def model_actions(
    model: Pi0,
    normalize: Normalizer,
    prompter: Prompter,
    obs: dict[str, Any],
    noise: np.ndarray,
) -> np.ndarray:
    """float64 [H, 7], robot units; computed in the model's dtype."""
    dtype = model.action_in_proj.weight.dtype
    pictures = [obs["observation/image"], obs["observation/wrist_image"]]
    chw = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    rows = patches(chw.contiguous(), model.variant.vision.patch)
    own = normalize("state", obs["observation/state"][np.newaxis])
    tokens, mask = padded(
        prompter([obs["prompt"]], own), model.variant.max_token_len
    )
    state = torch.zeros(1, model.variant.action_dim, dtype=dtype)
    state[0, : own.shape[1]] = torch.from_numpy(own[0])
    with torch.inference_mode():
        pixels = to_pixels(rows[None], dtype)
        prefix = model.prefix(pixels, tokens, mask)
        start = torch.from_numpy(noise)[None].to(dtype)
        actions = model.actions(prefix, start, state)
    return normalize.inverse("actions", actions[0, :, :ACTION_DIM].numpy())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("--server", default="127.0.0.1:50051")
    parser.add_argument("--policy", default="")
    parser.add_argument("--observations", type=int, default=20)
    args = parser.parse_args()
    single = trained_model(args.checkpoint)
    double = trained_model(args.checkpoint).double()
    assets = args.checkpoint / "assets" / ASSET
    stats = json.loads((assets / "norm_stats.json").read_text())["norm_stats"]
    normalize = Normalizer(stats, single.variant.pi05)
    prompter = Prompter(
        args.checkpoint / "tokenizer.model", pi05=single.variant.pi05
    )
    served, own, exact = [], [], []
    with PolicyClient(args.server, policy=args.policy) as client:
        for obs, noise in _observations(single, args.observations):
            served.append(client.infer(obs, noise=noise, timeout=30)["actions"])
            for model, found in ((single, own), (double, exact)):
                found.append(
                    model_actions(model, normalize, prompter, obs, noise)
                )
    rms = np.sqrt(np.mean(np.square(exact)))

    def largest(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        return float(np.abs(np.array(a) - np.array(b)).max() / rms)

    bound = _DRAWS * largest(own, exact)
    good = largest(served, own) <= bound
    print(
        f"{len(served)} observations, largest difference of rms: server to "
        f"PyTorch {largest(served, own):.1e} (bound {bound:.1e}), server to "
        f"float64 {largest(served, exact):.1e}, PyTorch to float64 "
        f"{largest(own, exact):.1e}: {'ok' if good else 'OFF'}"
    )
    return 0 if good else 1


def _observations(
    model: Pi0, count: int
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Observations along the expert's way, with noise."""
    shape = (model.variant.action_horizon, model.variant.action_dim)
    rng = np.random.default_rng(0)
    world = Tabletop()
    for seed in range(count):
        world.start(seed)
        for _ in range(seed):
            if not world.done:
                world.act(expert_action(world.state, world.target))
        yield world.observe(), rng.standard_normal(shape).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
