# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as a network takes them: patches, tokens, normalised rows."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import sentencepiece
import torch
from piserve.worlds.tabletop import COLOURS, IMAGE_SIZE, PHRASINGS
from torch import Tensor

from demonstrations import Demonstrations
from render import Renderer, patches
from variant import Variant

CAMERAS = 2
_RENDER_BATCH = 256


def norm_stats(demonstrations: Demonstrations) -> dict[str, Any]:
    """norm_stats.json of states and actions (docs/pi0.md 3.6)."""
    rows = {
        "state": demonstrations.proprioception(),
        "actions": demonstrations.chunks.reshape(
            -1, demonstrations.chunks.shape[-1]
        ).astype(np.float64),
    }
    found = {}
    for name, values in rows.items():
        low, high = np.quantile(values, [0.01, 0.99], axis=0)
        found[name] = {
            "mean": values.mean(axis=0).tolist(),
            "std": values.std(axis=0).tolist(),
            "q01": low.tolist(),
            "q99": high.tolist(),
        }
    return {"norm_stats": found}


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """By mean and deviation for pi0, by percentiles for pi05 (4.4)."""

    stats: dict[str, Any]
    quantiles: bool

    def __call__(self, name: str, values: np.ndarray) -> np.ndarray:
        stats = {k: np.array(v) for k, v in self.stats[name].items()}
        if self.quantiles:
            span = stats["q99"] - stats["q01"] + 1e-6
            return (values - stats["q01"]) / span * 2 - 1
        return (values - stats["mean"]) / (stats["std"] + 1e-6)

    def inverse(self, name: str, values: np.ndarray) -> np.ndarray:
        stats = {k: np.array(v) for k, v in self.stats[name].items()}
        if self.quantiles:
            span = stats["q99"] - stats["q01"] + 1e-6
            return (values + 1) / 2 * span + stats["q01"]
        return values * (stats["std"] + 1e-6) + stats["mean"]


class Prompter:
    """Prompts as tokens (docs/pi0.md 4.5)."""

    def __init__(self, tokenizer: pathlib.Path, *, pi05: bool) -> None:
        self._model = sentencepiece.SentencePieceProcessor(
            model_file=str(tokenizer)
        )
        self._pi05 = pi05

    def __call__(
        self, prompts: list[str], states: np.ndarray
    ) -> list[list[int]]:
        """Tokens of prompts, with states [n, 8] normalised."""
        if not self._pi05:
            line = self._model.encode("\n")
            known = {
                prompt: self._model.encode(prompt, add_bos=True) + line
                for prompt in set(prompts)
            }
            return [known[prompt] for prompt in prompts]
        bins = np.clip(np.floor(128 * states) + 128, -1, 255).astype(int)
        texts = [
            f"Task: {prompt}, State: {' '.join(map(str, row))};\nAction: "
            for prompt, row in zip(prompts, bins.tolist(), strict=True)
        ]
        return self._model.encode(texts, add_bos=True, num_threads=-1)


def padded(rows: list[list[int]], width: int) -> tuple[Tensor, Tensor]:
    """int64 [n, width] and the mask of what is real."""
    tokens = np.zeros((len(rows), width), np.int64)
    for index, row in enumerate(rows):
        if len(row) > width:
            raise ValueError(f"prompt: got {len(row)} tokens, want <= {width}")
        tokens[index, : len(row)] = row
    lengths = torch.tensor([len(row) for row in rows])
    return torch.from_numpy(tokens), torch.arange(width) < lengths[:, None]


def render_patches(
    renderer: Renderer, states: np.ndarray, patch: int, device: torch.device
) -> Tensor:
    """uint8 [n, CAMERAS, tokens, 3 patch^2]; a batch at a time."""
    side = IMAGE_SIZE // patch
    shape = (len(states), CAMERAS, side * side, 3 * patch * patch)
    out = torch.empty(shape, dtype=torch.uint8, device=device)
    for start in range(0, len(states), _RENDER_BATCH):
        rows = states[start : start + _RENDER_BATCH]
        count = len(rows)
        if device.type == "cuda" and count < _RENDER_BATCH:  # one compilation
            rows = np.resize(rows, (_RENDER_BATCH, rows.shape[1]))
        batch = torch.from_numpy(rows).to(device)
        for camera, draw in enumerate((renderer.base, renderer.wrist)):
            seen = patches(draw(batch), patch)[:count]
            out[start : start + count, camera] = seen
    return out


def to_pixels(patch_rows: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 to what Pi0.prefix takes: less 127.5, exact in any dtype."""
    out = torch.empty(patch_rows.shape, dtype=dtype, device=patch_rows.device)
    return torch.sub(patch_rows, 127.5, out=out)


@dataclasses.dataclass
class Rows:
    """What a model is trained on, on its device; rows i belong together.

    state    float32 [n, D], actions float32 [n, H, D], both normalised, padded.
    tokens   int64 [n, L], mask bool [n, L].
    """

    state: Tensor
    actions: Tensor
    tokens: Tensor
    mask: Tensor


def rows_for(
    variant: Variant,
    demonstrations: Demonstrations,
    stats: dict[str, Any],
    tokenizer: pathlib.Path,
    device: torch.device,
) -> Rows:
    normalize = Normalizer(stats["norm_stats"], variant.pi05)
    state = normalize("state", demonstrations.proprioception())
    actions = normalize("actions", demonstrations.chunks.astype(np.float64))
    prompts = [
        PHRASINGS[phrasing].format(colour=COLOURS[target])
        for phrasing, target in zip(
            demonstrations.phrasing.tolist(),
            demonstrations.targets.tolist(),
            strict=True,
        )
    ]
    tokens = Prompter(tokenizer, pi05=variant.pi05)(prompts, state)
    longest = max(map(len, tokens))
    if longest > variant.max_token_len:
        raise ValueError(
            f"prompt: got {longest} tokens, want <= {variant.max_token_len}"
        )
    ids, mask = padded(tokens, -(-longest // 8) * 8)

    def widened(values: np.ndarray) -> Tensor:
        room = [(0, 0)] * (values.ndim - 1)
        room.append((0, variant.action_dim - values.shape[-1]))
        return torch.from_numpy(np.pad(values, room)).float().to(device)

    return Rows(
        widened(state), widened(actions), ids.to(device), mask.to(device)
    )
