"""The answer to the query `events`: what the worker remembers of what happened."""

from __future__ import annotations

import msgspec

from ..core.recent import RecentEvents
from ..wire.answers import EventList, ListedEvent
from ..wire.frames import EventsQuery
from .paging import AnswerPage

__all__ = ["recent_events"]


def recent_events(recent: RecentEvents, query: EventsQuery, *, since: str, frame_bytes_max: int) -> EventList:
    """Return what happened after a number, as many events as are asked for and fit into a frame."""
    page = AnswerPage(ListedEvent, frame_bytes_max, query.limit)
    page.add(
        ListedEvent(each.number, each.at, each.times, each.event.message_type, msgspec.to_builtins(each.event))
        for each in recent.after(query.after)
    )
    return EventList(since, page.rows, page.more)
