# SPDX-License-Identifier: Apache-2.0
"""The sizes of a network, as variant.json has them (docs/pi0.md 3.7)."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class VisionSize:
    width: int
    depth: int
    heads: int
    mlp: int
    patch: int
    image: int

    @property
    def tokens(self) -> int:
        return (self.image // self.patch) ** 2


@dataclasses.dataclass(frozen=True)
class GemmaSize:
    width: int
    depth: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclasses.dataclass(frozen=True)
class Variant:
    pi05: bool
    action_dim: int
    action_horizon: int
    max_token_len: int
    vision: VisionSize
    vlm: GemmaSize
    expert: GemmaSize
    vocab: int

    @classmethod
    def load(cls, path: pathlib.Path) -> Variant:
        fields: dict[str, Any] = json.loads(path.read_text())
        vlm = dict(fields["vlm"])
        return cls(
            vocab=vlm.pop("vocab"),
            vlm=GemmaSize(**vlm),
            expert=GemmaSize(**fields["expert"]),
            vision=VisionSize(**fields["vision"]),
            **{
                name: fields[name]
                for name in (
                    "pi05",
                    "action_dim",
                    "action_horizon",
                    "max_token_len",
                )
            },
        )
