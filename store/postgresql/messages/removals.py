"""Removals by operators, and the records of all removals.

Owns the SQL. What is removed, and what its record says, is one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import asyncpg
import msgspec

from bus.model.removing import waiting_in
from bus.model.repository import (
    Counted,
    EndPattern,
    EndSubscription,
    Looked,
    PageRequest,
    Removal,
    Remove,
    Removed,
    RemovePattern,
    RemoveSubscription,
    What,
)

from ...removing import TablePart, delete, find
from ...seals import removal_of, removal_row, removed_before, seal
from ...subscriptions import remove_pattern, unsubscribe
from ..server.reader import Reader
from ..server.statements import statements_on
from .pages import count_sources, count_waiting

__all__ = ["ADD_REMOVAL", "REMOVALS", "look", "note_scrub", "read_removals", "recorded", "remove_what"]

REMOVALS = "SELECT number, id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum FROM removals"

ADD_REMOVAL = """
    INSERT INTO removals (id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"""

# Named one by one, so that an index finds them among those that have ended.
_OPEN = "('pending', 'running', 'paused', 'crashed')"

_PARTS: dict[TablePart, str] = {
    "dead letters": "dead_letters WHERE mailbox_id = $1 AND seq = ANY($2::bigint[])",
    "dead letters of mailboxes": "dead_letters WHERE mailbox_id = ANY($1::text[])",
    "delayed": "scheduled_messages WHERE sender_bot_id = $1 AND id = ANY($2::text[])",
    "delayed for channel": "scheduled_messages WHERE recipient_channel = $1",
    "delayed of bot": "scheduled_messages WHERE sender_bot_id = $1 OR recipient_bot_id = $1",
    "subscription": "bot_subscriptions WHERE bot_id = $1 AND channel_name = $2 AND pattern IS NULL",
    "pattern": "bot_patterns WHERE bot_id = $1 AND pattern = $2",
    "patterns of bot": "bot_patterns WHERE bot_id = $1",
    "subscriptions of channel": "bot_subscriptions WHERE channel_name = $1",
    "subscriptions of bot": "bot_subscriptions WHERE bot_id = $1",
    "members": "bot_subscriptions WHERE channel_name = $1 AND group_name = $2",
    "group": "channel_groups WHERE channel_name = $1 AND name = $2",
    "groups of channel": "channel_groups WHERE channel_name = $1",
    "channel": "bot_channels WHERE name = $1",
    "mailboxes": "mailboxes WHERE id = ANY($1::text[])",
    "keys of bot": "keys WHERE bot_id = $1",
    "runs of bot": f"workflow_runs WHERE holder_bot_id = $1 AND status IN {_OPEN}",
    "definitions of bot": "workflows WHERE owner_bot_id = $1",
    "bot": "bots WHERE id = $1",
}


class _Tables:
    def __init__(self, connection: Reader | asyncpg.Connection) -> None:
        self._connection = connection

    async def find(self, part: TablePart, column: str, *values: Any) -> tuple[Any, ...]:
        rows = await self._connection.fetch(f"SELECT {column} FROM {_PARTS[part]} ORDER BY {column}", *values)
        return tuple(row[0] for row in rows)

    async def count(self, part: TablePart, *values: Any) -> int:
        [[count]] = await self._connection.fetch(f"SELECT COUNT(*) FROM {_PARTS[part]}", *values)
        return int(count)

    async def delete(self, part: TablePart, *values: Any) -> None:
        await self._connection.fetch(f"DELETE FROM {_PARTS[part]}", *values)

    async def count_waiting(self, unread: PageRequest, counted: Iterable[Counted]) -> int:
        return await count_waiting(self._connection, unread, counted)


async def recorded(connection: Reader | asyncpg.Connection, id: str) -> str | None:
    """Return what is recorded of a removal with an id, or None."""
    for (what,) in await connection.fetch("SELECT what FROM removals WHERE id = $1", id):
        return str(what)
    return None


async def look(reader: Reader, change: Remove) -> Looked:
    """Return what a removal would do, or did before."""
    what = await recorded(reader, change.id)
    if what is not None:
        return Looked(removed_before(what, change))
    waiting = waiting_in(change.what)
    counted = tuple([each for mailbox in waiting for each in await count_sources(reader, mailbox.unread)])
    return Looked(await find(_Tables(reader), msgspec.structs.replace(change, counted=counted)), counted)


async def remove_what(connection: asyncpg.Connection, change: Remove) -> Removed:
    """Carry out a removal, or return what it did before, or why it is not carried out."""
    what = await recorded(connection, change.id)
    if what is not None:
        return removed_before(what, change)
    tables = _Tables(connection)
    removed = await find(tables, change)
    if not change.carries_out(removed):
        return removed
    await _delete(connection, tables, change.what)
    removed = msgspec.structs.replace(removed, done=True)
    await connection.execute(ADD_REMOVAL, *removal_row(change, removed))
    return removed


async def _delete(connection: asyncpg.Connection, tables: _Tables, what: What | None) -> None:
    """Delete what was found. A subscription may pass to a pattern instead."""
    match what:
        case EndPattern(bot_id, pattern, _, passed):
            await remove_pattern(statements_on(connection), RemovePattern(bot_id, pattern, passed))
        case EndSubscription(bot_id, channel, _, str() as passes_to):
            await unsubscribe(statements_on(connection), RemoveSubscription(bot_id, channel, passes_to))
        case _:
            await delete(tables, what)


async def read_removals(reader: Reader, after: int, limit: int) -> list[Removal]:
    """Return records in their order."""
    rows = await reader.fetch(f"{REMOVALS} WHERE number > $1 ORDER BY number LIMIT $2", after, limit)
    return [removal_of(row) for row in rows]


async def note_scrub(connection: asyncpg.Connection, through: int, at: str) -> None:
    """Note the time since when nothing is left of what was removed, up to a record."""
    for number, *values, _ in await connection.fetch(
        f"{REMOVALS} WHERE scrubbed_at IS NULL AND number <= $1 ORDER BY number", through
    ):
        await connection.execute(
            "UPDATE removals SET scrubbed_at = $1, checksum = $2 WHERE number = $3",
            at,
            seal(*values[:6], at),
            number,
        )
