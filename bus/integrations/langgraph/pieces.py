"""Pieces of values that were put or read lately: what has a digest never changes, so none is asked for twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

__all__ = ["RememberedPieces"]

_BYTES_MAX = 16 * 1024 * 1024


class RememberedPieces:
    """As many as fit, those that were used last."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<RememberedPieces {len(self._pieces)} with {self._bytes} bytes>"

    def found(self, digests: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return those that are remembered."""
        found = {digest: self._pieces[digest] for digest in digests if digest in self._pieces}
        for digest in found:
            self._pieces.move_to_end(digest)
        return found

    def add(self, pieces: Mapping[bytes, bytes]) -> None:
        """Remember some, and forget others for them."""
        for digest, piece in pieces.items():
            if digest not in self._pieces:
                self._pieces[digest] = piece
                self._bytes += len(piece)
        while self._bytes > _BYTES_MAX:
            self._bytes -= len(self._pieces.popitem(last=False)[1])
