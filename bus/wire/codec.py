"""Encoding and decoding frames: JSON, and frames assembled from encoded parts.

Owns every byte of a frame that no struct encodes. A frame that is mostly the same for many recipients, or that came
as bytes, is assembled from those: decoding and encoding it again costs more than everything else done with it.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from ..model.zeros import ESCAPED_ZERO, zero_in
from .bodies import mark_undecodable
from .codes import Code, Refusal
from .frames import Publish, RequestFrame, WorkerFrame
from .refusals import refusal

__all__ = [
    "ack_frame",
    "decode_request",
    "decode_worker_frame",
    "deliver_frame",
    "delivery_ending",
    "encode",
    "ok_frame",
    "publish_frame",
    "tap_copy",
]

encode = msgspec.json.Encoder().encode
"""Encode a frame, or any value, as JSON."""

_request_decoder: msgspec.json.Decoder[RequestFrame] = msgspec.json.Decoder(RequestFrame)
_worker_decoder: msgspec.json.Decoder[WorkerFrame] = msgspec.json.Decoder(WorkerFrame)


class _Numbered(msgspec.Struct):
    """The one field that is read of a refused frame."""

    request: Any = None


_decode_numbered = msgspec.json.Decoder(_Numbered).decode


def decode_request(frame: bytes, frame_bytes_max: int) -> RequestFrame:
    """Decode a client's frame. Raise Refusal with the message for the client."""
    if len(frame) > frame_bytes_max:
        raise Refusal(Code.TOO_LARGE, f"the frame has {len(frame)} bytes; the maximum is {frame_bytes_max}")
    try:
        return _without_zeros(_request_decoder.decode(frame), frame)
    except msgspec.ValidationError as error:
        raise Refusal(Code.BAD_REQUEST, refusal(error), _request_number(frame)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        frame = mark_undecodable(frame)
    try:
        return _without_zeros(_request_decoder.decode(frame), frame)
    except msgspec.ValidationError as error:
        raise Refusal(Code.BAD_REQUEST, refusal(error), _request_number(frame)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(Code.BAD_REQUEST, f"not a JSON object in UTF-8: {error}") from None


def _without_zeros(request: RequestFrame, frame: bytes) -> RequestFrame:
    """Return a frame as it is taken. Raise Refusal if it has a zero character where that must not be.

    The messages of a `publish` are checked one by one, and refused alone.
    """
    if isinstance(request, Publish):
        return request
    if ESCAPED_ZERO in frame and (where := zero_in(request)) is not None:
        raise Refusal(Code.BAD_REQUEST, f"{where} must not contain a zero character", _request_number(frame))
    return request


def _request_number(frame: bytes) -> int | None:
    try:
        request = _decode_numbered(frame).request
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return request if type(request) is int and 0 <= request < 2**53 else None


def decode_worker_frame(frame: bytes) -> WorkerFrame | None:
    """Decode a worker's frame; None for what a client ignores: ops of a later version, and invalid frames."""
    try:
        return _worker_decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


# ── Frames from parts ────────────────────────────────────────────────────────────────────────────────────


def publish_frame(request: int, publications: Sequence[bytes]) -> bytes:
    """Return a publish frame with messages that are already encoded."""
    return b'{"op":"publish","request":%d,"messages":[%b]}' % (request, b",".join(publications))


def ack_frame(seqs: Sequence[int]) -> bytes:
    """Return an ack that requests no answer."""
    return b'{"op":"ack","seqs":%b}' % encode(seqs)


def ok_frame(request: int, value: Any) -> bytes:
    """Return the answer to a request, with its value."""
    return encode({"op": "ok", "request": request, "value": value})


def deliver_frame(deliveries: Sequence[tuple[Sequence[bytes], bytes]]) -> bytes:
    """Return a deliver frame of messages that are written already, each followed by the ending of its group."""
    written = []
    for ending, groups in groupby(deliveries, key=itemgetter(1)):
        wires = [wire for wires, _ in groups for wire in wires]
        wires[-1] += ending
        written.append((ending + b",").join(wires))  # one copy of what may be hundreds of kilobytes
    return b'{"op":"deliver","messages":[%b]}' % b",".join(written)


def delivery_ending(attempt: int, group: str | None) -> bytes:
    """Return the end of a delivery, which follows the part that is the same for every mailbox."""
    return b',"attempt":%d%b}' % (attempt, b"" if group is None else b',"group":%b' % encode(group))


def tap_copy(message: bytes, prev_seq: int) -> bytes:
    """Return the copy of a message for the tap; `message` is its JSON without the closing brace."""
    return b'%b,"prev_seq":%d}' % (message, prev_seq)
