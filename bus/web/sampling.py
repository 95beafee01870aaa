"""What the worker did in the last hour: a sample of its status every few seconds, in memory.

Owns the samples. They begin when the page's process starts; while there is no worker, they have a gap.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import anyio
import msgspec

from ..errors import BusError
from ..wire.answers import WorkerStatus
from .plots import Plot, plot
from .upstream import Upstream

__all__ = ["Samples"]

_HOUR_SECONDS = 3600.0

_EVERY_SECONDS = 5.0

_SPANS_SECONDS = (120.0, 600.0, 1800.0, _HOUR_SECONDS)

_RATES = ("published", "delivered", "settled")


class _Sample(msgspec.Struct, frozen=True):
    """The status at one time; None if no worker answered."""

    at: float
    status: WorkerStatus | None


class Samples:
    """The samples of an hour. `clock` never goes back."""

    def __init__(self, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._upstream = upstream
        self._clock = clock
        self._kept: deque[_Sample] = deque(maxlen=int(_HOUR_SECONDS / _EVERY_SECONDS) + 1)

    def __repr__(self) -> str:
        return f"<Samples {len(self._kept)}>"

    async def run(self) -> None:
        """Sample the worker's status, until cancelled."""
        while True:
            try:
                self.add(await (await self._upstream.bot()).status())
            except BusError:
                self.add(None)
            await anyio.sleep(_EVERY_SECONDS)

    def add(self, status: WorkerStatus | None) -> None:
        """Keep a sample of now."""
        self._kept.append(_Sample(self._clock(), status))

    def plots(self) -> list[Plot]:
        """Return the plots of the hour; rates are those between two samples."""
        times = [each.at for each in self._kept]
        seconds = self._shown_seconds()
        rates = {name: self._rates(name) for name in _RATES}
        sizes = {
            name: [None if each.status is None else float(each.status.sizes.get(key, 0)) for each in self._kept]
            for name, key in (("database", "database_bytes"), ("write-ahead log", "wal_bytes"))
        }
        sessions = [None if each.status is None else float(each.status.sessions) for each in self._kept]
        return [
            plot("messages a second", times, rates, seconds=seconds),
            plot("sessions", times, {"connected": sessions}, seconds=seconds),
            plot("on disk", times, sizes, seconds=seconds, is_size=True),
        ]

    def _shown_seconds(self) -> float:
        """Return the time that is plotted: that of the samples, rounded up."""
        taken = self._kept[-1].at - self._kept[0].at if self._kept else 0.0
        return next((seconds for seconds in _SPANS_SECONDS if taken <= seconds), _HOUR_SECONDS)

    def _rates(self, counter: str) -> list[float | None]:
        found: list[float | None] = []
        before: _Sample | None = None
        for each in self._kept:
            rate: float | None = None
            if before is not None and before.status is not None and each.status is not None and each.at > before.at:
                count = each.status.counters.get(counter, 0)
                grown = count - before.status.counters.get(counter, 0)
                rate = (grown if grown >= 0 else count) / (each.at - before.at)
            found.append(rate)
            before = each
        return found
