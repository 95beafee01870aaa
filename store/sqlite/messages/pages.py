"""What a mailbox reads from the log: pages of the messages that it wants, and their number.

Each source is a range of one index, so the cost of a page does not depend on the length of the log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import aiosqlite

from bus.model.records import WORKER_ID
from bus.model.repository import Page, PageRequest

from ...message_rows import page_of_rows
from ..file.reader import Reader
from .rows import WITH_SEQS, fetch_joined, fetch_rows

__all__ = ["Pages", "count_senders", "count_waiting"]

_SOURCES_A_STATEMENT = 50
"""Sources read by one statement, which is prepared and kept for each combination: 4 KiB per source."""

_ROWS_A_FETCH = 64
"""Rows read at once while their size is unknown: few enough to stop soon after a page's byte limit."""

_ROWS_A_FETCH_MAX = 1024
"""Rows read at once if as many are likely to fit: each fetch is two switches between threads."""

_BODY = 7
"""The body's place in a row."""


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
        for start in range(0, len(request.sources), _SOURCES_A_STATEMENT):
            ranges: list[str] = []
            parameters: list[Any] = []
            for source in request.sources[start : start + _SOURCES_A_STATEMENT]:
                condition, values = _range(request, source)
                ranges.append(f"SELECT seq FROM (SELECT seq FROM bot_messages {condition} ORDER BY seq LIMIT ?)")
                parameters += (*values, limit)
            # As one text, for the same reason as in `fetch_rows`.
            merged = f"{' UNION ALL '.join(ranges)} ORDER BY seq LIMIT ?"
            sql = f"SELECT GROUP_CONCAT(seq) FROM ({merged})"
            [[joined]] = await self._reader.execute_fetchall(sql, (*parameters, limit))
            found += map(int, joined.split(",") if joined else ())
        return sorted(found)[:limit]


async def count_waiting(reader: Reader | aiosqlite.Connection, request: PageRequest) -> int:
    """Count the messages that a page without limits would have, except those it names by seq."""
    count = 0
    for source in request.sources:
        condition, values = _range(request, source)
        sql = f"SELECT COUNT(*) FROM bot_messages {condition}"
        if request.seqs:
            sql += " AND seq NOT IN (SELECT value FROM json_each(?))"
            values = (*values, json.dumps(request.seqs))
        [[found]] = await reader.execute_fetchall(sql, values)
        count += int(found)
    return count


_SENDERS = """
    SELECT sender, COUNT(*) FROM (SELECT id AS sender FROM bots UNION SELECT ?1)
    CROSS JOIN bot_messages ON sender_bot_id = sender AND recipient_bot_id = ?2 AND seq > ?3 AND seq <= ?4
    WHERE seq NOT IN (SELECT value FROM json_each(?5)) GROUP BY sender"""
"""Each sender's messages are a range of the pairs' index; from the recipient's, every row would be read."""


async def count_senders(reader: Reader, request: PageRequest) -> dict[str, int]:
    """Count the direct messages of a page's one source, by their senders; bots that are unknown count as one."""
    [(_, after_seq, _)] = request.sources
    values = (WORKER_ID, request.mailbox_id, after_seq, request.through_seq, json.dumps(request.seqs))
    counts = {sender: int(count) for sender, count in await reader.execute_fetchall(_SENDERS, values)}
    others = await count_waiting(reader, request) - sum(counts.values())
    return {**counts, "": others} if others else counts


def _range(request: PageRequest, source: tuple[str, int, bool]) -> tuple[str, tuple[Any, ...]]:
    """Return the condition, and its values, for a mailbox's messages of one source: a range of one index."""
    channel, after_seq, skip_own = source
    column = "recipient_channel" if channel else "recipient_bot_id"
    condition = f"WHERE {column} = ? AND seq > ? AND seq <= ?"
    values = (channel or request.mailbox_id, after_seq, request.through_seq)
    if skip_own:
        return f"{condition} AND sender_bot_id <> ?", (*values, request.mailbox_id)
    return condition, values
