"""Security events as rows.

Owns their columns, and the statements that add, read and remove them. Their texts are whatever a peer sent, which
may contain the zero character.
"""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from bus.model.repository import (
    AddSecurityEvents,
    RemoveSecurityEvents,
    SecurityEvent,
    SecurityRequest,
    SecuritySpan,
)

from ..seals import is_sealed, seal
from .messages.rows import escaped, unescaped
from .server.reader import Reader

__all__ = ["SECURITY_EVENTS", "add_events", "event_row", "read_events", "read_span", "remove_events"]

_ADD = """
    INSERT INTO security_events (id, at, event, bot_id, key, address, object, detail, times, checksum)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (id) DO UPDATE SET times = excluded.times, checksum = excluded.checksum"""

SECURITY_EVENTS = """
    SELECT id, at, event, bot_id, key, address, object, detail, times, checksum FROM security_events"""

_READ = f"""
    {SECURITY_EVENTS}
    WHERE id > $1 AND ($2 = '' OR id >= (SELECT MIN(id) FROM security_events WHERE at >= $2) AND at >= $2)
        AND ($3::text IS NULL OR bot_id = $3) AND ($4::text IS NULL OR event = $4)
    ORDER BY id LIMIT $5"""

# The two are ranges of the key and of the index; the last event stays, because the next id follows it.
_REMOVE = """
    DELETE FROM security_events
    WHERE id < (SELECT MAX(id) FROM security_events) AND id IN (
        (SELECT id FROM security_events WHERE id <= $1 ORDER BY id LIMIT $3)
        UNION
        (SELECT id FROM security_events WHERE at < $2 ORDER BY at LIMIT $3))"""

_SPAN = """
    SELECT COALESCE((SELECT MIN(id) FROM security_events), 0), COALESCE((SELECT MIN(at) FROM security_events), ''),
           COALESCE((SELECT MAX(id) FROM security_events), 0)"""


async def add_events(connection: asyncpg.Connection, change: AddSecurityEvents) -> None:
    """Store events; of those that are stored already, replace the count."""
    rows: list[tuple[Any, ...]] = []
    for event in change.events:
        values = msgspec.structs.astuple(event)
        texts = [escaped(value) if isinstance(value, str) else value for value in values]
        rows.append((*texts, seal(*values)))
    await connection.executemany(_ADD, rows)


async def remove_events(connection: asyncpg.Connection, change: RemoveSecurityEvents) -> SecuritySpan:
    """Remove the oldest events, and return what is left."""
    await connection.execute(_REMOVE, change.through_id, change.before, change.events_max)
    return SecuritySpan(*await connection.fetchrow(_SPAN))


async def read_events(reader: Reader, request: SecurityRequest) -> list[tuple[SecurityEvent, bool]]:
    """Return events in the order of their ids, each with whether it is as it was stored."""
    found: list[tuple[SecurityEvent, bool]] = []
    values = (request.after_id, request.since, request.bot_id, request.event, request.limit)
    for record in await reader.fetch(_READ, *values):
        row = event_row(record)
        found.append((SecurityEvent(*row[:-1]), is_sealed(row)))
    return found


def event_row(record: Any) -> list[Any]:
    """Return a record of SECURITY_EVENTS as it was sealed."""
    return [unescaped(value) if isinstance(value, str) else value for value in record]


async def read_span(reader: Reader) -> SecuritySpan:
    """Return which events are stored."""
    [row] = await reader.fetch(_SPAN)
    return SecuritySpan(*row)
