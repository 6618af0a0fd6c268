"""Type and size of a photo from its first bytes, before anything is decoded.

A photo of 20 kB can hold 10,000 x 10,000 pixels. Whether it is decoded, and how much memory it is given, is decided by
these numbers, read here by the formats' own words: ITU T.81 B.1.1 (JPEG), PNG 1.2 section 11.2.2, the WebP container
and RFC 6386 / 9649. No decoder is started; the one that is started later checks the size again by its own reading.
"""

from __future__ import annotations

import struct

from threefold.serve.refusal import Refusal

SEGMENTS = 1000
"""Of a JPEG before its size, at most: EXIF, profiles and previews of 10 MiB are 160 of them."""
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}
_OTHERS = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"\0\0\0": "HEIC or video"}


def measure(data: bytes | bytearray | memoryview, name: str) -> tuple[str, int, int]:
    """(`jpeg`, `png` or `webp`, width, height) as stored, before EXIF turns it.

    Raises Refusal: unreadable (empty, or cut off before its size), unsupported_type (anything else).
    """
    data = bytes(data[: 1 << 24]) if not isinstance(data, bytes) else data
    if not data:
        raise Refusal("unreadable", f"{name}: empty file")
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return "jpeg", *_jpeg(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return "png", *_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return "webp", *_webp(data)
    except (struct.error, IndexError, ValueError):
        raise Refusal("unreadable", f"{name}: cut off or damaged in its header") from None
    kind = next((word for start, word in _OTHERS.items() if data.startswith(start)), "no photo")
    raise Refusal("unsupported_type", f"{name}: {kind}; expected jpeg, png or webp, by content")


def _jpeg(data: bytes) -> tuple[int, int]:
    place = 2
    for _ in range(SEGMENTS):
        place = data.index(b"\xff", place)  # decoders skip what stands between segments, so this does
        while data[place] == 0xFF:
            place += 1
            if place % 4096 == 0 and data[place : place + 4096] == b"\xff" * 4096:
                raise ValueError  # pages of filling: no camera writes that
        marker = data[place]
        place += 1
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 3)
            return _sized(width, height)
        if marker not in _ALONE and marker != 0:
            place += max(2, struct.unpack_from(">H", data, place)[0])
    raise ValueError


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError
    width, height = struct.unpack_from(">II", data, 16)
    return _sized(width, height)


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return _sized(width * (len(data) >= 30), height)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return _sized(width & 0x3FFF, height & 0x3FFF)
    raise ValueError


def _sized(width: int, height: int) -> tuple[int, int]:
    if not (width and height):
        raise ValueError
    return width, height
