"""Which session gets the next message when several share a mailbox.

The session with the most free credit is next; among equals, the one that has waited longest. A group's message goes
to a session of its sender only if there is no other.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .parcel import WireDeliveries
from .sessions import Session

__all__ = ["HandedOut", "Turns"]

_FRAME_MESSAGES_MAX = 500
"""Half of the largest credit: a client with that much settles one half while the other is on its way."""

_FRAME_ROOM_BYTES = 64
"""Room for the rest of a deliver frame, around its messages."""


class HandedOut(NamedTuple):
    """What one session gets: the deliveries, in order, and their seqs."""

    session: Session
    deliveries: list[WireDeliveries]
    seqs: list[int]

    def frames(self, bytes_max: int) -> Iterator[tuple[list[WireDeliveries], list[int]]]:
        """Divide the deliveries into what goes into one frame each, with the seqs in it."""
        frame: list[WireDeliveries] = []
        first, count, size_bytes = 0, 0, _FRAME_ROOM_BYTES
        for wires, ending in self.deliveries:
            group_bytes = sum(map(len, wires)) + len(wires) * (len(ending) + 1)
            if count + len(wires) <= _FRAME_MESSAGES_MAX and size_bytes + group_bytes <= bytes_max:
                frame.append(WireDeliveries(wires, ending))
                count += len(wires)
                size_bytes += group_bytes
                continue
            start = 0
            for at, wire in enumerate(wires):
                added_bytes = len(wire) + len(ending) + 1
                if count and (size_bytes + added_bytes > bytes_max or count == _FRAME_MESSAGES_MAX):
                    if start < at:
                        frame.append(WireDeliveries(wires[start:at], ending))
                    yield frame, self.seqs[first : first + count]
                    frame, first, count, size_bytes, start = [], first + count, 0, _FRAME_ROOM_BYTES, at
                count += 1
                size_bytes += added_bytes
            frame.append(WireDeliveries(wires[start:], ending))
        yield frame, self.seqs[first:]


class Turns:
    """Sessions with free credit; with `apart`, a bot's own messages go to other bots' sessions if possible."""

    def __init__(self, sessions: Sequence[Session], *, apart: bool) -> None:
        self._sessions = sessions
        self._apart = apart
        self._served = max(session.served for session in sessions)
        self._numbers = {session: number for number, session in enumerate(sessions)}
        self._waiting = [self._place(session) for session in sessions]
        heapq.heapify(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __repr__(self) -> str:
        return f"<Turns of {len(self._waiting)} sessions>"

    def take(self, sender_bot_id: str) -> Session:
        """Return the session that gets a message of this sender, and remove it from the queue."""
        passed = []
        while self._waiting and self._apart and self._next().bot_id == sender_bot_id:
            passed.append(heapq.heappop(self._waiting))
        place = heapq.heappop(self._waiting) if self._waiting else passed.pop(0)
        for other in passed:
            heapq.heappush(self._waiting, other)
        self._served += 1
        session = self._sessions[place[2]]
        session.served = self._served
        return session

    def give_back(self, session: Session) -> None:
        """Return a session to the queue if it has free credit."""
        if session.free > 0:
            heapq.heappush(self._waiting, self._place(session))

    def _next(self) -> Session:
        return self._sessions[self._waiting[0][2]]

    def _place(self, session: Session) -> tuple[int, int, int]:
        return -session.free, session.served, self._numbers[session]
