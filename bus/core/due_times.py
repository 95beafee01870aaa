"""Times by key, in order: one for each key.

A time that was discarded or replaced stays in the heap until it is due, because finding it there would take longer
than passing over it then. Obsolete times add up if they lie far ahead, so the heap is rebuilt when most are.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

__all__ = ["DueTimes"]

_SPARE = 1_000
"""The heap is not rebuilt for fewer obsolete times than this."""


class DueTimes:
    """See the module. `take` costs nothing for what is not due."""

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
        """Return the time of a key, or None."""
        return self._times.get(key)

    def set(self, key: str, at: float) -> None:
        """Set the time of a key, in place of an earlier one."""
        self._times[key] = at
        if len(self._heap) > 2 * len(self._times) + _SPARE:
            self.replace(self._times)
        else:
            heapq.heappush(self._heap, (at, key))

    def discard(self, key: str) -> None:
        """Remove a key, if it is there."""
        self._times.pop(key, None)

    def replace(self, times: Mapping[str, float]) -> None:
        """Replace all times with these."""
        self._times = dict(times)
        self._heap = [(at, key) for key, at in self._times.items()]
        heapq.heapify(self._heap)

    def take(self, now: float) -> Iterator[str]:
        """Remove and yield the keys that are due, the earliest first, one by one."""
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if self._times.get(key) == at:
                del self._times[key]
                yield key
