"""What a worker that stands by answers: where the worker is that serves, to whatever it is asked.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.leadership import Leader
from ..wire.codec import decode_request, encode
from ..wire.frames import Closing, Code, ErrorFrame, Refusal

__all__ = ["closing", "elsewhere"]

_NOBODY = "this worker stands by, and knows of none that serves now; try again"


def elsewhere(parts: Sequence[bytes], leader: Leader | None, frame_bytes_max: int) -> bytes:
    """Return the answer to a message, whose first part is who sent it; clients of every version try again."""
    url = None if leader is None else leader.url
    text = "this worker stands by, and another one serves"
    text = _NOBODY if leader is None else text if url is None else f"{text} at {url}"
    addresses = {} if leader is None else {"url": leader.url, "tap": leader.tap}
    details = {name: address for name, address in addresses.items() if address is not None} or None
    number = _number(parts, frame_bytes_max)
    return encode(ErrorFrame(code=Code.ELSEWHERE, message=text, request=number, retry=True, details=details))


def closing(leader: Leader | None) -> Closing:
    """Return how sessions are ended whose worker has handed over, to this leader if it is known."""
    return Closing() if leader is None else Closing(url=leader.url, tap=leader.tap)


def _number(parts: Sequence[bytes], frame_bytes_max: int) -> int | None:
    try:
        request = decode_request(parts[-1], frame_bytes_max)
    except Refusal as refusal:
        return refusal.request
    return getattr(request, "request", None)
