"""What is measured of the transactions: how long they took, and how many were refused.

Owns the bounds of the histograms. One observation is made a transaction, so that messages cost nothing.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from ..wire.codes import Code

__all__ = ["Histogram", "Measurement", "Measures"]

_BOUNDS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""From a sync of a fast disk to a failover of an engine."""

_LATELY_SECONDS = 60.0
"""How long a refused transaction says that the next one may be refused, too. Nobody may send one meanwhile."""


class Histogram:
    """How often something took how long, in seconds."""

    def __init__(self) -> None:
        self.total_seconds = 0.0
        self._counts = [0] * (len(_BOUNDS_SECONDS) + 1)

    def __repr__(self) -> str:
        return f"<Histogram of {sum(self._counts)}>"

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(_BOUNDS_SECONDS, seconds)] += 1
        self.total_seconds += seconds

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yield each bound, the last of which is infinite, and how many took at most so long."""
        return zip((*_BOUNDS_SECONDS, float("inf")), accumulate(self._counts), strict=True)


class Measures:
    """See the module."""

    def __init__(self) -> None:
        self.commits = Histogram()
        """From when a transaction was handed to the store until it was on disk."""
        self.rounds = Histogram()
        """From when its first request was read until its answers and deliveries were handed to the sockets."""
        self.refused: Counter[Code] = Counter()
        """Transactions of which nothing was stored, by the code that their senders got."""
        self._fault: Code | None = None
        self._fault_at = 0.0
        self._first_read: float | None = None

    def __repr__(self) -> str:
        return f"<Measures commits={self.commits}>"

    @property
    def fault(self) -> Code | None:
        """Why the last transaction was refused, if that was lately; None if it was stored."""
        return self._fault if time.monotonic() - self._fault_at < _LATELY_SECONDS else None

    @property
    def is_waiting(self) -> bool:
        """Whether a request is known to wait for the next transaction."""
        return self._first_read is not None

    def requested(self) -> None:
        """Note that a request waits for the next transaction."""
        if self._first_read is None:
            self._first_read = time.monotonic()

    def refuse(self, code: Code | None) -> None:
        """Note that nothing of a transaction was stored, or with None that the last one was stored."""
        self._fault, self._fault_at = code, time.monotonic()
        if code is not None:
            self.refused[code] += 1

    def begin(self) -> Measurement:
        """Begin to measure the transaction that takes what waits."""
        began = time.monotonic()
        first_read, self._first_read = self._first_read, None
        return Measurement(self, began if first_read is None else first_read, began)


class Measurement:
    """The times of one transaction."""

    __slots__ = ("_began", "_first_read", "_measures")

    def __init__(self, measures: Measures, first_read: float, began: float) -> None:
        self._measures = measures
        self._first_read = first_read
        self._began = began

    def stored(self) -> None:
        """Note that it is on disk."""
        self._measures.refuse(None)
        self._measures.commits.observe(time.monotonic() - self._began)

    def carried_out(self) -> None:
        """Note that what follows from it was handed to the sockets."""
        self._measures.rounds.observe(time.monotonic() - self._first_read)

    def refused(self, code: Code) -> None:
        """Note that nothing of it was stored."""
        self._measures.refuse(code)
