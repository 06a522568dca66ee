# SPDX-License-Identifier: Apache-2.0
"""Episodes of a model in lockstep, without a server: a first look."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from piserve.worlds.tabletop import ACTION_DIM, Tabletop, proprioception

from data import CAMERAS, Normalizer, Prompter, padded, to_pixels
from demonstrations import row_of
from model import Pi0
from render import Renderer, patches

REPLAN_STEPS = 5


@torch.inference_mode()
def success_rate(
    model: Pi0,
    stats: dict[str, Any],
    tokenizer: pathlib.Path,
    renderer: Renderer,
    seeds: Iterable[int],
) -> float:
    """The share of episodes that end well, replanning as the clients do."""
    worlds = []
    for seed in seeds:
        worlds.append(Tabletop(image_size=8))
        worlds[-1].start(seed)
    count = len(worlds)
    device = next(model.parameters()).device
    random = torch.Generator(device).manual_seed(0)
    while not all(world.done for world in worlds):
        chunks = _chunks(model, stats, tokenizer, renderer, worlds, random)
        for world, chunk in zip(worlds, chunks, strict=True):
            for action in chunk[:REPLAN_STEPS]:
                if not world.done:
                    world.act(action)
    return sum(world.success for world in worlds) / count


def _chunks(
    model: Pi0,
    stats: dict[str, Any],
    tokenizer: pathlib.Path,
    renderer: Renderer,
    worlds: list[Tabletop],
    random: torch.Generator,
) -> np.ndarray:
    """float64 [n, H, 7], in robot units."""
    variant = model.variant
    device = random.device
    normalize = Normalizer(stats, variant.pi05)
    states = np.array([row_of(world.state) for world in worlds])
    rows = torch.from_numpy(states).to(device)
    images = torch.stack(
        [
            patches(draw(rows), variant.vision.patch)
            for draw in (renderer.base, renderer.wrist)
        ],
        dim=1,
    )
    assert images.shape[1] == CAMERAS
    own = normalize(
        "state", np.array([proprioception(w.state) for w in worlds])
    )
    prompts = [world.prompt for world in worlds]
    tokens, mask = padded(
        Prompter(tokenizer, pi05=variant.pi05)(prompts, own),
        variant.max_token_len,
    )
    state = torch.zeros(len(worlds), variant.action_dim)
    state[:, : own.shape[1]] = torch.from_numpy(own)
    shape = (len(worlds), variant.action_horizon, variant.action_dim)
    noise = torch.randn(shape, device=device, generator=random)
    prefix = model.prefix(
        to_pixels(images, torch.float32), tokens.to(device), mask.to(device)
    )
    actions = model.actions(prefix, noise, state.to(device))
    return normalize.inverse(
        "actions", actions[..., :ACTION_DIM].double().cpu().numpy()
    )
