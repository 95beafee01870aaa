"""Messages that wait to be sent, and how they are packed into frames.

Owns their order: messages of one call stay in order, and calls follow one another. A call that has ended takes its
messages along, if they were not sent yet.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from ..errors import BusError
from ..wire.limits import PUBLISH_ROOM_BYTES
from .waiting import Part, Ticket

__all__ = ["Unsent"]


class Unsent:
    """See the module. Its length is the number of messages."""

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self._messages = 0

    def __len__(self) -> int:
        return self._messages

    def __repr__(self) -> str:
        return f"<Unsent messages={self._messages}>"

    def add(self, ticket: Ticket, start: int, stop: int) -> None:
        """Add messages of a ticket."""
        self._parts.append(Part(ticket, start, stop))
        self._messages += stop - start

    def fail(self, error: BusError) -> None:
        """Remove all messages, each with this outcome."""
        for part in self._parts:
            part.fail(error)
        self._parts.clear()
        self._messages = 0

    def pack(self, *, messages_max: int, bytes_max: int) -> list[Part]:
        """Remove as many messages as fit into one frame, but at least one, and return them."""
        packed: list[Part] = []
        room, size = messages_max, PUBLISH_ROOM_BYTES
        while self._parts:
            ticket, start, stop = self._parts.popleft()
            self._messages -= stop - start
            if ticket.done:
                continue
            fitting = start
            for payload in islice(ticket.payloads, start, stop):
                size += len(payload) + 1
                if room == 0 or (size > bytes_max and room < messages_max):
                    break
                room -= 1
                fitting += 1
            if fitting > start:
                packed.append(Part(ticket, start, fitting))
            if fitting < stop:
                self._parts.appendleft(Part(ticket, fitting, stop))
                self._messages += stop - fitting
                break
        return packed
