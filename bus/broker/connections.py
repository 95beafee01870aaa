"""Which connections are open, and which sessions' connections are gone.

Owns what is known of each connection by its descriptor, which is reused as soon as a connection is closed: whether
it is open, and the addresses from which it said hello. Its rules:

- A connection's frames count even if its end was noticed first. Its addresses are lost when they must have been
  read: when nothing waits in the socket, or after as many frames as can wait, because the socket serves all
  connections in turn.
- A hello belongs to the connection that is open at its descriptor. If none is, its connection is gone already.
- All addresses at a descriptor are lost with it: of two, one was lost before the other said hello.

Pure.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Connections", "Notice"]

_SILENT_SECONDS = 30.0
"""When a connection without a hello is counted: as long as libzmq waits for a handshake."""

_SILENT_MIN = 100
"""Silent connections that operators are told of: more than programs that look at the port make."""

_LOOK_SECONDS = 1.0

_SCARCE, _ENOUGH = 0.9, 0.8
"""Parts of the process's descriptors: from the first on they are scarce, and below the second they are not."""


class Notice(NamedTuple):
    """Something that operators should know: the event's name, and its fields."""

    event: str
    fields: dict[str, int]


class Connections:
    """See the module. `waiting_frames_max` is how many frames can wait in the socket for each connection."""

    def __init__(self, waiting_frames_max: int) -> None:
        self._waiting_frames_max = waiting_frames_max
        self._silent: dict[int, float] = {}
        """When connections opened that have not said hello."""
        self._silent_told = 0
        self._scarce_told = False
        self._highest = 0
        """The highest descriptor that was opened since the last look: systems give the lowest that is free."""
        self._looked_at = 0.0
        self._open: dict[int, set[bytes]] = {}
        """By descriptor, the addresses that said hello."""
        self._peers: dict[bytes, str] = {}
        """Where these addresses' connections come from, as far as it is known."""
        self._lost: dict[bytes, int] = {}
        """Addresses whose connection is gone, with the number of frames by which all of theirs have been read."""
        self._read_frames = 0

    def __repr__(self) -> str:
        return f"<Connections open={len(self._open)} lost={len(self._lost)}>"

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, descriptor: int, now: float) -> None:
        """Note a new connection."""
        self._open[descriptor] = set()
        self._silent[descriptor] = now
        self._highest = max(self._highest, descriptor)

    def closed(self, descriptor: int) -> None:
        """Note that a connection is gone."""
        self._silent.pop(descriptor, None)
        for address in self._open.pop(descriptor, ()):
            self._lose(address)

    def peer(self, address: bytes) -> str | None:
        """Return the IP address from which an address said hello; None if it is not known."""
        return self._peers.get(address)

    def greeted(self, address: bytes, descriptor: int | None, peer: str | None = None) -> None:
        """Note a hello; the descriptor is None for a connection within the process, which never breaks.

        Call `closed` and `opened` for all earlier events before, and carry out `returned`.
        """
        if descriptor in self._open:
            self._open[descriptor].add(address)
            if peer is not None:
                self._peers[address] = peer
            self._silent.pop(descriptor, None)
        elif descriptor is not None:
            self._lose(address)

    def returned(self, address: bytes) -> bool:
        """Return True if an earlier connection had an address that says hello now, and forget that it was lost."""
        return self._lost.pop(address, None) is not None

    def read(self, frames: int) -> None:
        """Note how many frames were read."""
        self._read_frames += frames

    def take_lost(self, *, empty: bool) -> list[bytes]:
        """Return the addresses that are lost for good; `empty` means that no frame waits in the socket."""
        if not self._lost:
            return []
        lost = [address for address, at in self._lost.items() if empty or at <= self._read_frames]
        for address in lost:
            del self._lost[address]
        return lost

    def look(self, now: float, descriptors_max: int) -> list[Notice]:
        """Return what operators should know, at most once a second: each thing when it begins or has doubled."""
        if now - self._looked_at < _LOOK_SECONDS:
            return []
        self._looked_at = now
        notices = []
        silent = sum(opened <= now - _SILENT_SECONDS for opened in self._silent.values())
        if silent >= max(_SILENT_MIN, 2 * self._silent_told):
            self._silent_told = silent
            notices.append(Notice("connections_silent", {"connections": silent, "of": len(self._open)}))
        elif silent < max(_SILENT_MIN, self._silent_told) // 2:
            self._silent_told = 0
        if not self._scarce_told and self._highest >= _SCARCE * descriptors_max:
            self._scarce_told = True
            notices.append(
                Notice("descriptors_scarce", {"connections": len(self._open), "descriptors": descriptors_max})
            )
        elif len(self._open) < _ENOUGH * descriptors_max and self._highest < _SCARCE * descriptors_max:
            self._scarce_told = False
        self._highest = 0
        return notices

    def _lose(self, address: bytes) -> None:
        self._peers.pop(address, None)
        most = self._waiting_frames_max * (len(self._open) + 1)
        self._lost[address] = self._read_frames + most
