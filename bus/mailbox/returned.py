"""The unsettled messages that are delivered next, before anything new of their priority.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import islice

__all__ = ["Returned"]


class Returned:
    """The seqs of messages: those of the highest priority first, and in their order within one."""

    __slots__ = ("_heap", "prioritized")

    def __init__(self, messages: Iterable[tuple[int, int]] = ()) -> None:
        """Begin with messages, each by its seq and its priority."""
        self._heap = [(-priority, seq) for seq, priority in messages]
        heapq.heapify(self._heap)
        self.prioritized = sum(bool(rank) for rank, _ in self._heap)
        """How many of them have a priority that is not normal."""

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[int]:
        """Yield the seqs, the first one first, and the others in no order."""
        return (seq for _, seq in self._heap)

    def __repr__(self) -> str:
        return f"<Returned {len(self)} prioritized={self.prioritized}>"

    def add(self, seq: int, priority: int) -> None:
        """Add a message."""
        heapq.heappush(self._heap, (-priority, seq))
        self.prioritized += bool(priority)

    @property
    def first(self) -> tuple[int, int] | None:
        """The seq of the first message, and its priority."""
        return (self._heap[0][1], -self._heap[0][0]) if self._heap else None

    def some(self, most: int, wanted: Callable[[int], bool]) -> list[int]:
        """Return some of the seqs that are wanted, and look at no more than it takes to find them."""
        return list(islice(filter(wanted, self), most))

    def take(self) -> int:
        """Remove the first message, and return its seq."""
        rank, seq = heapq.heappop(self._heap)
        self.prioritized -= bool(rank)
        return seq

    def discard(self, seqs: Set[int]) -> None:
        """Remove messages."""
        self._heap = [each for each in self._heap if each[1] not in seqs]
        heapq.heapify(self._heap)
        self.prioritized = sum(bool(rank) for rank, _ in self._heap)
