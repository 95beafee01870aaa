"""Erasing messages, runs and keyed values.

Owns the SQL. What an erased row is, `store.message_rows` says. PostgreSQL keeps earlier versions of rows until
their tables are written anew (`scrubbing`).
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from bus.model.repository import Delayed, Erase, Erased, RemoveRuns

from ...message_rows import channels_of, erased
from ...removals import record, recorded
from ...seals import erased_before
from ..keyed import PostgresqlKeyed
from ..server.statements import statements_on
from ..server.writer import Transaction
from ..workflows.keeping import open_runs, remove_runs
from .rows import COLUMNS, read_row

__all__ = ["erase"]

_TO_ERASE = f"SELECT {COLUMNS} FROM bot_messages WHERE seq = ANY($1::bigint[]) AND body <> '' ORDER BY seq"

_ERASE = """
    UPDATE bot_messages SET body = '', headers = erased.headers, checksum = erased.checksum
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS erased (seq, headers, checksum)
    WHERE bot_messages.seq = erased.seq"""

_FORGET_REASONS = """
    UPDATE dead_letters SET reason = 'erased' WHERE seq = ANY($1::bigint[]) AND reason <> 'erased' RETURNING seq"""
"""A bot's reason may quote the message, which may have been erased before, or have left the log."""

_REMOVE_DELAYED = "DELETE FROM scheduled_messages WHERE id = $1 AND sender_bot_id = $2 RETURNING number"

_RELEASED = """
    SELECT seq FROM bot_messages WHERE id = $1 AND sender_bot_id = $2 AND NOT copied
    UNION ALL SELECT seq FROM bot_messages WHERE id = $1 AND sender_bot_id = $2 AND copied"""
"""A delayed message that became due. There is an index for each half."""

_RUNS = "SELECT id FROM workflow_runs WHERE id = ANY($1::text[])"

_EVER = "9999"
"""Later than every time: whenever the runs ended."""


async def erase(transaction: Transaction, change: Erase, keyed: PostgresqlKeyed) -> Erased:
    """Carry out an erasure, or return what it did before."""
    connection = transaction.connection
    what = await recorded(statements_on(connection), change.id)
    if what is not None:
        return erased_before(what)
    delayed: list[Delayed] = []
    wanted = set(change.seqs)
    for each in change.delayed:
        if await connection.fetch(_REMOVE_DELAYED, each.id, each.sender_bot_id):
            delayed.append(each)
        else:
            wanted.update(row[0] for row in await connection.fetch(_RELEASED, each.id, each.sender_bot_id))
    found = await connection.fetch(_TO_ERASE, sorted(wanted))
    going_on = await open_runs(connection, [record["id"] for record in found])
    rows = [read_row(record) for record in found if record["id"] not in going_on]
    blanks = [erased(row) for row in rows]
    await connection.execute(
        _ERASE, [row[0] for row in rows], [headers for headers, _ in blanks], [crc for _, crc in blanks]
    )
    wanted -= {record["seq"] for record in found if record["id"] in going_on}
    forgotten = await connection.fetch(_FORGET_REASONS, sorted(wanted))
    seqs = tuple(sorted({row[0] for row in (*rows, *forgotten)}))
    runs = await _ids_of_runs(connection, change.runs)
    await remove_runs(connection, RemoveRuns(change.runs, _EVER))
    left = await _ids_of_runs(connection, change.runs)
    removed = tuple(id for id in runs if id not in left)
    values = await keyed.erase(transaction, change, seqs, channels_of(rows))
    done = Erased(seqs, tuple(delayed), removed, tuple(sorted({*left, *going_on})), values=values)
    await record(statements_on(connection), change, done)
    return done


async def _ids_of_runs(connection: asyncpg.Connection, ids: Sequence[str]) -> tuple[str, ...]:
    """Return those of the runs that exist, in the order of their ids."""
    return tuple(sorted(row[0] for row in await connection.fetch(_RUNS, ids)))
