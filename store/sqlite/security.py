"""Security events as rows.

Owns their columns, their checksum, and the statements that add, read and remove them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiosqlite
import msgspec

from bus.model.repository import (
    AddSecurityEvents,
    RemoveSecurityEvents,
    SecurityEvent,
    SecurityRequest,
    SecuritySpan,
)

from ..seals import is_sealed, seal
from .file.connection import Statement
from .file.reader import Reader

__all__ = ["SECURITY_EVENTS", "addition", "change_events", "read_events", "read_span"]

SECURITY_EVENTS = "SELECT id, at, event, bot_id, key, address, object, detail, times, checksum FROM security_events"

_ADD = """
    INSERT INTO security_events (id, at, event, bot_id, key, address, object, detail, times, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET times = excluded.times, checksum = excluded.checksum"""

_READ = f"""
    {SECURITY_EVENTS}
    WHERE id > ?1 AND (?2 = '' OR id >= (SELECT MIN(id) FROM security_events WHERE at >= ?2) AND at >= ?2)
        AND (?3 IS NULL OR bot_id = ?3) AND (?4 IS NULL OR event = ?4)
    ORDER BY id LIMIT ?5"""

# The two are ranges of the key and of the index; the last event stays, because the next id follows it.
_REMOVE = """
    DELETE FROM security_events
    WHERE id < (SELECT MAX(id) FROM security_events) AND id IN (
        SELECT id FROM (SELECT id FROM security_events WHERE id <= ?1 ORDER BY id LIMIT ?3)
        UNION
        SELECT id FROM (SELECT id FROM security_events WHERE at < ?2 ORDER BY at LIMIT ?3))"""

_SPAN = """
    SELECT COALESCE((SELECT MIN(id) FROM security_events), 0), COALESCE((SELECT MIN(at) FROM security_events), ''),
           COALESCE((SELECT MAX(id) FROM security_events), 0)"""


def addition(event: SecurityEvent) -> Statement:
    """Return the statement that stores an event, or replaces its count."""
    values = msgspec.structs.astuple(event)
    return _ADD, (*values, seal(*values))


async def read_events(
    connection: aiosqlite.Connection | Reader, request: SecurityRequest
) -> list[tuple[SecurityEvent, bool]]:
    """Return events in the order of their ids, each with whether it is as it was stored."""
    values = (request.after_id, request.since, request.bot_id, request.event, request.limit)
    rows: Sequence[Any] = list(await connection.execute_fetchall(_READ, values))
    return [(SecurityEvent(*row[:-1]), is_sealed(row)) for row in rows]


async def read_span(connection: aiosqlite.Connection | Reader) -> SecuritySpan:
    """Return which events are stored."""
    [row] = await connection.execute_fetchall(_SPAN, ())
    return SecuritySpan(*row)


async def change_events(
    connection: aiosqlite.Connection, change: AddSecurityEvents | RemoveSecurityEvents
) -> SecuritySpan | None:
    """Store events, or remove the oldest ones and return what is left."""
    if isinstance(change, AddSecurityEvents):
        for event in change.events:
            await connection.execute(*addition(event))
        return None
    await connection.execute(_REMOVE, (change.through_id, change.before, change.events_max))
    return await read_span(connection)
