"""What a mailbox reads of the log: pages of what it wants, and how much there is.

Each source is a range of one index, so that a page costs what it has, whatever the length of the log.
"""

from __future__ import annotations

import json
from typing import Any

from ..repository import LogMessage, Page, PageRequest
from .reader import Reader
from .rows import COLUMNS, intact, message_of

__all__ = ["Pages", "count_waiting"]

_SOURCES_A_STATEMENT = 200
"""Sources read by one statement: SQLite joins at most 500 SELECTs."""

_ROWS_A_FETCH = 128
"""Rows that one turn of the database's thread gives: few enough to stop soon after a page's byte limit."""


class Pages:
    """Reads for mailboxes, on a connection of their own: a delivery never waits behind a question."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __repr__(self) -> str:
        return f"<Pages {self._reader}>"

    async def read(self, request: PageRequest) -> Page:
        """Read part of a mailbox."""
        damaged: list[int] = []
        recalled: list[LogMessage] = []
        for start in range(0, len(request.seqs), _SOURCES_A_STATEMENT):
            part = request.seqs[start : start + _SOURCES_A_STATEMENT]
            marks = ", ".join("?" * len(part))
            rows = await self._reader.execute_fetchall(
                f"SELECT {COLUMNS} FROM bot_messages WHERE seq IN ({marks}) ORDER BY seq", part
            )
            for row in rows:
                recalled.append(message_of(row)) if intact(row) else damaged.append(row[0])
        messages, complete = await self._follow(request, damaged)
        return Page(recalled, messages, complete, tuple(damaged))

    async def _follow(self, request: PageRequest, damaged: list[int]) -> tuple[list[LogMessage], bool]:
        seqs = await self._seqs(request, request.messages_max + 1)
        wanted = seqs[: request.messages_max]
        if not wanted:
            return [], len(seqs) <= request.messages_max
        messages: list[LogMessage] = []
        size_bytes = 0
        for start in range(0, len(wanted), _ROWS_A_FETCH):
            part = wanted[start : start + _ROWS_A_FETCH]
            marks = ", ".join("?" * len(part))
            sql = f"SELECT {COLUMNS} FROM bot_messages WHERE seq IN ({marks}) ORDER BY seq"
            for row in await self._reader.execute_fetchall(sql, part):
                if size_bytes >= request.bytes_max:
                    return messages, False
                if intact(row):
                    messages.append(message_of(row))
                    size_bytes += len(row[7])
                else:
                    damaged.append(row[0])
        return messages, len(seqs) <= request.messages_max

    async def _seqs(self, request: PageRequest, limit: int) -> list[int]:
        """Give the seqs that follow in the sources, in order: each source's range of its index, merged."""
        found: list[int] = []
        for start in range(0, len(request.sources), _SOURCES_A_STATEMENT):
            ranges: list[str] = []
            parameters: list[Any] = []
            for source in request.sources[start : start + _SOURCES_A_STATEMENT]:
                condition, values = _range(request, source)
                ranges.append(f"SELECT seq FROM (SELECT seq FROM bot_messages {condition} ORDER BY seq LIMIT ?)")
                parameters += (*values, limit)
            sql = " UNION ALL ".join(ranges) + " ORDER BY seq LIMIT ?"
            rows = await self._reader.execute_fetchall(sql, (*parameters, limit))
            found += [row[0] for row in rows]
        return sorted(found)[:limit]


async def count_waiting(reader: Reader, request: PageRequest) -> int:
    """Count the messages that a page without a limit would have, but for those it names by seq."""
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


def _range(request: PageRequest, source: tuple[str, int, bool]) -> tuple[str, tuple[Any, ...]]:
    """Give the condition, and its values, for what a mailbox wants of one source: a range of one index."""
    channel, after_seq, skip_own = source
    column = "recipient_channel" if channel else "recipient_bot_id"
    condition = f"WHERE {column} = ? AND seq > ? AND seq <= ?"
    values = (channel or request.mailbox_id, after_seq, request.through_seq)
    if skip_own:
        return f"{condition} AND sender_bot_id <> ?", (*values, request.mailbox_id)
    return condition, values
