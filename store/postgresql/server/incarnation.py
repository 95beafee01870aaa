"""Who writes: the row of a worker's incarnation, which every batch updates first, and the locked end of the log.

Owns the tables `workers` and `log_end`. A worker takes over by removing the rows of all others, which waits for
their running batches; what they write later finds no row, and is refused. The number in the row tells, after a lost
connection, whether a batch was committed (docs/decisions/0076-a-log-in-postgresql.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg

from bus.errors import OwnershipLost, StoreFailed

from ...moving.movable import Move, State, refusal

__all__ = [
    "Incarnation",
    "LogEnd",
    "begin",
    "carry_out_alone",
    "end_all",
    "lock_workers",
    "look",
    "move_end",
    "one_statement",
    "read_move",
    "take_over",
]

_TAKEN_OVER = "another worker has taken over; this one must end"
_MOVED = "the end of the log in PostgreSQL is not where this worker left it: another program writes to it"
_TAKEN_OVER_IN_DOUBT = (
    f"{_TAKEN_OVER}; it is unknown whether its last transaction was stored, which was not answered"
)

_LOCK_WORKERS = "LOCK TABLE workers IN EXCLUSIVE MODE"

_RAISE_FENCE = "UPDATE log_end SET fence = fence + 1 RETURNING fence"

_TAKE = "INSERT INTO workers (id, fence, batch, began_at) VALUES ($1, $2, 0, now())"

# The row of the worker comes first, and the end of the log is locked only if it is there.
_MINE = "mine AS (UPDATE workers SET batch = $3 WHERE id = $1 AND fence = $2 AND batch = $3 - 1 RETURNING id)"

_BEGIN = f"""
    WITH {_MINE}
    SELECT clock_timestamp(), last_seq, last_timestamp FROM mine CROSS JOIN log_end FOR UPDATE OF log_end"""

# As an update it waits for a batch that is still being committed, and its own commit for a standby.
_LOOK = "UPDATE workers SET batch = batch WHERE id = $1 AND fence = $2 RETURNING batch"

_MOVE_END = "UPDATE log_end SET last_seq = $1, last_timestamp = $2"

# What a batch adds is added only if the end of the log was moved, which is moved only if the row of the worker was
# there. If it is not added, an error or a missing row says so.
_ALONE = """
    WITH {mine}, moved AS (
        UPDATE log_end SET last_seq = $5, last_timestamp = $6 FROM mine WHERE last_seq = $4 RETURNING one
    ), {additions}
    SELECT one FROM mine LEFT JOIN moved ON true"""


class Incarnation(NamedTuple):
    """A worker's incarnation: its fence is higher than that of every one before."""

    worker_id: str
    fence: int


class LogEnd(NamedTuple):
    """The last seq and timestamp of the log."""

    last_seq: int
    last_timestamp: str


async def lock_workers(connection: asyncpg.Connection) -> None:
    """Wait for the batches that are running, and let none begin before the caller's transaction has ended."""
    await connection.execute(_LOCK_WORKERS)


async def read_move(connection: asyncpg.Connection) -> Move | None:
    """Return the move that a database is part of; one of an earlier version is part of none."""
    if not await connection.fetchval("SELECT to_regclass('house_move') IS NOT NULL"):
        return None
    row = await connection.fetchrow("SELECT id, state, place, at FROM house_move")
    return None if row is None else Move(row[0], State(row[1]), row[2], row[3])


async def take_over(
    connection: asyncpg.Connection, worker_id: str, *, place: str = "postgresql://…", moving: bool = False
) -> tuple[Incarnation, LogEnd]:
    """Become the only writer, and return where the log ends. It is safe to believe when this has returned.

    Raise DatabaseUnusable, with nothing changed, if the database was moved away, or is only in part here, unless it
    is taken over for `moving` it.
    """
    async with connection.transaction():
        await lock_workers(connection)
        if not moving:
            found = await read_move(connection)
            if refused := refusal(place, found):
                raise refused
            if found is not None:
                await connection.execute("DELETE FROM house_move")
        await connection.execute("DELETE FROM workers")
        fence = await connection.fetchval(_RAISE_FENCE)
        await connection.execute(_TAKE, worker_id, fence)
        row = await connection.fetchrow("SELECT last_seq, last_timestamp FROM log_end")
    return Incarnation(worker_id, fence), LogEnd(*row)


async def end_all(connection: asyncpg.Connection) -> None:
    """End every worker's incarnation, in the caller's transaction, and make sure that no fence comes twice.

    After a restoration there may be workers with higher fences than the database knows.
    """
    await connection.execute(_LOCK_WORKERS)
    await connection.execute("DELETE FROM workers")
    await connection.execute("UPDATE log_end SET fence = fence + 1000000")


async def begin(connection: asyncpg.Connection, incarnation: Incarnation, batch: int) -> tuple[datetime, LogEnd]:
    """Begin a batch, in the caller's transaction; return the server's time, and where the log ends.

    Raise OwnershipLost if another worker has taken over.
    """
    row = await connection.fetchrow(_BEGIN, *incarnation, batch)
    if row is None:
        raise OwnershipLost(_TAKEN_OVER)
    now, *end = row
    return now, LogEnd(*end)


async def move_end(connection: asyncpg.Connection, end: LogEnd) -> None:
    """Note the new end of the log, in the transaction that adds to it."""
    await connection.execute(_MOVE_END, *end)


def one_statement(additions: str) -> str:
    """Return the SQL of a batch that is a transaction by itself, for `carry_out_alone`.

    `additions` are data-modifying common table expressions, each with the condition `EXISTS (SELECT FROM moved)`.
    In them $4 and $5 are the last seq before and after the batch, $6 is its timestamp, and their own values begin
    at $7.
    """
    return _ALONE.format(mine=_MINE, additions=additions)


async def carry_out_alone(
    connection: asyncpg.Connection,
    incarnation: Incarnation,
    batch: int,
    ends: tuple[LogEnd, LogEnd],
    sql: str,
    values: Iterable[Any],
) -> None:
    """Carry out a batch in one round trip: SQL of `one_statement`. `ends` are those of the log before and after it.

    Raise OwnershipLost if another worker has taken over.
    """
    before, after = ends
    row = await connection.fetchrow(sql, *incarnation, batch, before.last_seq, *after, *values)
    if row is None:
        raise OwnershipLost(_TAKEN_OVER)
    if row[0] is None:
        raise StoreFailed(_MOVED)


async def look(connection: asyncpg.Connection, incarnation: Incarnation) -> int:
    """Return the number of the last committed batch, once it is safe. Raise OwnershipLost if replaced."""
    batch = await connection.fetchval(_LOOK, *incarnation)
    if batch is None:
        raise OwnershipLost(_TAKEN_OVER_IN_DOUBT)
    return int(batch)
