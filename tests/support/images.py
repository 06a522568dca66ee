# SPDX-License-Identifier: Apache-2.0
"""Image files, sound and broken."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def jpeg(pixels: np.ndarray, **how) -> bytes:
    """A JPEG of uint8 [h, w, 3] (or [h, w, 4] as CMYK)."""
    mode = "CMYK" if pixels.shape[2] == 4 else "RGB"
    return _saved(Image.fromarray(pixels, mode), "JPEG", **how)


def png(pixels: np.ndarray, **how) -> bytes:
    return _saved(Image.fromarray(pixels), "PNG", **how)


def _saved(image: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def animated_png(pixels: np.ndarray) -> bytes:
    first = Image.fromarray(pixels)
    second = Image.fromarray(255 - pixels)
    return _saved(first, "PNG", save_all=True, append_images=[second])


def png_16_bit(height: int, width: int) -> bytes:
    pixels = np.arange(height * width, dtype=np.uint16) * 257
    return _saved(Image.fromarray(pixels.reshape(height, width), "I;16"), "PNG")


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds a single row of nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(bytes(64)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    )


def jpeg_resized(file: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header lies about its size."""
    at = next(
        file.index(marker)
        for marker in (b"\xff\xc0", b"\xff\xc2")
        if marker in file
    )
    size = struct.pack(">HH", height, width)
    return file[: at + 5] + size + file[at + 9 :]


def jpeg_with_scans(file: bytes, scans: int) -> bytes:
    """A progressive JPEG whose first scan is repeated."""
    start = file.index(b"\xff\xda")
    end = start + 2
    while not (file[end] == 0xFF and file[end + 1] not in (0, *RESTARTS)):
        end += 1
    return file[:start] + file[start:end] * scans + file[end:]


RESTARTS = range(0xD0, 0xD8)
