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

__all__ = ["Connections"]


class Connections:
    """See the module. `waiting_frames_max` is how many frames can wait in the socket for each connection."""

    def __init__(self, waiting_frames_max: int) -> None:
        self._waiting_frames_max = waiting_frames_max
        self._open: dict[int, set[bytes]] = {}
        """By descriptor, the addresses that said hello."""
        self._lost: dict[bytes, int] = {}
        """Addresses whose connection is gone, with the number of frames by which all of theirs have been read."""
        self._read_frames = 0

    def __repr__(self) -> str:
        return f"<Connections open={len(self._open)} lost={len(self._lost)}>"

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, descriptor: int) -> None:
        """Note a new connection."""
        self._open[descriptor] = set()

    def closed(self, descriptor: int) -> None:
        """Note that a connection is gone."""
        for address in self._open.pop(descriptor, ()):
            self._lose(address)

    def greeted(self, address: bytes, descriptor: int | None) -> None:
        """Note a hello; the descriptor is None for a connection within the process, which never breaks.

        Call `closed` and `opened` for all earlier events before, and carry out `returned`.
        """
        if descriptor in self._open:
            self._open[descriptor].add(address)
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

    def _lose(self, address: bytes) -> None:
        most = self._waiting_frames_max * (len(self._open) + 1)
        self._lost[address] = self._read_frames + most
