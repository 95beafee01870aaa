"""Removals by operators, and the records of all removals.

Owns the SQL. What is removed, and what its record says, is one transaction.
"""

from __future__ import annotations

import asyncpg
import msgspec

from bus.model.repository import CancelDelayed, DiscardDeadLetters, PurgeMailbox, Removal, Remove, Removed

from ...seals import removal_of, removal_row, removed_before, seal
from ..server.reader import Reader
from .pages import count_waiting

__all__ = ["ADD_REMOVAL", "REMOVALS", "note_scrub", "read_removals", "recorded", "remove_what"]

REMOVALS = "SELECT number, id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum FROM removals"

ADD_REMOVAL = """
    INSERT INTO removals (id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"""

_DEAD_LETTERS = "mailbox_id = $1 AND seq = ANY($2::bigint[])"

_DELAYED = "sender_bot_id = $1 AND id = ANY($2::text[])"


async def recorded(connection: asyncpg.Connection, id: str) -> str | None:
    """Return what is recorded of a removal with an id, or None."""
    what: str | None = await connection.fetchval("SELECT what FROM removals WHERE id = $1", id)
    return what


async def remove_what(connection: asyncpg.Connection, change: Remove) -> Removed:
    """Carry out a removal, or return what it did before, or would do."""
    what = await recorded(connection, change.id)
    if what is not None:
        return removed_before(what, change)
    removed = await _remove(connection, change, Removed(change.kind, change.name))
    if change.dry_run:
        return removed
    removed = msgspec.structs.replace(removed, done=True)
    await connection.execute(ADD_REMOVAL, *removal_row(change, removed))
    return removed


async def _remove(connection: asyncpg.Connection, change: Remove, nothing: Removed) -> Removed:
    match change.what:
        case None:
            return nothing
        case DiscardDeadLetters(mailbox_id, seqs):
            rows = await connection.fetch(
                f"SELECT seq FROM dead_letters WHERE {_DEAD_LETTERS} ORDER BY seq", mailbox_id, seqs
            )
            if not change.dry_run:
                await connection.execute(f"DELETE FROM dead_letters WHERE {_DEAD_LETTERS}", mailbox_id, seqs)
            found = tuple(row[0] for row in rows)
            return msgspec.structs.replace(nothing, counts={"dead_letters": len(found)}, seqs=found)
        case CancelDelayed(sender_bot_id, ids):
            rows = await connection.fetch(
                f"SELECT id FROM scheduled_messages WHERE {_DELAYED} ORDER BY id", sender_bot_id, ids
            )
            if not change.dry_run:
                await connection.execute(f"DELETE FROM scheduled_messages WHERE {_DELAYED}", sender_bot_id, ids)
            waiting = tuple(row[0] for row in rows)
            return msgspec.structs.replace(nothing, counts={"delayed": len(waiting)}, ids=waiting)
        case PurgeMailbox(unread, returned):
            count = returned + await count_waiting(connection, unread)
            return msgspec.structs.replace(nothing, counts={"waiting": count})


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
