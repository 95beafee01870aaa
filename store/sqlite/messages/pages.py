"""What a mailbox reads from the log: pages of the messages that it wants, and their number.

Each source is a range of one index, so the cost of a page does not depend on the length of the log.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import aiosqlite

from bus.model.counting import Span, parts_of, recounted, spans_of
from bus.model.priorities import priority_of_source
from bus.model.records import WORKER_ID
from bus.model.repository import Counted, Page, PageRequest

from ...message_rows import page_of_rows
from ...portions import COUNTED_MESSAGES
from ..file.reader import Reader
from .rows import WITH_SEQS, fetch_joined, fetch_rows

__all__ = ["Pages", "count_in_portions", "count_senders", "count_waiting"]

_SOURCES_A_STATEMENT = 50
"""Sources read by one statement, which is prepared and kept for each combination: 4 KiB per source."""

_ROWS_A_FETCH = 64
"""Rows read at once while their size is unknown: few enough to stop soon after a page's byte limit."""

_ROWS_A_FETCH_MAX = 1024
"""Rows read at once if as many are likely to fit: each fetch is two switches between threads."""

_BODY = 7
"""The body's place in a row."""


_OF_PRIORITY = "WHERE recipient_bot_id = ? AND priority = ? {} AND seq > ? AND seq <= ?"


class Pages:
    """Reads for mailboxes, on a separate connection: a delivery never waits behind a query."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __repr__(self) -> str:
        return f"<Pages {self._reader}>"

    async def read(self, request: PageRequest) -> Page:
        """Read part of a mailbox."""
        damaged: list[int] = []
        recalled: list[Sequence[Any]] = []
        for start in range(0, len(request.seqs), _ROWS_A_FETCH):
            part = request.seqs[start : start + _ROWS_A_FETCH]
            for seq, row in await self._fetch(part):
                recalled.append(row) if row is not None else damaged.append(seq)
        followers, complete = await self._follow(request, damaged)
        return page_of_rows(recalled, followers, complete=complete, damaged=damaged)

    async def _fetch(self, seqs: Sequence[int]) -> list[tuple[int, Sequence[Any] | None]]:
        return await fetch_rows(self._reader, WITH_SEQS, (json.dumps(seqs),))

    async def _fetch_many(self, seqs: Sequence[int], bytes_max: int) -> list[tuple[int, Sequence[Any]]] | None:
        rows = await fetch_joined(self._reader, WITH_SEQS, (json.dumps(seqs),), bytes_max=bytes_max)
        return None if rows is None else [(row[0], row) for row in rows]

    async def _follow(self, request: PageRequest, damaged: list[int]) -> tuple[list[Sequence[Any]], bool]:
        seqs = await self._seqs(request, request.messages_max + 1)
        wanted = seqs[: request.messages_max]
        rows: list[Sequence[Any]] = []
        size_bytes, start, count, most = 0, 0, _ROWS_A_FETCH, _ROWS_A_FETCH_MAX
        while start < len(wanted):
            part = wanted[start : start + count]
            many = await self._fetch_many(part, request.bytes_max) if count > _ROWS_A_FETCH else None
            if many is None and count > _ROWS_A_FETCH:  # they are larger than was likely, or damaged
                count = most = _ROWS_A_FETCH
                continue
            for seq, row in many or await self._fetch(part):
                if size_bytes >= request.bytes_max:
                    return rows, False
                if row is None:
                    damaged.append(seq)
                else:
                    rows.append(row)
                    size_bytes += len(row[_BODY])
            start += count
            fitting = (request.bytes_max - size_bytes) * len(rows) // max(size_bytes, 1)
            count = max(_ROWS_A_FETCH, min(fitting, 4 * count, most))
        return rows, len(seqs) <= request.messages_max

    async def _seqs(self, request: PageRequest, limit: int) -> list[int]:
        """Return the next seqs of all sources, in order: each source's range of its index, merged."""
        found: list[int] = []
        spans = spans_of(request)
        for start in range(0, len(spans), _SOURCES_A_STATEMENT):
            ranges: list[str] = []
            parameters: list[Any] = []
            for span in spans[start : start + _SOURCES_A_STATEMENT]:
                # What is not prioritized is found in indexes alone, too: rows may be a hundred times as large.
                parts = [_range(request.mailbox_id, part) for part, _ in parts_of(span)]
                wanted = " EXCEPT ".join(f"SELECT seq FROM bot_messages {condition}" for condition, _ in parts)
                ranges.append(f"SELECT seq FROM ({wanted} ORDER BY seq LIMIT ?)")
                parameters += (*chain.from_iterable(values for _, values in parts), limit)
            # As one text, for the same reason as in `fetch_rows`.
            merged = f"{' UNION ALL '.join(ranges)} ORDER BY seq LIMIT ?"
            sql = f"SELECT GROUP_CONCAT(seq) FROM ({merged})"
            [[joined]] = await self._reader.execute_fetchall(sql, (*parameters, limit))
            found += map(int, joined.split(",") if joined else ())
        return sorted(found)[:limit]


