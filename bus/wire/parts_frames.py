"""The frames for what is larger than one frame, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .fields import ClientFrame, Id, RequestId
from .limits import NUMBER_MAX, PART_ROOM_BYTES

__all__ = ["InParts", "PartFrame", "ReadPart", "WholeFrame", "part_bytes"]

Offset = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]


class PartFrame(ClientFrame, frozen=True, tag="part"):
    """A part of a frame: `data` begins at `offset` of the bytes of the frame, which are `total`."""

    request: RequestId
    upload: Id
    offset: Offset
    total: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    data: bytes


class WholeFrame(ClientFrame, frozen=True, tag="whole"):
    """Carries out the frame whose parts have all been sent, as if it had come with this request's number."""

    request: RequestId
    upload: Id


class ReadPart(ClientFrame, frozen=True, tag="read_part"):
    """Asks for the part of an answer that begins at `offset`; the answer is that to the request `of`."""

    request: RequestId
    of: RequestId
    offset: Offset


class InParts(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="in_parts"):
    """A request was carried out, and its answer has so many bytes that it is read in parts."""

    request: int
    total: int


def part_bytes(frame_bytes_max: int) -> int:
    """Return how many bytes a part may have: they are Base64 in a frame."""
    return (frame_bytes_max - PART_ROOM_BYTES) // 4 * 3
