"""What a mailbox reads from the log: pages of the messages that it wants, and their number.

Each source is a range of one index, so the cost of a page does not depend on the length of the log.
"""

from __future__ import annotations

import json
from typing import Any

from bus.model.records import WORKER_ID
from bus.model.repository import LogMessage, Page, PageRequest

from ..file.reader import Reader
from .rows import WITH_SEQS, fetch_each

__all__ = ["Pages", "count_senders", "count_waiting"]

_SOURCES_A_STATEMENT = 50
"""Sources read by one statement, which is prepared and kept for each combination: 4 KiB per source."""

_ROWS_A_FETCH = 64
"""Rows read at once: few enough to stop soon after a page's byte limit."""


class Pages:
    """Reads for mailboxes, on a separate connection: a delivery never waits behind a query."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __repr__(self) -> str:
        return f"<Pages {self._reader}>"

    async def read(self, request: PageRequest) -> Page:
        """Read part of a mailbox."""
        damaged: list[int] = []
        recalled: list[LogMessage] = []
        for start in range(0, len(request.seqs), _ROWS_A_FETCH):
            part = request.seqs[start : start + _ROWS_A_FETCH]
            for seq, message in await fetch_each(self._reader, WITH_SEQS, (json.dumps(part),)):
                recalled.append(message) if message is not None else damaged.append(seq)
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
            for seq, message in await fetch_each(self._reader, WITH_SEQS, (json.dumps(part),)):
                if size_bytes >= request.bytes_max:
                    return messages, False
                if message is None:
                    damaged.append(seq)
                else:
                    messages.append(message)
                    size_bytes += len(message.body)
        return messages, len(seqs) <= request.messages_max

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
            # As one text, for the same reason as in `fetch_each`.
            merged = f"{' UNION ALL '.join(ranges)} ORDER BY seq LIMIT ?"
            sql = f"SELECT GROUP_CONCAT(seq) FROM ({merged})"
            [[joined]] = await self._reader.execute_fetchall(sql, (*parameters, limit))
            found += map(int, joined.split(",") if joined else ())
        return sorted(found)[:limit]


async def count_waiting(reader: Reader, request: PageRequest) -> int:
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
