"""The times by which a mailbox's deliveries must be settled.

Owns the deadlines, in order. Settling leaves the deadline in the heap: finding it would take longer than skipping
it when it is due. With a long `ack_wait` they add up, so the mailbox clears them when most are obsolete.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

__all__ = ["AckDeadlines"]

_SPARE = 1_000
"""Obsolete deadlines that are always kept: clearing so many at once costs little for each of them."""


class AckDeadlines:
    """See the module. Deliveries made together share a deadline."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, list[int]]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<AckDeadlines {self._count}>"

    def add(self, deadline: float, seqs: list[int]) -> None:
        """Add the deadline of deliveries."""
        heapq.heappush(self._heap, (deadline, seqs))
        self._count += len(seqs)

    def due(self, now: float) -> Iterator[int]:
        """Remove what is due, and yield its seqs."""
        while self._heap and self._heap[0][0] <= now:
            seqs = heapq.heappop(self._heap)[1]
            self._count -= len(seqs)
            yield from seqs

    def are_many(self, unsettled: int) -> bool:
        """Return True if most of them must be obsolete, given how many messages are unsettled."""
        return self._count > 2 * unsettled + _SPARE

    def replace(self, deadlines: Iterable[tuple[float, int]]) -> None:
        """Replace all deadlines with these, each with its seq."""
        self._heap = [(deadline, [seq]) for deadline, seq in deadlines]
        self._count = len(self._heap)
        heapq.heapify(self._heap)
