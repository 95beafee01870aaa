"""What a mailbox reads from the log: pages of the messages that it wants, and their number.

Each source is a range of one index, so the cost of a page does not depend on the length of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from bus.model.counting import Span, parts_of, recounted, spans_of
from bus.model.priorities import DIRECT, NORMAL, PRIORITIZED, priority_of_source
from bus.model.records import WORKER_ID
from bus.model.repository import Counted, Page, PageRequest

from ...message_rows import intact, page_of_rows
from ..server.reader import Reader
from .rows import COLUMNS, read_row

__all__ = ["count_senders", "count_sources", "count_waiting", "read_page"]

_NAMED = f"SELECT {COLUMNS} FROM bot_messages WHERE seq = ANY($1::bigint[]) ORDER BY seq"

# Each source is limited before they are merged. What has to be read of bodies is known from their sizes.
_FOLLOWING_OF = f"""
    WITH wanted AS (
        SELECT found.seq FROM unnest($1::text[], $2::bigint[], $3::text[]) AS source (channel, after_seq, but),
            LATERAL (
                SELECT seq FROM bot_messages
                WHERE recipient_channel = source.channel AND seq > source.after_seq AND seq <= $5
                    AND sender_bot_id IS DISTINCT FROM source.but
                ORDER BY seq LIMIT $6
            ) AS found
        UNION ALL
        SELECT found.seq FROM unnest($7::bigint[], $8::text[]) AS source (after_seq, but),
            LATERAL (
                SELECT seq FROM bot_messages
                WHERE recipient_bot_id = $4 AND seq > source.after_seq AND seq <= $5
                    AND sender_bot_id IS DISTINCT FROM source.but {{of_priority}}
                ORDER BY seq LIMIT $6
            ) AS found
        ORDER BY seq LIMIT $6
    ), sized AS (
        SELECT seq, COUNT(*) OVER () AS wanted,
               SUM(octet_length(body)) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - octet_length(body) AS before
        FROM wanted JOIN bot_messages USING (seq)
    )
    SELECT {COLUMNS}, wanted FROM sized JOIN bot_messages USING (seq) WHERE before < $9
    ORDER BY seq"""

_FOLLOWING = {
    None: _FOLLOWING_OF.format(of_priority=""),
    0: _FOLLOWING_OF.format(of_priority="AND priority = 0"),
    **{
        priority: _FOLLOWING_OF.format(of_priority=f"AND priority = {priority} AND priority <> 0")
        for priority in map(priority_of_source, PRIORITIZED)
    },
}
"""By the priority of the direct messages that are read; None: of any."""

_PRIORITY = "".join(f" WHEN '{source}' THEN {priority_of_source(source)}" for source in PRIORITIZED)
_PRIORITY = f"CASE span.channel{_PRIORITY} END"
"""That of the messages of a span, if they are prioritized."""

_SPANS = """
    unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[]) WITH ORDINALITY
    AS span (channel, after_seq, through_seq, but, number)"""

_OF_SPAN = "seq > span.after_seq AND seq <= span.through_seq AND sender_bot_id IS DISTINCT FROM span.but"

# Two of the three find nothing: a span is of a channel, of direct messages, or of prioritized ones.
_COUNT_SPANS = f"""
    SELECT in_channel.messages + direct.messages + prioritized.messages FROM {_SPANS},
        LATERAL (
            SELECT COUNT(*) AS messages FROM bot_messages WHERE recipient_channel = span.channel AND {_OF_SPAN}
        ) AS in_channel,
        LATERAL (
            SELECT COUNT(*) AS messages FROM bot_messages
            WHERE span.channel = '' AND recipient_bot_id = $1 AND {_OF_SPAN}
        ) AS direct,
        LATERAL (
            SELECT COUNT(*) AS messages FROM bot_messages
            WHERE recipient_bot_id = $1 AND priority = {_PRIORITY} AND priority <> 0 AND {_OF_SPAN}
        ) AS prioritized
    ORDER BY span.number"""

# Each of some seqs is looked up: there are few, and many messages in a span.
_COUNT_EARLY = f"""
    SELECT COUNT(*) FROM unnest($6::bigint[]) AS early (seq) JOIN bot_messages USING (seq) JOIN {_SPANS}
        ON {_OF_SPAN} AND (
            recipient_channel = span.channel OR recipient_bot_id = $1 AND (
                span.channel = '' OR priority = CASE span.channel WHEN '{NORMAL}' THEN 0 ELSE {_PRIORITY} END
            )
        )"""

_COUNT_SENDERS = """
    SELECT sender_bot_id, COUNT(*) FROM bot_messages
    WHERE recipient_bot_id = $1 AND seq > $2 AND seq <= $3 AND seq <> ALL($4::bigint[])
        AND sender_bot_id IS DISTINCT FROM $5::text AND ($6::int IS NULL OR priority = $6)
    GROUP BY sender_bot_id"""


async def read_page(reader: Reader, request: PageRequest) -> Page:
    """Read part of a mailbox."""
    damaged: list[int] = []
    recalled = await reader.fetch(_NAMED, request.seqs) if request.seqs else []
    following: Sequence[Any] = ()
    if request.sources:
        limit = request.messages_max + 1
        values = (*_sources(request, direct=False), request.mailbox_id, request.through_seq, limit)
        sources, *direct = _sources(request, direct=True)
        assert len(sources) <= 1, "a page has direct messages of one priority, or of all"
        sql = _FOLLOWING[priority_of_source(sources[0]) if sources else None]
        following = await reader.fetch(sql, *values, *direct, request.bytes_max)
    wanted = following[0][-1] if following else 0
    following = following[: request.messages_max]
    rows = _intact(recalled, damaged), _intact(following, damaged)
    return page_of_rows(*rows, complete=wanted == len(following), damaged=damaged)


def _intact(records: Sequence[Any], damaged: list[int]) -> list[tuple[Any, ...]]:
    """Return records as rows, without those that do not match their checksums."""
    rows = [read_row(record)[:14] for record in records]
    damaged += [row[0] for row in rows if not intact(row)]
    return [row for row in rows if intact(row)]


def _sources(request: PageRequest, *, direct: bool) -> tuple[list[str], list[int], list[str | None]]:
    """Return the channels of a page, the seqs after which to read, and whose messages to leave out.

    Direct messages are one source more, or none; or one for each priority.
    """
    sources = [source for source in request.sources if direct == _is_direct(source[0])]
    return (
        [channel for channel, _, _ in sources],
        [after_seq for _, after_seq, _ in sources],
        [request.mailbox_id if skip_own else None for _, _, skip_own in sources],
    )


async def count_waiting(
    reader: Reader | asyncpg.Connection, request: PageRequest, counted: Iterable[Counted] = ()
) -> int:
    """Count the messages that a page without limits would have, except those it names by seq.

    What was `counted` before is not counted again.
    """
    count, missing = recounted(request, counted)
    if missing:
        found = await _count_spans(reader, request.mailbox_id, [span for span, _ in missing])
        count += sum(sign * messages for (_, sign), messages in zip(missing, found, strict=True))
    if request.seqs:
        columns = _columns_of(request.mailbox_id, spans_of(request))
        [[early]] = await reader.fetch(_COUNT_EARLY, request.mailbox_id, *columns, request.seqs)
        count -= early
    return count


async def count_sources(reader: Reader, request: PageRequest) -> list[Counted]:
    """Count the messages in each of a page's sources, with those it names by seq."""
    spans = spans_of(request)
    found = await _count_spans(reader, request.mailbox_id, spans)
    return [Counted(request.mailbox_id, span, messages) for span, messages in zip(spans, found, strict=True)]


