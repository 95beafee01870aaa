"""Removals by operators, and the records of all removals.

Owns the SQL. What is removed, and what its record says, is one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import aiosqlite
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
from ..file.reader import Reader
from ..file.statements import statements_on
from .pages import count_in_portions, count_waiting

__all__ = ["ADD_REMOVAL", "REMOVALS", "look", "note_scrub", "read_removals", "recorded", "remove_what"]

REMOVALS = "SELECT number, id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum FROM removals"

ADD_REMOVAL = """
    INSERT INTO removals (id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""

_LIST = "(SELECT value FROM json_each(?))"

# Named one by one, so that an index finds them among those that have ended.
_OPEN = "('pending', 'running', 'paused', 'crashed')"

_PARTS: dict[TablePart, str] = {
    "dead letters": f"dead_letters WHERE mailbox_id = ? AND seq IN {_LIST}",
    "dead letters of mailboxes": f"dead_letters WHERE mailbox_id IN {_LIST}",
    "delayed": f"scheduled_messages WHERE sender_bot_id = ? AND id IN {_LIST}",
    "delayed for channel": "scheduled_messages WHERE recipient_channel = ?",
    "delayed of bot": "scheduled_messages WHERE sender_bot_id = ?1 OR recipient_bot_id = ?1",
    "subscription": "bot_subscriptions WHERE bot_id = ? AND channel_name = ? AND pattern IS NULL",
    "pattern": "bot_patterns WHERE bot_id = ? AND pattern = ?",
    "patterns of bot": "bot_patterns WHERE bot_id = ?",
    "subscriptions of channel": "bot_subscriptions WHERE channel_name = ?",
    "subscriptions of bot": "bot_subscriptions WHERE bot_id = ?",
    "members": "bot_subscriptions WHERE channel_name = ? AND group_name = ?",
    "group": "channel_groups WHERE channel_name = ? AND name = ?",
    "groups of channel": "channel_groups WHERE channel_name = ?",
    "channel": "bot_channels WHERE name = ?",
    "mailboxes": f"mailboxes WHERE id IN {_LIST}",
    "keys of bot": "keys WHERE bot_id = ?",
    "runs of bot": f"workflow_runs WHERE holder_bot_id = ? AND status IN {_OPEN}",
    "definitions of bot": "workflows WHERE owner_bot_id = ?",
    "bot": "bots WHERE id = ?",
}


class _Tables:
    def __init__(self, connection: Reader | aiosqlite.Connection) -> None:
        self._connection = connection

    async def find(self, part: TablePart, column: str, *values: Any) -> tuple[Any, ...]:
        rows = await self._run(f"SELECT {column} FROM {_PARTS[part]} ORDER BY {column}", values)
        return tuple(row[0] for row in rows)

    async def count(self, part: TablePart, *values: Any) -> int:
        [[count]] = await self._run(f"SELECT COUNT(*) FROM {_PARTS[part]}", values)
        return int(count)

    async def delete(self, part: TablePart, *values: Any) -> None:
        await self._run(f"DELETE FROM {_PARTS[part]}", values)

    async def count_waiting(self, unread: PageRequest, counted: Iterable[Counted]) -> int:
        return await count_waiting(self._connection, unread, counted)

    async def _run(self, sql: str, values: tuple[Any, ...]) -> Iterable[Any]:
        lists = [value if isinstance(value, str) else json.dumps(value) for value in values]
        return await self._connection.execute_fetchall(sql, lists)


async def recorded(connection: Reader | aiosqlite.Connection, id: str) -> str | None:
    """Return what is recorded of a removal with an id, or None."""
    for (what,) in await connection.execute_fetchall("SELECT what FROM removals WHERE id = ?", (id,)):
        return str(what)
    return None


async def look(reader: Reader, change: Remove) -> Looked:
    """Return what a removal would do, or did before."""
    what = await recorded(reader, change.id)
    if what is not None:
        return Looked(removed_before(what, change))
    waiting = waiting_in(change.what)
    counted = tuple([each for mailbox in waiting for each in await count_in_portions(reader, mailbox.unread)])
    return Looked(await find(_Tables(reader), msgspec.structs.replace(change, counted=counted)), counted)


async def remove_what(connection: aiosqlite.Connection, change: Remove) -> Removed:
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
    await connection.execute(ADD_REMOVAL, removal_row(change, removed))
    return removed


async def _delete(connection: aiosqlite.Connection, tables: _Tables, what: What | None) -> None:
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
    rows = await reader.execute_fetchall(f"{REMOVALS} WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
    return [removal_of(row) for row in rows]


async def note_scrub(connection: aiosqlite.Connection, through: int, at: str) -> None:
    """Note the time since when nothing is left of what was removed, up to a record."""
    rows = await connection.execute_fetchall(
        f"{REMOVALS} WHERE scrubbed_at IS NULL AND number <= ? ORDER BY number", (through,)
    )
    for number, *values, _ in rows:
        await connection.execute(
            "UPDATE removals SET scrubbed_at = ?, checksum = ? WHERE number = ?",
            (at, seal(*values[:6], at), number),
        )
