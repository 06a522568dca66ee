# SPDX-License-Identifier: Apache-2.0
"""Pi0 and Pi0.5 for training, by docs/pi0.md section 2.

Modules are named so that state_dict() has openpi's tensor names; what the file
holds besides (paligemma.lm_head, the embedding's name there) is export.py's.
With paligemma_with_expert in bfloat16 and the rest in float32 it computes as
openpi does in its BF16 mode, up to roundings inside fused operations.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemma import Gemma, rope
from siglip import VisionModel
from variant import Variant


class _Named(nn.Module):
    """A level of openpi's names."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def time_embedding(time: Tensor, width: int) -> Tensor:
    """float32 [N, width] of times [N] (2.9)."""
    fraction = torch.linspace(
        0, 1, width // 2, dtype=torch.float64, device=time.device
    )
    period = 0.004 * 1000.0**fraction
    angle = (1 / period * 2 * math.pi) * time.double()[:, None]
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()


@dataclasses.dataclass
class Prefix:
    """What the suffix sees: K and V of each layer, and which tokens count."""

    keys: list[tuple[Tensor, Tensor]]
    valid: Tensor  # bool [B, S]

    def repeated(self, times: int) -> Prefix:
        """Each row `times` times, its copies next to each other."""
        keys = [
            tuple(part.repeat_interleave(times, dim=0) for part in pair)
            for pair in self.keys
        ]
        return Prefix(keys, self.valid.repeat_interleave(times, dim=0))


class Pi0(nn.Module):
    """The network of a variant; `velocity(prefix(...), ...)` is the flow."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        self.variant = variant
        vlm, expert = variant.vlm, variant.expert
        self.paligemma_with_expert = _Named(
            paligemma=_Named(
                model=_Named(
                    vision_tower=_Named(
                        vision_model=VisionModel(variant.vision)
                    ),
                    multi_modal_projector=_Named(
                        linear=nn.Linear(variant.vision.width, vlm.width)
                    ),
                    language_model=_Named(
                        embed_tokens=nn.Embedding(variant.vocab, vlm.width),
                        **dict(Gemma(vlm).named_children()),
                    ),
                )
            ),
            gemma_expert=_Named(model=Gemma(expert, adaptive=variant.pi05)),
        )
        width = expert.width
        self.action_in_proj = nn.Linear(variant.action_dim, width)
        self.action_out_proj = nn.Linear(width, variant.action_dim)
        if variant.pi05:
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(variant.action_dim, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
        self._initialise()

    @property
    def _vlm(self) -> nn.Module:
        return self.paligemma_with_expert.paligemma.model

    def _initialise(self) -> None:
        for name, tensor in self.named_parameters():
            if name.endswith("norm.dense.weight"):
                nn.init.zeros_(tensor)
            elif name.endswith("norm.dense.bias"):
                nn.init.zeros_(tensor)
                tensor.data[2 * len(tensor) // 3 :] = 1.0  # gates start open
            elif name.endswith("embed_tokens.weight"):
                nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
            elif name.endswith("position_embedding.weight"):
                nn.init.normal_(tensor, std=0.02)
            elif tensor.dim() > 1:
                fan_in = tensor[0].numel()
                nn.init.trunc_normal_(tensor, std=fan_in**-0.5)
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    tensor.data *= (2 * self.variant.vlm.depth) ** -0.5
            elif name.endswith(".bias"):
                nn.init.zeros_(tensor)

    def prefix(
        self, images: Tensor, tokens: Tensor, token_mask: Tensor
    ) -> Prefix:
        """Vision and prefill.

        images      [B, cameras, tokens, 3 patch^2] of data.to_pixels.
        tokens      int64 [B, L].
        token_mask  bool [B, L]; the valid ones come first.
        """
        batch = len(images)
        seen = self._vlm.vision_tower.vision_model(images.flatten(0, 1))
        seen = self._vlm.multi_modal_projector.linear(seen)
        seen = seen.view(batch, -1, seen.shape[-1])
        text = self._vlm.language_model.embed_tokens(tokens)
        text = text * math.sqrt(text.shape[-1])
        x = torch.cat([seen, text], dim=1)
        image_mask = torch.ones_like(seen[..., 0], dtype=torch.bool)
        valid = torch.cat([image_mask, token_mask], dim=1)
        table = rope(valid.cumsum(1) - 1, self.variant.vlm.head_dim)
        mask = valid[:, None, None]
        keys = []
        layers = self._vlm.language_model.layers
        for layer in layers[:-1]:
            x, own = layer(x, table, mask, None, None)
            keys.append(own)
        keys.append(layers[-1].keys_only(x, table))
        return Prefix(keys, valid)

    def velocity(
        self, prefix: Prefix, x: Tensor, time: Tensor, state: Tensor
    ) -> Tensor:
        """d x / d t at time [N] of x [N, H, D]; state [N, D] is pi0's."""
        tokens, cond = self._suffix(x, time, state)
        count = tokens.shape[1]
        before = prefix.valid.sum(1, keepdim=True)
        positions = before + torch.arange(count, device=x.device)
        table = rope(positions, self.variant.expert.head_dim)
        mask = self._suffix_mask(prefix.valid, count)
        expert = self.paligemma_with_expert.gemma_expert.model
        inner = expert.layers[0].self_attn.q_proj.weight.dtype
        h = tokens.to(inner)
        cond = None if cond is None else cond.to(inner)
        for layer, keys in zip(expert.layers, prefix.keys, strict=True):
            h, _ = layer(h, table, mask, cond, keys)
        out = expert.norm(h, cond)[0][:, -x.shape[1] :]
        return self.action_out_proj(out.to(x.dtype))

    def _suffix(
        self, x: Tensor, time: Tensor, state: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        actions = self.action_in_proj(x)
        when = time_embedding(time, actions.shape[-1]).to(actions.dtype)
        if self.variant.pi05:
            hidden = F.silu(self.time_mlp_in(when))
            return actions, F.silu(self.time_mlp_out(hidden))
        both = torch.cat([actions, when[:, None].expand_as(actions)], dim=-1)
        hidden = F.silu(self.action_time_mlp_in(both))
        first = self.state_proj(state)[:, None]
        return torch.cat([first, self.action_time_mlp_out(hidden)], 1), None

    def _suffix_mask(self, valid: Tensor, count: int) -> Tensor:
        """bool [N, 1, T, S + T]."""
        batch, prefix = valid.shape
        own = torch.ones(count, count, dtype=torch.bool, device=valid.device)
        if not self.variant.pi05:
            own[0, 1:] = False  # the state sees no action
        return torch.cat(
            [
                valid[:, None].expand(batch, count, prefix),
                own.expand(batch, count, count),
            ],
            dim=2,
        )[:, None]

    @torch.inference_mode()
    def actions(
        self, prefix: Prefix, noise: Tensor, state: Tensor, steps: int = 10
    ) -> Tensor:
        """Euler from noise at t = 1 to actions at t = 0 (2.12)."""
        step = torch.tensor(-1.0 / steps, device=noise.device)
        time = torch.tensor(1.0, device=noise.device)
        x = noise
        for _ in range(steps):
            v = self.velocity(prefix, x, time.expand(len(x)), state)
            x = x + step * v.float()
            time = time + step
        return x
