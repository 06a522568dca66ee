# SPDX-License-Identifier: Apache-2.0
"""Gemma: the VLM of the prefix, and the action expert (docs/pi0.md 2.6 on)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from siglip import EPSILON, together
from variant import GemmaSize


def rope(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin [B, 1, T, head_dim / 2] of positions [B, T] (2.7)."""
    index = torch.arange(0, head_dim, 2, device=positions.device)
    inv_freq = 1.0 / 10000.0 ** (index.float() / head_dim)
    angle = positions.float()[:, None, :, None] * inv_freq
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = table
    low, high = x.float().chunk(2, dim=-1)
    turned = torch.cat([low * cos - high * sin, high * cos + low * sin], -1)
    return turned.to(x.dtype)


class _RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
        return F.rms_norm(x, (x.shape[-1],), 1 + self.weight, EPSILON), None


class _AdaRmsNorm(nn.Module):
    """Scale, shift and the residual's gate come from the condition (2.11)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift, gate = self.dense(cond)[:, None].chunk(3, dim=-1)
        normal = F.rms_norm(x, (x.shape[-1],), None, EPSILON)
        return torch.addcmul(shift, normal, 1 + scale), gate


def _add(x: Tensor, y: Tensor, gate: Tensor | None) -> Tensor:
    return x + y if gate is None else torch.addcmul(x, y, gate)


class _GemmaAttention(nn.Module):
    def __init__(self, size: GemmaSize) -> None:
        super().__init__()
        self._size = size
        inner = size.heads * size.head_dim
        shared = size.kv_heads * size.head_dim
        self.q_proj = nn.Linear(size.width, inner, bias=False)
        self.k_proj = nn.Linear(size.width, shared, bias=False)
        self.v_proj = nn.Linear(size.width, shared, bias=False)
        self.o_proj = nn.Linear(inner, size.width, bias=False)

    def project(
        self, x: Tensor, table: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Q and K after RoPE and V, [B, heads, T, head_dim] each."""
        q, k, v = (
            self._split(part)
            for part in together(x, self.q_proj, self.k_proj, self.v_proj)
        )
        return _rotate(q, table), _rotate(k, table), v

    def keys(
        self, x: Tensor, table: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        k, v = (
            self._split(part) for part in together(x, self.k_proj, self.v_proj)
        )
        return _rotate(k, table), v

    def forward(
        self, q: Tensor, keys: tuple[Tensor, Tensor], mask: Tensor
    ) -> Tensor:
        """mask  bool [B, 1, 1 or T, keys]: what may be seen.

        The query heads of one KV head are folded into rows.
        """
        batch, heads, count, _ = q.shape
        group = heads // self._size.kv_heads
        if mask.shape[2] > 1:
            mask = mask.repeat(1, 1, group, 1)
        folded = q.reshape(batch, -1, group * count, self._size.head_dim)
        out = F.scaled_dot_product_attention(folded, *keys, attn_mask=mask)
        out = out.view(batch, heads, count, -1)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        batch, count, _ = x.shape
        return x.view(batch, count, -1, self._size.head_dim).transpose(1, 2)


class _GemmaMlp(nn.Module):
    def __init__(self, size: GemmaSize) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size.width, size.mlp, bias=False)
        self.up_proj = nn.Linear(size.width, size.mlp, bias=False)
        self.down_proj = nn.Linear(size.mlp, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = together(x, self.gate_proj, self.up_proj)
        return self.down_proj(F.gelu(gate, approximate="tanh") * up)


class _GemmaLayer(nn.Module):
    def __init__(self, size: GemmaSize, *, adaptive: bool) -> None:
        super().__init__()
        norm = _AdaRmsNorm if adaptive else _RmsNorm
        self.input_layernorm = norm(size.width)
        self.self_attn = _GemmaAttention(size)
        self.post_attention_layernorm = norm(size.width)
        self.mlp = _GemmaMlp(size)

    def forward(
        self,
        x: Tensor,
        table: tuple[Tensor, Tensor],
        mask: Tensor,
        cond: Tensor | None,
        prefix: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The layer's output, and its own K and V."""
        h, gate = self.input_layernorm(x, cond)
        q, *own = self.self_attn.project(h, table)
        keys = own
        if prefix is not None:
            keys = tuple(
                torch.cat([before, after], dim=2)
                for before, after in zip(prefix, own, strict=True)
            )
        x = _add(x, self.self_attn(q, keys, mask), gate)
        h, gate = self.post_attention_layernorm(x, cond)
        return _add(x, self.mlp(h), gate), tuple(own)

    def keys_only(
        self, x: Tensor, table: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.self_attn.keys(self.input_layernorm(x, None)[0], table)


class Gemma(nn.Module):
    def __init__(self, size: GemmaSize, *, adaptive: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _GemmaLayer(size, adaptive=adaptive) for _ in range(size.depth)
        )
        norm = _AdaRmsNorm if adaptive else _RmsNorm
        self.norm = norm(size.width)