async def count_waiting(
    reader: Reader | aiosqlite.Connection, request: PageRequest, counted: Iterable[Counted] = ()
) -> int:
    """Count the messages that a page without limits would have, except those it names by seq.

    What was `counted` before is not counted again.
    """
    count, missing = recounted(request, counted)
    for span, sign in missing:
        for part, part_sign in parts_of(span):
            condition, values = _range(request.mailbox_id, part)
            [[found]] = await reader.execute_fetchall(f"SELECT COUNT(*) FROM bot_messages {condition}", values)
            count += sign * part_sign * found
    for span in spans_of(request) if request.seqs else ():
        condition, values = _range(request.mailbox_id, span)
        [[early]] = await reader.execute_fetchall(f"{_EARLY} {condition}", (json.dumps(request.seqs), *values))
        count -= early
    return count


_EARLY = "SELECT COUNT(*) FROM json_each(?) CROSS JOIN bot_messages ON seq = value"
"""Each of some seqs is looked up: there are few, and many messages in a range."""


async def count_in_portions(reader: Reader, request: PageRequest) -> list[Counted]:
    """Count the messages in each of a page's sources, with those it names by seq; others may read in between."""
    counted: list[Counted] = []
    for span in spans_of(request):
        messages = 0
        for rest, sign in parts_of(span):
            found = COUNTED_MESSAGES
            while found == COUNTED_MESSAGES:
                condition, values = _range(request.mailbox_id, rest)
                portion = f"SELECT seq FROM bot_messages {condition} ORDER BY seq LIMIT {COUNTED_MESSAGES}"
                sql = f"SELECT COUNT(*), MAX(seq) FROM ({portion})"
                [[found, last]] = await reader.execute_fetchall(sql, values)
                messages += sign * found
                rest = rest._replace(after_seq=last or rest.after_seq)
        counted.append(Counted(request.mailbox_id, span, messages))
    return counted


_SENDERS = """
    SELECT sender, COUNT(*) FROM (SELECT id AS sender FROM bots UNION SELECT ?1)
    CROSS JOIN bot_messages ON sender_bot_id = sender AND recipient_bot_id = ?2 AND seq > ?3 AND seq <= ?4
    WHERE seq NOT IN (SELECT value FROM json_each(?5)) GROUP BY sender"""
"""Each sender's messages are a range of the pairs' index; from the recipient's, every row would be read."""


_PRIORITIZED_SENDERS = """
    SELECT sender_bot_id, COUNT(*) FROM bot_messages
    WHERE recipient_bot_id = ?2 AND priority = ?6 AND priority <> 0 AND seq > ?3 AND seq <= ?4
        AND seq NOT IN (SELECT value FROM json_each(?5))
        AND (sender_bot_id IN (SELECT id FROM bots) OR sender_bot_id = ?1)
    GROUP BY sender_bot_id"""


async def count_senders(reader: Reader, request: PageRequest) -> dict[str, int]:
    """Count the direct messages of a page by their senders; bots that are unknown count as one."""
    counts: Counter[str] = Counter()
    for span in spans_of(request):
        values = (WORKER_ID, request.mailbox_id, span.after_seq, span.through_seq, json.dumps(request.seqs))
        for part, sign in parts_of(span):
            priority = priority_of_source(part.channel)
            sql = _PRIORITIZED_SENDERS if priority else _SENDERS
            rows = await reader.execute_fetchall(sql, (*values, priority) if priority else values)
            counts.update({sender: sign * int(count) for sender, count in rows})
    counts[""] = await count_waiting(reader, request) - counts.total()
    return dict(+counts)


def _range(mailbox_id: str, span: Span) -> tuple[str, tuple[Any, ...]]:
    """Return the condition, and its values, for a mailbox's messages of one source: a range of one index."""
    between = (span.after_seq, span.through_seq)
    priority = priority_of_source(span.channel)
    if priority is not None:
        index = "AND priority <> 0" if priority else ""  # what an index is for must be said literally
        return _OF_PRIORITY.format(index), (mailbox_id, priority, *between)
    column = "recipient_channel" if span.channel else "recipient_bot_id"
    condition = f"WHERE {column} = ? AND seq > ? AND seq <= ?"
    values = (span.channel or mailbox_id, *between)
    if span.skip_own:
        return f"{condition} AND sender_bot_id <> ?", (*values, mailbox_id)
    return condition, values
