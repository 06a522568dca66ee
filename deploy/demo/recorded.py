# SPDX-License-Identifier: Apache-2.0
"""What openpi answered: the observations, noise and actions of tests/golden.

Camera images are not stored: they are a function of a seed (docs/synthetic.md).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import struct
from typing import Any, Dict, List, Tuple

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden"

# Largest and mean difference of actions in FP32 mode, relative to the root mean
# square of openpi's actions (tests/golden/MANIFEST.md, "Tolerances and why").
FP32_BOUNDS = {"pi0": (8e-6, 1.5e-6), "pi05": (5e-6, 1e-6)}

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "I64": "<i8",
    "U8": "u1",
    "BOOL": "?",
}


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far actions are from openpi's, beside what is allowed."""

    largest: float
    mean: float
    largest_bound: float
    mean_bound: float

    @property
    def within(self) -> bool:
        return (
            self.largest <= self.largest_bound and self.mean <= self.mean_bound
        )


@dataclasses.dataclass(frozen=True)
class Recording:
    """One observation and what openpi's policy made of it."""

    observation: Dict[str, Any]  # the dict that openpi's client sends
    noise: np.ndarray  # float32 [horizon, 32]
    actions: np.ndarray  # float64 [horizon, n], FP32 mode, robot units
    tensors: Dict[str, np.ndarray]  # all else that was stored
    model: str  # "pi0" or "pi05"

    def difference(self, actions: np.ndarray) -> Difference:
        return difference(actions, self.actions, self.model)


@dataclasses.dataclass(frozen=True)
class Config:
    """A named configuration and its recordings."""

    name: str
    description: Dict[str, Any]  # the JSON file
    recordings: List[Recording]

    @property
    def model(self) -> str:
        return "pi05" if self.description["pi05"] else "pi0"


def difference(actions: np.ndarray, want: np.ndarray, model: str) -> Difference:
    """Relative to the root mean square of `want`; shapes must be equal."""
    if actions.shape != want.shape:
        raise ValueError(
            f"got actions {list(actions.shape)}, want {list(want.shape)}"
        )
    errors = np.abs(actions - want) / np.sqrt(np.mean(want**2))
    return Difference(
        float(errors.max()), float(errors.mean()), *FP32_BOUNDS[model]
    )


def config_names() -> List[str]:
    return sorted(path.stem for path in (GOLDEN / "policy").glob("*.json"))


@functools.cache
def load(name: str) -> Config:
    """The recordings of a configuration, for example "pi0_libero".

    Large pictures take a second to make again, so they are made once.
    """
    description = json.loads((GOLDEN / "policy" / f"{name}.json").read_text())
    tensors = read_safetensors(GOLDEN / "policy" / f"{name}.safetensors")
    recordings = []
    for index, entry in enumerate(description["observations"]):
        own = {
            key.split(".", 1)[1]: value
            for key, value in tensors.items()
            if key.startswith(f"{index}.")
        }
        recordings.append(
            Recording(
                observation=_rebuilt(entry["observation"]),
                noise=own["noise"],
                actions=own["actions.fp32"],
                tensors=own,
                model="pi05" if description["pi05"] else "pi0",
            )
        )
    return Config(name, description, recordings)


def read_safetensors(path: pathlib.Path) -> Dict[str, np.ndarray]:
    """All tensors of a file; BF16 widened to float32."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: _tensor(data, 8 + length, entry) for name, entry in header.items()
    }


def _tensor(data: bytes, base: int, entry: Dict[str, Any]) -> np.ndarray:
    begin, end = (base + offset for offset in entry["data_offsets"])
    raw = data[begin:end]
    if entry["dtype"] == "BF16":
        wide = np.frombuffer(raw, "<u2").astype("<u4") << np.uint32(16)
        return wide.view("<f4").reshape(entry["shape"])
    return np.frombuffer(raw, _DTYPES[entry["dtype"]]).reshape(entry["shape"])


# ------------------------------------------------------------- made from seeds


def mixed(name: str, seed: int, index: np.ndarray) -> np.ndarray:
    """The 64-bit value that everything synthetic is made of."""
    hashed = 0xCBF29CE484222325
    for byte in name.encode():
        hashed = (hashed ^ byte) * 0x100000001B3 % 2**64
    start = (hashed + seed * 0x9E3779B97F4A7C15) % 2**64
    z = np.uint64(start) + index.astype(np.uint64) * np.uint64(
        0xD1342543DE82EF95
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def image(seed: int, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: coarse blocks under a ramp, with grain."""
    y, x, c = np.indices((height, width, 3), dtype=np.int64)
    ramp = ((x * (3 + c) + y * (5 - c) + 37 * seed) & 255) >> 1
    blocks = mixed("image", seed, ((y >> 3) * 65536 + (x >> 3)) * 4 + c)
    grain = mixed("grain", seed, (y * 65536 + x) * 4 + c)
    shift = np.uint64(58)
    total = ramp.astype(np.uint64) + (blocks >> shift) + (grain >> shift)
    return total.astype(np.uint8)


def noise(seed: int, shape: Tuple[int, int]) -> np.ndarray:
    """float32, variance 1, never beyond 2 sqrt(3)."""
    index = np.arange(4 * shape[0] * shape[1])
    parts = (mixed("noise", seed, index) >> np.uint64(40)).astype(np.int64)
    total = parts.reshape(-1, 4).sum(axis=1) - 2**25
    values = total.astype(np.float64) * 2.0**-24 * np.sqrt(3.0)
    return values.astype(np.float32).reshape(shape)


def _rebuilt(value: Any) -> Any:
    """An observation's JSON description as the arrays that were sent."""
    if not isinstance(value, dict):
        return value
    if "image" in value and isinstance(value["image"], dict):
        return _rebuilt_image(value["image"])
    if "data" in value:
        array = np.array(value["data"], value["dtype"])
        return array.reshape(value["shape"])
    if "bytes_utf8" in value:
        return value["bytes_utf8"].encode()
    return {key: _rebuilt(entry) for key, entry in value.items()}


def _rebuilt_image(how: Dict[str, Any]) -> np.ndarray:
    pixels = image(how["seed"], how["h"], how["w"])
    if how["layout"] == "chw":
        pixels = pixels.transpose(2, 0, 1)
    if how["dtype"] == "float32":
        return pixels.astype(np.float32) / np.float32(255)
    return pixels
