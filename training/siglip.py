# SPDX-License-Identifier: Apache-2.0
"""SigLIP's vision tower (docs/pi0.md 2.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from variant import VisionSize

EPSILON = 1e-6  # of every norm


def together(x: Tensor, *linears: nn.Linear) -> tuple[Tensor, ...]:
    """What each linear makes of x, as one product."""
    weight = torch.cat([linear.weight for linear in linears])
    bias = None
    if linears[0].bias is not None:
        bias = torch.cat([linear.bias for linear in linears])
    widths = [linear.out_features for linear in linears]
    return F.linear(x, weight, bias).split(widths, dim=-1)


class _SiglipAttention(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self._heads = size.heads
        self.q_proj = nn.Linear(size.width, size.width)
        self.k_proj = nn.Linear(size.width, size.width)
        self.v_proj = nn.Linear(size.width, size.width)
        self.out_proj = nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = (
            part.view(batch, count, self._heads, -1).transpose(1, 2)
            for part in together(x, self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).reshape(batch, count, width))


class _SiglipMlp(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.fc1 = nn.Linear(size.width, size.mlp)
        self.fc2 = nn.Linear(size.mlp, size.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class _SiglipLayer(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(size.width, eps=EPSILON)
        self.self_attn = _SiglipAttention(size)
        self.layer_norm2 = nn.LayerNorm(size.width, eps=EPSILON)
        self.mlp = _SiglipMlp(size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _SiglipEmbeddings(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(
            3, size.width, size.patch, stride=size.patch
        )
        self.position_embedding = nn.Embedding(size.tokens, size.width)

    def forward(self, rows: Tensor) -> Tensor:
        """rows  [B, tokens, 3 patch^2]: pixels less 127.5, as data.to_pixels.

        That is exact in bfloat16; the kernel takes the rest of the way to
        [-1, 1].
        """
        kernel = self.patch_embedding.weight.flatten(1) / 127.5
        x = F.linear(rows, kernel, self.patch_embedding.bias)
        return x + self.position_embedding.weight


class _SiglipEncoder(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _SiglipLayer(size) for _ in range(size.depth)
        )


class VisionModel(nn.Module):
    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.embeddings = _SiglipEmbeddings(size)
        self.encoder = _SiglipEncoder(size)
        self.post_layernorm = nn.LayerNorm(size.width, eps=EPSILON)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embeddings(rows)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x)
