"""Recent events, in memory, for whoever did not listen when they happened.

Keeps the last event of each kind about each subject, and how often there was one. So a frequent event never
displaces one of another kind. A restart of the worker forgets them.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from heapq import merge
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

from ..model.events import EventBody, Noticed

__all__ = ["Recent", "RecentEvents"]

_SUBJECTS_MAX = 100
"""The latest subjects that are kept of each kind: with some twenty kinds, about a megabyte at most."""

_TOGETHER_SECONDS = 60.0
"""An event that follows another one of its subject this soon is merged with it, as while a disk stays full."""

_number = attrgetter("number")


class Recent(NamedTuple):
    """The last event about a subject: when it happened, and how often since the worker's start."""

    number: int
    """Its place in the order of what happened."""
    at: str
    times: int
    event: EventBody
    now: float


class RecentEvents:
    """See the module."""

    def __init__(self) -> None:
        self._kinds: defaultdict[str, OrderedDict[str | None, Recent]] = defaultdict(OrderedDict)
        self._number = 0

    def __repr__(self) -> str:
        return f"<RecentEvents {sum(map(len, self._kinds.values()))} of {self._number}>"

    def keep(self, event: EventBody, subject: str | None, *, at: str, now: float) -> None:
        """Keep an event, in place of an earlier one of its kind about the same subject."""
        kept = self._kinds[event.message_type]
        earlier = kept.pop(subject, None)
        if earlier is not None and now - earlier.now <= _TOGETHER_SECONDS:
            event = _together(event, earlier.event)
        self._number += 1
        kept[subject] = Recent(self._number, at, 1 if earlier is None else earlier.times + 1, event, now)
        if len(kept) > _SUBJECTS_MAX:
            kept.popitem(last=False)

    def after(self, number: int) -> Iterator[Recent]:
        """Return the events with greater numbers, in order."""
        later = [
            list(takewhile(lambda each: each.number > number, reversed(kept.values())))
            for kept in self._kinds.values()
        ]
        return merge(*(reversed(each) for each in later), key=_number)


def _together(event: EventBody, earlier: EventBody) -> EventBody:
    return event.after(earlier) if isinstance(event, Noticed) and isinstance(earlier, Noticed) else event
