"""What becomes of measurements: percentiles, spreads, and the account of what was delivered.

Owns the arithmetic, and knows nothing of processes, sockets or clocks. Latencies come in as nanoseconds and go out
as milliseconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import msgspec

__all__ = ["Account", "Latency", "Spread", "account", "latency", "percentile", "spread", "total"]

_NANOSECONDS_A_MILLISECOND = 1e6


class Latency(msgspec.Struct, frozen=True):
    """How long something took, of `count` samples; 0 everywhere where there are none."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Spread(msgspec.Struct, frozen=True):
    """The median of some values, and between which they all lie."""

    median: float
    lowest: float
    highest: float


class Account(msgspec.Struct, frozen=True):
    """What a bot was owed, and what it got. `delivered` counts each message once, however often it came."""

    due: int
    delivered: int
    lost: int
    repeated: int
    out_of_order: int

    @property
    def is_clean(self) -> bool:
        """Whether everything came, in order. A repeat is no fault: delivery is at least once."""
        return not (self.lost or self.out_of_order)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Give the smallest of some ordered values that so many percent of them do not exceed (the nearest rank)."""
    if not ordered:
        raise ValueError("no values have no percentile")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def latency(samples: Iterable[int]) -> Latency:
    """Sum up latencies in nanoseconds."""
    ordered = sorted(samples)
    if not ordered:
        return Latency(0, 0.0, 0.0, 0.0)
    found = (percentile(ordered, 50), percentile(ordered, 99), ordered[-1])
    return Latency(len(ordered), *(round(each / _NANOSECONDS_A_MILLISECOND, 3) for each in found))


def spread(values: Sequence[float]) -> Spread:
    """Sum up a figure that was measured several times."""
    return Spread(round(statistics.median(values), 3), round(min(values), 3), round(max(values), 3))


def account(numbers: Sequence[int], first: int, last: int) -> Account:
    """Account for messages numbered in the order of their publication: `first` to `last` were due to one bot."""
    seen: set[int] = set()
    newest = out_of_order = 0
    for number in numbers:
        if number not in seen:
            out_of_order += number < newest
            newest = max(newest, number)
            seen.add(number)
    due = last - first + 1
    delivered = sum(first <= number <= last for number in seen)
    return Account(due, delivered, due - delivered, len(numbers) - len(seen), out_of_order)


def total(accounts: Iterable[Account]) -> Account:
    """Add accounts up."""
    listed = list(accounts)
    return Account(
        due=sum(each.due for each in listed),
        delivered=sum(each.delivered for each in listed),
        lost=sum(each.lost for each in listed),
        repeated=sum(each.repeated for each in listed),
        out_of_order=sum(each.out_of_order for each in listed),
    )
