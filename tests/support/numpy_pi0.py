# SPDX-License-Identifier: Apache-2.0
"""A second opinion: Pi0 and Pi0.5 in FP32 mode, in numpy alone.

Written from docs/pi0.md section 2 and 4, independent of model/reference, for
checkpoints of any size. One row at a time, over the valid part of the prefix
only (2.5), which is mathematically the same. Sums run in float64, so that what
differs from float32 code is that code's own rounding; values that openpi rounds
on purpose (pixels, RoPE angles, time) are rounded as it does.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
from recorded import GOLDEN, mixed, read_safetensors

_VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
_PROJECTOR = (
    "paligemma_with_expert.paligemma.model.multi_modal_projector.linear"
)
_VLM = "paligemma_with_expert.paligemma.model.language_model."
_EMBEDDING = "paligemma_with_expert.paligemma.lm_head.weight"
_EXPERT = "paligemma_with_expert.gemma_expert.model."


# -------------------------------------------------------------------- weights


def synthetic(name: str, seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 values of docs/synthetic.md before rounding to a file's dtype."""
    mean, std = _moments(name, shape)
    index = np.arange(int(np.prod(shape)))
    high = (mixed(name, seed, index) >> np.uint64(40)).astype(np.float32)
    uniform = high * np.float32(2.0**-24) - np.float32(0.5)
    amp = np.float32(np.sqrt(12.0) * std)
    return (np.float32(mean) + uniform * amp).reshape(shape)


