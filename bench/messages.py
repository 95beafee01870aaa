"""The message that every system carries: 300 bytes of JSON, numbered, with the time at which it was to be sent.

Owns its form, and the count of what came: a message is known by its number, and each sender counts from 1. Knows
nothing of any system, so that all of them carry the same.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["BODY_BYTES", "Content", "Tally", "read", "value", "write"]

BODY_BYTES = 300

_TEXT = b"x" * BODY_BYTES

_SENDER_FACTOR = 1 << 40
"""A number names its sender in the upper part: no sender gets to so many messages."""


class Content(msgspec.Struct, gc=False):
    """What a message says: its number, and when it was to be sent, in monotonic nanoseconds."""

    number: int = 0
    due: int = 0


read = msgspec.json.Decoder(Content).decode
"""Read a body."""


def write(sender: int, number: int, due: int) -> bytes:
    """Write the body of a sender's message: so many bytes, whatever the numbers."""
    head = b'{"number":%d,"due":%d,"text":"' % (sender * _SENDER_FACTOR + number, due)
    return head + _TEXT[: BODY_BYTES - 2 - len(head)] + b'"}'


def value(sender: int, number: int, due: int) -> dict[str, Any]:
    """Give the same body as a value, for a client that writes JSON itself."""
    place = sender * _SENDER_FACTOR + number
    length = BODY_BYTES - len(f'{{"number":{place},"due":{due},"text":""}}')
    return {"number": place, "due": due, "text": "x" * length}


class Tally:
    """What one receiver got: each message once, however often it came."""

    def __init__(self) -> None:
        self.latencies = array("q")
        """Nanoseconds from when each was to be sent until it was received; repeats are not among them."""
        self.first = 0
        """When the first one came, in monotonic nanoseconds."""
        self.repeated = 0
        self.out_of_order = 0
        self._newest: dict[int, int] = {}
        self._missing: dict[int, set[int]] = {}

    def __repr__(self) -> str:
        return f"<Tally got={len(self.latencies)} repeated={self.repeated}>"

    def got(self, contents: Iterable[Content], arrived: int) -> None:
        """Count messages that were received at a time. One numbered 0 is not part of any measurement."""
        self.first = self.first or arrived
        for content in contents:
            sender, number = divmod(content.number, _SENDER_FACTOR)
            if not number:
                continue
            newest = self._newest.get(sender, 0)
            if number == newest + 1:
                self._newest[sender] = number
            elif number > newest:
                self._missing.setdefault(sender, set()).update(range(newest + 1, number))
                self._newest[sender] = number
            elif number in self._missing.get(sender, ()):
                self._missing[sender].discard(number)
                self.out_of_order += 1
            else:
                self.repeated += 1
                continue
            self.latencies.append(arrived - content.due)

    def forget(self) -> None:
        """Begin another measurement; where each sender's numbers stand is kept."""
        self.latencies = array("q")
        self.first = self.repeated = self.out_of_order = 0

    def __len__(self) -> int:
        return len(self.latencies)
