"""Counting what waits in a mailbox, long before the number is needed.

Owns how an earlier count becomes the current one: by counting what was delivered and what has arrived since. So
what takes long is done outside of a transaction, and what is done in it is short. Messages that retention removes
in between are still in the number.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from .pages import PageRequest
from .priorities import DIRECT, NORMAL, PRIORITIZED

__all__ = ["Counted", "Span", "parts_of", "recounted", "spans_of"]


class Span(NamedTuple):
    """A part of one source of a mailbox: after one seq, and up to another.

    The source is as in `PageRequest`. `skip_own` leaves out the messages of the mailbox's own bot.
    """

    channel: str
    after_seq: int
    through_seq: int
    skip_own: bool


class Counted(msgspec.Struct, frozen=True):
    """How many messages the log had in a span of a mailbox, with those that were delivered before their turn."""

    mailbox_id: str
    span: Span
    messages: int


def spans_of(request: PageRequest) -> list[Span]:
    """Return the sources of a page. One that begins beyond its end has nothing."""
    through = request.through_seq
    return [
        Span(channel, after_seq, max(after_seq, through), skip_own)
        for channel, after_seq, skip_own in request.sources
    ]


def parts_of(span: Span) -> list[tuple[Span, int]]:
    """Return spans that are ranges of an index each, to be counted as often as the number beside it says.

    No index has only messages that are not prioritized.
    """
    if span.channel != NORMAL:
        return [(span, 1)]
    return [(span._replace(channel=DIRECT), 1), *((span._replace(channel=source), -1) for source in PRIORITIZED)]


def recounted(request: PageRequest, counted: Iterable[Counted]) -> tuple[int, list[tuple[Span, int]]]:
    """Return what is known of the number of messages in a page's sources, and the spans that are missing.

    The messages of each span are to be added as often as the number beside it says, which may be -1.
    """
    known = {
        (each.span.channel, each.span.skip_own): each for each in counted if each.mailbox_id == request.mailbox_id
    }
    messages, missing = 0, list[tuple[Span, int]]()
    for span in spans_of(request):
        before = known.get((span.channel, span.skip_own))
        if before is None:
            missing.append((span, 1))
        else:
            messages += before.messages
            missing += _between(before.span, span)
    return messages, missing


def _between(before: Span, now: Span) -> Iterator[tuple[Span, int]]:
    """Yield what lies between the beginnings of two spans, and between their ends."""
    for start, end, sign in (
        (before.after_seq, now.after_seq, -1),
        (before.through_seq, now.through_seq, 1),
    ):
        if start < end:
            yield now._replace(after_seq=start, through_seq=end), sign
        elif start > end:
            yield now._replace(after_seq=end, through_seq=start), -sign
