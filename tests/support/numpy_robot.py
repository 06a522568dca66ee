# SPDX-License-Identifier: Apache-2.0
"""From normalised actions to a robot's, in numpy: docs/pi0.md 4.2 and 4.4."""

from __future__ import annotations

import numpy as np

_ALOHA_FLIP = np.array([1, -1, -1, 1, 1, 1, 1] * 2)
_ALOHA_GRIPPERS = (6, 13)

# Of docs/pi0.md 1.4: dimensions of the reply, which of them are relative to the
# state (make_bool_mask), and whether ALOHA's conventions are turned to pi's.
_CONFIGS = {
    "pi0_libero": (7, (6, -1), False),
    "pi05_libero": (7, (), False),
    "pi0_aloha_towel": (14, (6, -1, 6, -1), True),
    "pi05_droid": (8, (), False),
}


def robot_actions(
    config: str, actions: np.ndarray, state: np.ndarray, stats: dict
) -> np.ndarray:
    """float64 [horizon, n] in robot units.

    actions  float32 [horizon, action_dim], normalised, as the model gives them
    state    float64 [action_dim], normalised, as the model takes it
    stats    the content of norm_stats.json
    """
    width, relative, adapt = _CONFIGS[config]
    stats = stats["norm_stats"]
    inverse = _from_quantile if config.startswith("pi05") else _from_z
    out = inverse(actions, stats["actions"])
    state = inverse(state, stats["state"])
    mask = np.repeat([n > 0 for n in relative], np.abs(relative).astype(int))
    out[:, : len(mask)] += np.where(mask, state[: len(mask)], 0)
    out = out[:, :width]
    if adapt:
        out = out * _ALOHA_FLIP
        for gripper in _ALOHA_GRIPPERS:
            span = 1.4910 - (-0.6213)
            out[:, gripper] = (out[:, gripper] + 0.5476 - (-0.6213)) / span
    return out


def _from_z(x: np.ndarray, stats: dict) -> np.ndarray:
    extra = x.shape[-1] - len(stats["mean"])
    mean = np.pad(stats["mean"], (0, extra))
    std = np.pad(stats["std"], (0, extra), constant_values=1)
    return x * (std + 1e-6) + mean


def _from_quantile(x: np.ndarray, stats: dict) -> np.ndarray:
    """(x + 1) / 2 rounds as x does: to float32 for actions."""
    low, high = np.array(stats["q01"]), np.array(stats["q99"])
    n = len(low)
    out = x.astype(np.float64)
    out[..., :n] = (x[..., :n] + 1) / 2 * (high - low + 1e-6) + low
    return out
