"""Making a screenshot small: browsers write all colours in full, with filters that are made for photographs."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

__all__ = ["smaller"]

_START = b"\x89PNG\r\n\x1a\n"

_COLOURS = 256


def smaller(png: bytes) -> bytes:
    """Return a picture of 8 bits a channel with the 256 colours that most of it has, or those next to them."""
    width, height, channels, data = _read(png)
    pixels = [bytes(data[at : at + 3]) for at in range(0, len(data), channels)]
    counts = Counter(pixels)
    palette = [colour for colour, _ in counts.most_common(_COLOURS)]
    places = {colour: _nearest(colour, palette) for colour in counts}
    rows = b"".join(
        b"\0" + bytes(places[pixel] for pixel in pixels[start : start + width])
        for start in range(0, width * height, width)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return _START + b"".join(_chunk(kind, part) for kind, part in parts)


def _nearest(colour: bytes, palette: list[bytes]) -> int:
    return min(
        range(len(palette)), key=lambda at: sum((a - b) ** 2 for a, b in zip(colour, palette[at], strict=True))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _read(png: bytes) -> tuple[int, int, int, bytearray]:
    """Return the width, the height, the bytes of a pixel, and the pixels."""
    chunks = dict(_chunks(png))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, kind) in ((8, 2), (8, 6)), "the browser writes another kind of picture now"
    channels = 3 if kind == 2 else 4
    raw = zlib.decompress(b"".join(part for name, part in _chunks(png) if name == b"IDAT"))
    size = width * channels
    found = bytearray()
    above = bytearray(size)
    for start in range(0, len(raw), size + 1):
        row = bytearray(raw[start + 1 : start + 1 + size])
        _unfilter(raw[start], row, above, channels)
        found += row
        above = row
    return width, height, channels, found


def _unfilter(kind: int, row: bytearray, above: bytearray, channels: int) -> None:
    """Undo the filter of a row (PNG specification, chapter 9)."""
    for at in range(len(row)):
        left = row[at - channels] if at >= channels else 0
        corner = above[at - channels] if at >= channels else 0
        match kind:
            case 1:
                guess = left
            case 2:
                guess = above[at]
            case 3:
                guess = (left + above[at]) // 2
            case 4:
                near = left + above[at] - corner
                guess = min((left, above[at], corner), key=lambda each: abs(near - each))
            case _:
                guess = 0
        row[at] = (row[at] + guess) & 255


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_START)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += 12 + size