def _moments(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    root = np.sqrt(float(np.prod(shape[1:])))
    q_or_k = name.endswith((".q_proj.weight", ".k_proj.weight"))
    if name.endswith("norm.dense.bias"):
        return 0, 0.15
    if name.endswith(".bias"):
        return 0, 0.1
    if len(shape) == 1:
        return (1 if "vision_tower" in name else 0), 0.1
    if name.endswith("position_embedding.weight"):
        return 0, 0.5
    if q_or_k and ("vision_tower" in name or "language_model" in name):
        return 0, 1.75 / root
    if "gemma_expert" in name:
        for end, gain in (
            (".q_proj.weight", 1.5),
            (".k_proj.weight", 2.5),
            (".o_proj.weight", 2.0),
        ):
            if name.endswith(end):
                return 0, gain / root
    if name.endswith("norm.dense.weight"):
        return 0, 0.5 / root
    return 0, 1 / root


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest even, as float32."""
    bits = values.view("<u4")
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + rounding) & np.uint32(0xFFFF0000)).view("<f4")


# ------------------------------------------------------------------- functions


def _linear(x, weights, name):
    y = x @ weights[name + ".weight"].T
    bias = weights.get(name + ".bias")
    return y if bias is None else y + bias


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _silu(x):
    return x / (1 + np.exp(-x))


def _softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _layer_norm(x, weights, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(variance + 1e-6)
    return normal * weights[name + ".weight"] + weights[name + ".bias"]


def _rms(x):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)


def _inv_freq(head_dim: int) -> np.ndarray:
    """float32; torch's own bits where they were recorded (2.7)."""
    table = json.loads((GOLDEN / "rope.json").read_text())
    known = table["inv_freq_float32_by_head_dim"].get(str(head_dim))
    if known is not None:
        return np.array([int(bits, 16) for bits in known], "<u4").view("<f4")
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(
        head_dim
    )
    power = 10000.0 ** exponent.astype(np.float64)
    return np.float32(1) / power.astype(np.float32)


def _rotate(x, positions):
    """RoPE over halves; x [T, heads, head_dim]."""
    angle = positions.astype(np.float32)[:, None] * _inv_freq(x.shape[-1])
    cos = np.cos(angle).astype(np.float64)[:, None, :]
    sin = np.sin(angle).astype(np.float64)[:, None, :]
    low, high = np.split(x, 2, axis=-1)
    return np.concatenate(
        [low * cos - high * sin, high * cos + low * sin], axis=-1
    )


# ----------------------------------------------------------------------- model


@dataclasses.dataclass(frozen=True)
class Row:
    """What the model takes for one observation."""

    images: list[np.ndarray | None]  # uint8 [image, image, 3]; None: masked
    tokens: np.ndarray  # the valid ones
    state: np.ndarray  # float64 [action_dim]
    noise: np.ndarray  # float32 [horizon, action_dim]


class NumpyPi0:
    """`weights` by openpi's names (read_safetensors), `variant` as in
    variant.json."""

    def __init__(self, weights: dict[str, np.ndarray], variant: dict) -> None:
        self._weights = {
            name: value.astype(np.float64) for name, value in weights.items()
        }
        self._variant = variant

    @classmethod
    def load(cls, folder: pathlib.Path, variant: dict | None = None):
        if variant is None:
            variant = json.loads((folder / "variant.json").read_text())
        return cls(read_safetensors(folder / "model.safetensors"), variant)

    def actions(self, row: Row, steps: int = 10) -> np.ndarray:
        """float32 [horizon, action_dim], normalised: Euler from t = 1 to 0."""
        caches, prefix_length = self._prefill(row)
        dt = np.float32(-1.0 / steps)
        t = np.float32(1)
        x = row.noise.astype(np.float32)
        while t >= -dt / 2:
            v = self._velocity(x, t, row.state, caches, prefix_length)
            x = x + dt * v.astype(np.float32)
            t = np.float32(t + dt)
        return x

    def _image_tokens(self, image: np.ndarray) -> np.ndarray:
        w, sizes = self._weights, self._variant["vision"]
        one = np.float32(1)
        pixels = image.astype(np.float32) / np.float32(255) * 2 * one - one
        p, side = sizes["patch"], sizes["image"] // sizes["patch"]
        patches = pixels.reshape(side, p, side, p, 3).transpose(0, 2, 4, 1, 3)
        kernel = w[_VISION + "embeddings.patch_embedding.weight"]
        x = patches.reshape(side * side, -1) @ kernel.reshape(
            len(kernel), -1
        ).T.astype(np.float64)
        x = x + w[_VISION + "embeddings.patch_embedding.bias"]
        x = x + w[_VISION + "embeddings.position_embedding.weight"]
        for layer in range(sizes["depth"]):
            name = f"{_VISION}encoder.layers.{layer}."
            x = x + self._vision_attention(x, name, sizes["heads"])
            y = _layer_norm(x, w, name + "layer_norm2")
            hidden = _gelu(_linear(y, w, name + "mlp.fc1"))
            x = x + _linear(hidden, w, name + "mlp.fc2")
        x = _layer_norm(x, w, _VISION + "post_layernorm")
        return _linear(x, w, _PROJECTOR)

    def _vision_attention(self, x, name, heads):
        y = _layer_norm(x, self._weights, name + "layer_norm1")
        name += "self_attn."
        q, k, v = (
            _linear(y, self._weights, f"{name}{part}_proj").reshape(
                len(y), heads, -1
            )
            for part in "qkv"
        )
        scores = np.einsum("qhc,khc->hqk", q, k) * q.shape[-1] ** -0.5
        out = np.einsum("hqk,khc->qhc", _softmax(scores), v)
        return _linear(
            out.reshape(len(y), -1), self._weights, name + "out_proj"
        )

    def _prefill(self, row: Row):
        """K after RoPE and V of each layer, and the number of tokens."""
        table = self._weights[_EMBEDDING]
        width = np.float64(np.float32(np.sqrt(table.shape[1])))
        parts = [
            self._image_tokens(image)
            for image in row.images
            if image is not None
        ]
        x = np.concatenate([*parts, table[row.tokens] * width])
        positions = np.arange(len(x))
        caches = []
        for layer in range(self._variant["vlm"]["depth"]):
            name = f"{_VLM}layers.{layer}."
            h = self._norm(x, name + "input_layernorm", None)[0]
            q, k, v = self._qkv(h, name, self._variant["vlm"], positions)
            caches.append((k, v))
            x = x + self._attend(q, k, v, name, None)
            h = self._norm(x, name + "post_attention_layernorm", None)[0]
            x = x + self._mlp(h, name)
        return caches, len(x)

    def _velocity(self, x, t, state, caches, prefix_length):
        h, condition = self._suffix(x, t, state)
        sizes = self._variant["expert"]
        positions = prefix_length + np.arange(len(h))
        visible = np.ones((len(h), prefix_length + len(h)), bool)
        if not self._variant["pi05"]:
            visible[0, prefix_length + 1 :] = False  # the state sees no action
        for layer, (k_prefix, v_prefix) in enumerate(caches):
            name = f"{_EXPERT}layers.{layer}."
            y, gate = self._norm(h, name + "input_layernorm", condition)
            q, k, v = self._qkv(y, name, sizes, positions)
            k = np.concatenate([k_prefix, k])
            v = np.concatenate([v_prefix, v])
            h = h + self._attend(q, k, v, name, visible) * gate
            y, gate = self._norm(
                h, name + "post_attention_layernorm", condition
            )
            h = h + self._mlp(y, name) * gate
        out = self._norm(h, _EXPERT + "norm", condition)[0]
        return _linear(out[-len(x) :], self._weights, "action_out_proj")

    def _suffix(self, x, t, state):
        """Tokens of the suffix, and Pi0.5's condition."""
        w = self._weights
        actions = _linear(x.astype(np.float64), w, "action_in_proj")
        time = self._time(t)
        if self._variant["pi05"]:
            hidden = _silu(_linear(time, w, "time_mlp_in"))
            return actions, _silu(_linear(hidden, w, "time_mlp_out"))
        both = np.concatenate(
            [actions, np.broadcast_to(time, actions.shape)], axis=1
        )
        hidden = _silu(_linear(both, w, "action_time_mlp_in"))
        tokens = _linear(hidden, w, "action_time_mlp_out")
        state = _linear(
            state.astype(np.float32).astype(np.float64), w, "state_proj"
        )
        return np.concatenate([state[None], tokens]), None

    def _time(self, t):
        half = self._variant["expert"]["width"] // 2
        period = 0.004 * 1000.0 ** np.linspace(0, 1, half)
        angle = 1 / period * 2 * np.pi * float(t)
        both = np.concatenate([np.sin(angle), np.cos(angle)])
        return both.astype(np.float32).astype(np.float64)

    def _norm(self, x, name, condition):
        """RMSNorm and the gate of its residual; adaRMS with a condition."""
        if condition is None:
            return _rms(x) * (1 + self._weights[name + ".weight"]), 1
        modulation = _linear(condition, self._weights, name + ".dense")
        scale, shift, gate = np.split(modulation, 3)
        return _rms(x) * (1 + scale) + shift, gate

    def _qkv(self, h, name, sizes, positions):
        q, k, v = (
            _linear(h, self._weights, f"{name}self_attn.{part}_proj").reshape(
                len(h), heads, sizes["head_dim"]
            )
            for part, heads in (
                ("q", sizes["heads"]),
                ("k", sizes["kv_heads"]),
                ("v", sizes["kv_heads"]),
            )
        )
        return _rotate(q, positions), _rotate(k, positions), v

    def _attend(self, q, k, v, name, visible):
        group = q.shape[1] // k.shape[1]
        k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
        scores = np.einsum("qhc,khc->hqk", q, k) * q.shape[-1] ** -0.5
        if visible is not None:
            scores = np.where(visible, scores, -np.inf)
        out = np.einsum("hqk,khc->qhc", _softmax(scores), v)
        return _linear(
            out.reshape(len(q), -1), self._weights, name + "self_attn.o_proj"
        )

    def _mlp(self, h, name):
        gate = _gelu(_linear(h, self._weights, name + "mlp.gate_proj"))
        up = _linear(h, self._weights, name + "mlp.up_proj")
        return _linear(gate * up, self._weights, name + "mlp.down_proj")
