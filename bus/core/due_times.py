"""When something is due next, by its key.

Owns the times, in order. A time that was taken back or changed stays in the heap until it comes: finding it would
take longer than passing over it then. With long times they add up, so they are cleared when most are obsolete.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

__all__ = ["DueTimes"]

_SPARE = 1_000
"""Obsolete times that are always kept: clearing so many at once costs little for each of them."""


class DueTimes:
    """See the module. Looking what is due costs nothing for what is not."""

    __slots__ = ("_heap", "_times")

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[str]:
        return iter(self._times)

    def __repr__(self) -> str:
        return f"<DueTimes {len(self._times)}>"

    def get(self, key: str) -> float | None:
        """Return when something is due; None if it is not."""
        return self._times.get(key)

    def set(self, key: str, at: float) -> None:
        """Let something be due then, and not at another time."""
        self._times[key] = at
        if len(self._heap) > 2 * len(self._times) + _SPARE:
            self.replace(self._times)
        else:
            heapq.heappush(self._heap, (at, key))

    def discard(self, key: str) -> None:
        """Let something not be due any more."""
        self._times.pop(key, None)

    def replace(self, times: Mapping[str, float]) -> None:
        """Replace all times with these."""
        self._times = dict(times)
        self._heap = [(at, key) for key, at in self._times.items()]
        heapq.heapify(self._heap)

    def take(self, now: float) -> Iterator[str]:
        """Remove what is due, the earliest first, and yield its keys; of those not yielded, nothing is removed."""
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._times.get(key) == at:
                del self._times[key]
                yield key
