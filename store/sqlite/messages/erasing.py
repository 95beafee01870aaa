"""Erasing messages, runs and keyed values.

Owns the SQL. What an erased row is, `store.message_rows` says. The content is overwritten where it is now; what is
left of it in unused parts of the file goes with the next scrub (`file.scrubbing`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import aiosqlite

from bus.model.repository import Delayed, Erase, Erased, RemoveRuns

from ...message_rows import channels_of, erased
from ...removals import record, recorded
from ...seals import erased_before
from ..file.scrubbing import overwriting
from ..file.statements import statements_on
from ..file.writer import Transaction
from ..keyed import SqliteKeyed
from ..workflows.keeping import open_runs, remove_runs
from .rows import COLUMNS, WITH_SEQS

__all__ = ["erase"]

_ERASE = "UPDATE bot_messages SET body = '', headers = ?, checksum = ? WHERE seq = ?"

_FORGET_REASONS = f"UPDATE dead_letters SET reason = 'erased' {WITH_SEQS} AND reason <> 'erased' RETURNING seq"
"""A bot's reason may quote the message, which may have been erased before, or have left the log."""

_REMOVE_DELAYED = "DELETE FROM scheduled_messages WHERE id = ? AND sender_bot_id = ?"

_RELEASED = """
    SELECT seq FROM bot_messages WHERE id = ?1 AND sender_bot_id = ?2 AND copied = 0
    UNION ALL SELECT seq FROM bot_messages WHERE id = ?1 AND sender_bot_id = ?2 AND copied = 1"""
"""A delayed message that became due. There is an index for each half."""

_RUNS = "SELECT id FROM workflow_runs WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id"

_EVER = "9999"
"""Later than every time: whenever the runs ended."""


async def erase(transaction: Transaction, change: Erase, keyed: SqliteKeyed) -> Erased:
    """Carry out an erasure, or return what it did before."""
    connection = transaction.connection
    what = await recorded(statements_on(connection), change.id)
    if what is not None:
        return erased_before(what)
    async with overwriting(connection):
        done = await _erase(transaction, change, keyed)
    await record(statements_on(connection), change, done)
    return done


async def _erase(transaction: Transaction, change: Erase, keyed: SqliteKeyed) -> Erased:
    connection = transaction.connection
    delayed: list[Delayed] = []
    wanted = set(change.seqs)
    for each in change.delayed:
        key = (each.id, each.sender_bot_id)
        if (await connection.execute(_REMOVE_DELAYED, key)).rowcount:
            delayed.append(each)
        else:
            wanted.update(row[0] for row in await connection.execute_fetchall(_RELEASED, key))
    found = await connection.execute_fetchall(
        f"SELECT {COLUMNS} FROM bot_messages {WITH_SEQS} AND body <> '' ORDER BY seq", (json.dumps(sorted(wanted)),)
    )
    going_on = await open_runs(connection, [row[1] for row in found])
    rows = [row for row in found if row[1] not in going_on]
    await connection.executemany(_ERASE, [(*erased(row), row[0]) for row in rows])
    wanted -= {row[0] for row in found if row[1] in going_on}
    forgotten = await connection.execute_fetchall(_FORGET_REASONS, (json.dumps(sorted(wanted)),))
    seqs = tuple(sorted({row[0] for row in (*rows, *forgotten)}))
    runs = await _ids_of_runs(connection, change.runs)
    await remove_runs(connection, RemoveRuns(change.runs, _EVER))
    left = await _ids_of_runs(connection, change.runs)
    removed = tuple(id for id in runs if id not in left)
    values = await keyed.erase(transaction, change, seqs, channels_of(rows))
    return Erased(seqs, tuple(delayed), removed, tuple(sorted({*left, *going_on})), values=values)


async def _ids_of_runs(connection: aiosqlite.Connection, ids: Sequence[str]) -> tuple[str, ...]:
    """Return those of the runs that exist."""
    return tuple(row[0] for row in await connection.execute_fetchall(_RUNS, (json.dumps(ids),)))
