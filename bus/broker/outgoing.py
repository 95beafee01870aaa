"""Answers on their way: how many bytes ZeroMQ still holds for each connection.

ZeroMQ's own limit counts frames, and a frame can be a mebibyte. It releases a frame when the last of it was given
to the system, and says so: no client has to confirm anything. Deliveries are not counted here: a session's credit,
and `in_flight_bytes_max`, bound them.
"""

from __future__ import annotations

from collections import deque

from ..settings import Limits
from ..transport import Departure, Port

__all__ = ["Outgoing"]

_COUNTED_BYTES = 4096
"""Smaller frames are not counted: `socket_frames_max` of them are a few mebibytes, and noticing costs as much as
sending one."""


class Outgoing:
    """See the module."""

    def __init__(self, port: Port, limits: Limits) -> None:
        self._port = port
        self._limits = limits
        self._departures: dict[bytes, deque[tuple[Departure, int]]] = {}
        self._bytes: dict[bytes, int] = {}

    def __repr__(self) -> str:
        return f"<Outgoing connections={len(self._bytes)} bytes={sum(self._bytes.values())}>"

    def send(self, address: bytes, frame: bytes) -> bool:
        """Send an answer. Return False if the peer is gone, or reads too little of what it was sent."""
        if len(frame) < _COUNTED_BYTES:
            return self._port.send((address, frame))
        if self._unread(address) + len(frame) > self._limits.unread_bytes_max and self._bytes.get(address):
            return False
        departure = self._port.send_watched((address, frame))
        if departure is None:
            return False
        self._departures.setdefault(address, deque()).append((departure, len(frame)))
        self._bytes[address] = self._bytes.get(address, 0) + len(frame)
        return True

    def has_room(self, address: bytes) -> bool:
        """Return True unless so much is on its way that the next question has to wait.

        One answer never is too much, however large: ZeroMQ may say that it has left after the client has it.
        """
        if self._unread(address) <= self._limits.answers_bytes_max:
            return True
        return len(self._departures[address]) == 1

    def sweep(self) -> None:
        """Forget what has left, for connections that are sent nothing more."""
        for address in list(self._bytes):
            self._unread(address)

    def _unread(self, address: bytes) -> int:
        """Return the bytes on their way to a connection."""
        departures = self._departures.get(address)
        if departures is None:
            return 0
        while departures and departures[0][0].done:
            self._bytes[address] -= departures.popleft()[1]
        if not departures:
            del self._departures[address], self._bytes[address]
            return 0
        return self._bytes[address]
