"""The kept screenshots are small, and what makes them small keeps what they show."""

from __future__ import annotations

import zlib

from .png import smaller
from .screenshots import BYTES_MAX, SHOTS


def test_screenshots_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in SHOTS.iterdir()}
    assert len(sizes) >= 10
    assert {name: size for name, size in sizes.items() if size > BYTES_MAX} == {}


def test_a_smaller_picture_shows_the_same() -> None:
    red, green = b"\xff\0\0", b"\0\xff\0"
    rows = b"\0" + red + green + b"\2" + b"\0" * 6 + b"\1" + green + b"\0" * 3
    head = (2).to_bytes(4) + (3).to_bytes(4) + bytes([8, 2, 0, 0, 0])
    parts = {b"IHDR": head, b"IDAT": zlib.compress(rows), b"IEND": b""}
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(part).to_bytes(4) + name + part + b"\0" * 4 for name, part in parts.items()
    )
    found = smaller(png)
    chunks, at = {}, 8
    while at < len(found):
        size = int.from_bytes(found[at : at + 4])
        chunks[found[at + 4 : at + 8]] = found[at + 8 : at + 8 + size]
        at += 12 + size
    palette, pixels = chunks[b"PLTE"], zlib.decompress(chunks[b"IDAT"])
    shown = [palette[3 * pixel : 3 * pixel + 3] for row in range(3) for pixel in pixels[row * 3 + 1 : row * 3 + 3]]
    assert shown == [red, green, red, green, green, green]