async def _count_spans(reader: Reader | asyncpg.Connection, mailbox_id: str, spans: Sequence[Span]) -> list[int]:
    parts = [parts_of(span) for span in spans]
    columns = _columns_of(mailbox_id, [part for each in parts for part, _ in each])
    found = iter([row[0] for row in await reader.fetch(_COUNT_SPANS, mailbox_id, *columns)])
    return [sum(sign * next(found) for _, sign in each) for each in parts]


def _columns_of(mailbox_id: str, spans: Sequence[Span]) -> tuple[list[Any], ...]:
    return (
        [span.channel for span in spans],
        [span.after_seq for span in spans],
        [span.through_seq for span in spans],
        [mailbox_id if span.skip_own else None for span in spans],
    )


async def count_senders(reader: Reader, request: PageRequest) -> dict[str, int]:
    """Count the direct messages of a page by their senders; bots that are unknown count as one."""
    counts = await _count_direct(reader, request)
    known = {row[0] for row in await reader.fetch("SELECT id FROM bots WHERE id = ANY($1::text[])", [*counts])}
    named = {sender: count for sender, count in counts.items() if sender in known or sender == WORKER_ID}
    others = sum(counts.values()) - sum(named.values())
    return {**named, "": others} if others else named


async def _count_direct(reader: Reader, request: PageRequest) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for source, after_seq, but in zip(*_sources(request, direct=True), strict=True):
        values = (request.mailbox_id, after_seq, request.through_seq, request.seqs, but)
        counts.update(dict(map(tuple, await reader.fetch(_COUNT_SENDERS, *values, priority_of_source(source)))))
    return counts


def _is_direct(source: str) -> bool:
    return source == DIRECT or priority_of_source(source) is not None
