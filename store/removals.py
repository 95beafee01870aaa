"""Removals by operators, and the records of all removals.

Owns their SQL, in every backend. What is removed, and what its record says, is one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from bus.model.removing import waiting_in
from bus.model.repository import (
    Counted,
    EndPattern,
    EndSubscription,
    Erase,
    Erased,
    Looked,
    PageRequest,
    Removal,
    Remove,
    Removed,
    RemovePattern,
    RemoveSubscription,
    What,
)

from .removing import CountWaiting, Tables, delete, find
from .seals import removal_of, removal_row, removed_before, seal
from .statements import Statements
from .subscriptions import remove_pattern, unsubscribe

__all__ = ["REMOVALS", "look", "note_scrub", "read_removals", "record", "recorded", "remove_what"]

REMOVALS = "SELECT number, id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum FROM removals"

_RECORD = """
    INSERT INTO removals (id, at, bot_id, bot_name, reference, what, scrubbed_at, checksum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"""


async def recorded(run: Statements, id: str) -> str | None:
    """Return what is recorded of a removal with an id, or None."""
    for (what,) in await run("SELECT what FROM removals WHERE id = ?1", id):
        return str(what)
    return None


async def record(run: Statements, change: Erase | Remove, what: Erased | Removed) -> None:
    """Record a removal that was carried out."""
    await run(_RECORD, *removal_row(change, what))


async def look(
    run: Statements,
    change: Remove,
    count_sources: Callable[[PageRequest], Awaitable[list[Counted]]],
    count_waiting: CountWaiting,
) -> Looked:
    """Return what a removal would do, or did before."""
    what = await recorded(run, change.id)
    if what is not None:
        return Looked(removed_before(what, change))
    waiting = waiting_in(change.what)
    counted = tuple([each for mailbox in waiting for each in await count_sources(mailbox.unread)])
    return Looked(await find(Tables(run, count_waiting), msgspec.structs.replace(change, counted=counted)), counted)


async def remove_what(run: Statements, change: Remove, count_waiting: CountWaiting) -> Removed:
    """Carry out a removal, or return what it did before, or why it is not carried out."""
    what = await recorded(run, change.id)
    if what is not None:
        return removed_before(what, change)
    tables = Tables(run, count_waiting)
    removed = await find(tables, change)
    if not change.carries_out(removed):
        return removed
    await _delete(run, tables, change.what)
    removed = msgspec.structs.replace(removed, done=True)
    await record(run, change, removed)
    return removed


async def _delete(run: Statements, tables: Tables, what: What | None) -> None:
    """Delete what was found. A subscription may pass to a pattern instead."""
    match what:
        case EndPattern(bot_id, pattern, _, passed):
            await remove_pattern(run, RemovePattern(bot_id, pattern, passed))
        case EndSubscription(bot_id, channel, _, str() as passes_to):
            await unsubscribe(run, RemoveSubscription(bot_id, channel, passes_to))
        case _:
            await delete(tables, what)


async def read_removals(run: Statements, after: int, limit: int) -> list[Removal]:
    """Return records in their order."""
    rows = await run(f"{REMOVALS} WHERE number > ?1 ORDER BY number LIMIT ?2", after, limit)
    return [removal_of(row) for row in rows]


async def note_scrub(run: Statements, through: int, at: str) -> None:
    """Note the time since when nothing is left of what was removed, up to a record."""
    rows = await run(f"{REMOVALS} WHERE scrubbed_at IS NULL AND number <= ?1 ORDER BY number", through)
    for number, *values, _ in rows:
        sql = "UPDATE removals SET scrubbed_at = ?1, checksum = ?2 WHERE number = ?3"
        await run(sql, at, seal(*values[:6], at), number)
