# SPDX-License-Identifier: Apache-2.0
"""What an evaluation says of its episodes: rates and percentiles."""

from __future__ import annotations

import math
from typing import Dict, Sequence, Tuple

import numpy as np

_Z = 1.959964  # of 95 %


def wilson_interval(successes: int, trials: int) -> Tuple[float, float]:
    """Wilson's 95 % interval of a success rate; 0 to 1 without a trial."""
    if trials == 0:
        return 0.0, 1.0
    n, rate = trials, successes / trials
    middle = (successes + _Z * _Z / 2) / (n + _Z * _Z)
    spread = rate * (1 - rate) / n + _Z * _Z / (4 * n * n)
    half = _Z * math.sqrt(spread) / (1 + _Z * _Z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def percentiles_ms(seconds: Sequence[float]) -> Dict[str, float]:
    """p50, p90, p95, p99 and p100 in milliseconds; empty if there are none."""
    if len(seconds) == 0:
        return {}
    points = (50, 90, 95, 99, 100)
    values = np.percentile(np.asarray(seconds) * 1e3, points)
    return {f"p{p}": float(v) for p, v in zip(points, values)}
