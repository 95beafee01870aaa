"""Which log a database holds, and whether it is still where a worker left it.

Owns the row of `log`. A log that may assign seqs again has a new epoch, so that clients forget what they knew of
them. PostgreSQL does not say that it was restored. A copy is noticed, because it is at another place: another
cluster, another database, or another table. A restoration of the whole cluster to an earlier moment is not: it
looks like the promotion of a standby, so operators are asked, and say so with `posthouse restored`
(docs/decisions/0081-postgresql-for-people.md).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg
import uuid_utils

from bus.model.lineage import written_earlier
from bus.model.records import timestamp

from ...moving.movable import FENCES_AHEAD

__all__ = ["Epoch", "begin_epoch", "note_earlier", "settle_epoch"]

# All of it stays the same when a standby is promoted, and none of it can be kept by pg_restore.
_HERE = """
    SELECT (SELECT system_identifier FROM pg_control_system()) || '/'
           || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || 'log'::regclass::oid,
           left(pg_walfile_name(pg_current_wal_lsn()), 8)"""

_READ = "SELECT epoch, place, timeline FROM log FOR UPDATE"

_CREATE = "INSERT INTO log (epoch, created_at, place, timeline) VALUES ($1, $2, $3, $4)"

_EARLIER = "SELECT epoch, earlier, last_seq FROM log CROSS JOIN log_end"

_NOTE = "UPDATE log SET epoch = $1, place = $2, timeline = $3"

# A program may still hold a run by a claim that is not in this copy: the next claim must not be equal.
_RAISE_FENCES = "UPDATE workflow_runs SET fence = fence + $1"

_COPY = (
    "the log continues under a new epoch: it is not where a worker left it, so it is assumed to be a restored copy"
)

_TIMELINE = (
    "PostgreSQL has a new timeline: a standby was promoted, or the server was restored to an earlier moment; if it"
    " was restored, run 'posthouse restored', so that clients forget what is not there any more"
)


class Epoch(NamedTuple):
    """The log's name, and what operators should know of it."""

    name: str
    warnings: list[str]


async def settle_epoch(connection: asyncpg.Connection) -> Epoch:
    """Return which log this is; a new one gets a name, and a copy another one. The caller is the only writer."""
    async with connection.transaction():
        place, timeline = await connection.fetchrow(_HERE)
        row = await connection.fetchrow(_READ)
        if row is None:
            epoch = str(uuid_utils.uuid7())
            await connection.execute(_CREATE, epoch, timestamp(datetime.now(UTC)), place, timeline)
            return Epoch(epoch, [])
        epoch, known_place, known_timeline = row
        if known_place not in (None, place):
            return Epoch(await begin_epoch(connection), [_COPY])
        if (known_place, known_timeline) != (place, timeline):
            await connection.execute(_NOTE, epoch, place, timeline)
    return Epoch(epoch, [_TIMELINE] if known_timeline not in (None, timeline) else [])


async def begin_epoch(connection: asyncpg.Connection) -> str:
    """Assign a new epoch to the log, and end all holds of runs, in the caller's transaction; return it."""
    await note_earlier(connection)
    epoch = str(uuid_utils.uuid7())
    await connection.execute(_NOTE, epoch, *await connection.fetchrow(_HERE))
    await connection.execute(_RAISE_FENCES, FENCES_AHEAD)
    return epoch


async def note_earlier(connection: asyncpg.Connection) -> None:
    """Note which log this is, and where it ends: another one is about to go on from it."""
    epoch, earlier, last_seq = await connection.fetchrow(_EARLIER)
    await connection.execute("UPDATE log SET earlier = $1", written_earlier(earlier, epoch, last_seq))
