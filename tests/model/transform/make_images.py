# SPDX-License-Identifier: Apache-2.0
"""Makes the images of tests/fuzz/corpus/image_fuzz and what Pillow decodes.

Run from the repository's root with Pillow 11.2.1 when a kind of image is added:
    python tests/model/transform/make_images.py
Good images land in images.json with the FNV-1a 64 of Pillow's RGB bytes; the
others are damaged or unsupported on purpose and carry the reason to expect.
"""

import io
import json
import pathlib
import struct
import zlib

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests/fuzz/corpus/image_fuzz"
WIDTH, HEIGHT = 37, 26  # no multiple of a JPEG block


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{h:016x}"


def picture():
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            image.putpixel(
                (x, y), (x * 7 % 256, y * 9 % 256, (x * y * 3 + 40) % 256)
            )
    return image


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind, body, crc=None):
    crc = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png(width, height, bits, colour, rows, *extra, interlace=0):
    header = struct.pack(
        ">IIBBBBB", width, height, bits, colour, 0, 0, interlace
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def interlaced():
    """Adam7 of an 8x8 grey ramp: seven passes, filter byte before each row."""
    pixels = [[(8 * y + x) * 4 for x in range(8)] for y in range(8)]
    rows = b""
    for x0, y0, dx, dy in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:
        for y in range(y0, 8, dy):
            rows += b"\0" + bytes(pixels[y][x] for x in range(x0, 8, dx))
    return png(8, 8, 8, 0, rows, interlace=1)


def good():
    rgb = picture()
    grey = rgb.convert("L")
    palette = rgb.quantize(16)
    rgba = rgb.copy()
    rgba.putalpha(grey)
    grey_alpha = grey.copy()
    grey_alpha.putalpha(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    stray = bytearray(encoded(rgb, "JPEG", quality=90))
    stray[-2:-2] = b"\x12\x34"  # as some webcams put before the last marker
    return {
        "rgb444.jpg": encoded(rgb, "JPEG", quality=90, subsampling=0),
        "rgb422.jpg": encoded(rgb, "JPEG", quality=85, subsampling=1),
        "rgb420.jpg": encoded(rgb, "JPEG", quality=75, subsampling=2),
        "progressive.jpg": encoded(rgb, "JPEG", quality=80, progressive=True),
        "restart.jpg": encoded(
            rgb, "JPEG", quality=80, restart_marker_blocks=1
        ),
        "grey.jpg": encoded(grey, "JPEG", quality=90),
        "stray_bytes.jpg": bytes(stray),
        "exif_rotated.jpg": encoded(
            rgb,
            "JPEG",
            quality=90,
            exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01"
            b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
        ),
        "rgb.png": encoded(rgb, "PNG"),
        "rgba.png": encoded(rgba, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey_alpha.png": encoded(grey_alpha, "PNG"),
        "bilevel.png": encoded(grey.convert("1"), "PNG"),
        "palette4.png": encoded(palette, "PNG"),
        "palette_transparent.png": encoded(palette, "PNG", transparency=3),
        "gamma.png": png(
            2,
            2,
            8,
            2,
            b"\0" + b"\x40\x80\xc0" * 2 + b"\0" + b"\x20\x30\x50" * 2,
            chunk(b"gAMA", struct.pack(">I", 100000)),
            chunk(b"tEXt", b"Comment\0hello"),
        ),
        "interlaced.png": interlaced(),
    }


def bad():
    rgb = picture()
    jpeg = encoded(rgb, "JPEG", quality=80)
    still = encoded(rgb, "PNG")
    row = b"\0" + b"\x40" * 6
    frame = jpeg.index(b"\xff\xc0")
    lying = bytearray(jpeg)
    lying[frame + 5 : frame + 7] = struct.pack(">H", 4 * HEIGHT)
    many = encoded(rgb, "JPEG", quality=80, progressive=True)
    scan = many[many.rindex(b"\xff\xda") : -2]
    damaged = bytearray(still)
    damaged[still.index(b"IDAT") + 20] ^= 0x10
    twice = bytearray(jpeg)
    twice[frame:frame] = jpeg[frame : frame + 19]

    def marker(code):
        other = bytearray(jpeg)
        other[frame + 1] = code
        return bytes(other)

    twelve = bytearray(jpeg)
    twelve[frame + 4] = 12
    return {
        "empty.jpg": (b"", "IMAGE_CORRUPT"),
        "soi_only.jpg": (b"\xff\xd8", "IMAGE_CORRUPT"),
        "no_frame.jpg": (b"\xff\xd8\xff\xd9", "IMAGE_CORRUPT"),
        "truncated.jpg": (jpeg[: len(jpeg) * 2 // 3], "IMAGE_CORRUPT"),
        "truncated_closed.jpg": (
            jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9",
            "IMAGE_CORRUPT",
        ),
        "cut_segment.jpg": (jpeg[: frame + 4], "IMAGE_CORRUPT"),
        "zero_length.jpg": (
            jpeg[:2] + b"\xff\xe0\0\0" + jpeg[2:],
            "IMAGE_CORRUPT",
        ),
        "cut_frame.jpg": (
            b"\xff\xd8\xff\xc0\0\x04\x08\0\xff\xd9",
            "IMAGE_CORRUPT",
        ),
        "lying_height.jpg": (bytes(lying), "IMAGE_CORRUPT"),
        "two_frames.jpg": (bytes(twice), "IMAGE_CORRUPT"),
        "many_scans.jpg": (
            many[:-2] + scan * 64 + many[-2:],
            "IMAGE_UNSUPPORTED",
        ),
        "cmyk.jpg": (encoded(rgb.convert("CMYK"), "JPEG"), "IMAGE_UNSUPPORTED"),
        "arithmetic.jpg": (marker(0xC9), "IMAGE_UNSUPPORTED"),
        "lossless.jpg": (marker(0xC3), "IMAGE_UNSUPPORTED"),
        "twelve_bits.jpg": (bytes(twelve), "IMAGE_UNSUPPORTED"),
        "empty.png": (b"", "IMAGE_CORRUPT"),
        "no_header.png": (still[:8] + still[33:], "IMAGE_CORRUPT"),
        "truncated.png": (still[: len(still) // 2], "IMAGE_CORRUPT"),
        "truncated_closed.png": (png(2, 2, 8, 2, row), "IMAGE_CORRUPT"),
        "no_end.png": (still[:-12], "IMAGE_CORRUPT"),
        "bad_crc.png": (bytes(damaged), "IMAGE_CORRUPT"),
        "bad_ancillary_crc.png": (
            png(2, 2, 8, 2, row * 2, chunk(b"tEXt", b"a\0b", crc=1)),
            "IMAGE_CORRUPT",
        ),
        "no_palette.png": (png(2, 2, 8, 3, (b"\0\0\0") * 2), "IMAGE_CORRUPT"),
        "sixteen_bits.png": (
            png(2, 2, 16, 0, (b"\0" + b"\x40" * 4) * 2),
            "IMAGE_UNSUPPORTED",
        ),
        "animated.png": (
            png(2, 2, 8, 2, row * 2, chunk(b"acTL", struct.pack(">II", 1, 0))),
            "IMAGE_UNSUPPORTED",
        ),
        "too_wide.png": (png(4097, 2, 8, 2, row), "IMAGE_SIZE"),
        "far_too_wide.png": (png(0xFFFFFFFF, 1, 8, 2, row), "IMAGE_SIZE"),
        "too_many_pixels.png": (png(4096, 1025, 8, 2, row), "IMAGE_SIZE"),
        "zero_width.png": (png(0, 2, 8, 2, row), "IMAGE_SIZE"),
        "too_flat.png": (png(1000, 3, 8, 2, row), "IMAGE_RATIO"),
        "bomb.png": (png(2048, 2048, 8, 2, b"\0" * 1024), "IMAGE_CORRUPT"),
    }


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    index = {"good": {}, "bad": {}}
    for name, data in good().items():
        (CORPUS / name).write_bytes(data)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        index["good"][name] = {
            "width": image.width,
            "height": image.height,
            "fnv1a64": fnv1a64(image.tobytes()),
        }
    for name, (data, reason) in bad().items():
        (CORPUS / name).write_bytes(data)
        index["bad"][name] = reason
    # What the fuzz target takes as two sides and raw pixels.
    (CORPUS / "raw_3x2").write_bytes(bytes([3, 2]) + bytes(range(18)))
    (CORPUS / "raw_short").write_bytes(bytes([3, 2]) + bytes(17))
    (CORPUS / "raw_zero").write_bytes(bytes([0, 2]))
    target = pathlib.Path(__file__).with_name("images.json")
    target.write_text(json.dumps(index, indent=1) + "\n")


main()
