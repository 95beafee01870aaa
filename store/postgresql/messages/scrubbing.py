"""Writing the tables with contents anew, so that nothing is left in them of what was erased.

Owns what has to end before, and how long the house waits behind it: a table that somebody reads is waited for in
short portions, because whoever wants that table next waits as well. PostgreSQL's WAL has earlier versions of rows,
too, of whose archives it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio

from bus.errors import StorageBusy

from ..server.reader import Reader

__all__ = ["rewrite"]

_TABLES = (
    "bot_messages", "scheduled_messages", "dead_letters", "workflow_runs", "workflow_steps", "workflow_signals",
    "workflow_run_attributes", "keyed_values",
)  # fmt: skip

_NOW = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"

_HOLDERS = """
    SELECT 'the session ' || pid || ' (' || application_name || ')' FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (age(backend_xid) > age($1::text::xid8::xid)
        OR age(backend_xmin) > age($1::text::xid8::xid)
            AND (datname = current_database() OR backend_type = 'walsender'))
    UNION ALL SELECT 'the replication slot ' || slot_name FROM pg_replication_slots
    WHERE age(xmin) > age($1::text::xid8::xid)
    UNION ALL SELECT 'the prepared transaction ' || gid FROM pg_prepared_xacts
    WHERE age(transaction) > age($1::text::xid8::xid)
    LIMIT 1"""
"""What may still see rows that were removed before a transaction, so that PostgreSQL keeps them."""

_READING = """
    SELECT 'the session ' || pid || ' (' || application_name || ')'
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE relation = $1::text::regclass AND granted AND pid <> pg_backend_pid()
    ORDER BY xact_start LIMIT 1"""

_WAIT_SECONDS = 5.0
"""For transactions that end soon, such as the worker's own."""

_LOCK_TIMEOUT = "1500ms"
"""For one attempt to lock a table, while which others wait for it as well. After `deadlock_timeout`, a second as it
is shipped, PostgreSQL cancels an autovacuum that is in the way.
"""

_ATTEMPTS_MAX = 20

_PAUSE_SECONDS = 3.0
"""Between attempts; those who waited go on."""

_Opening = Callable[..., AbstractAsyncContextManager[Reader]]


async def rewrite(open_reader: _Opening) -> None:
    """Write each table that has contents anew, one after the other: none is written or read meanwhile.

    `open_reader` takes settings of its session. At the end the planner's statistics are made anew, which have
    values of the rows. Raise StorageBusy if something may still see what was removed, or keeps reading a table.
    """
    async with open_reader(lock_timeout=_LOCK_TIMEOUT) as reader:
        await _wait_for_holders(reader)
        for table in _TABLES:
            await _rewrite_table(reader, table)
        await reader.fetch(f"ANALYZE {', '.join(_TABLES)}")


async def _wait_for_holders(reader: Reader) -> None:
    [[now]] = await reader.fetch(_NOW)
    holders = await reader.fetch(_HOLDERS, now)
    with anyio.move_on_after(_WAIT_SECONDS):
        while holders:
            await anyio.sleep(0.1)
            holders = await reader.fetch(_HOLDERS, now)
    for (holder,) in holders:
        raise StorageBusy(
            f"{holder} may still see what was removed, so that PostgreSQL keeps it: end it, then repeat this"
        )


async def _rewrite_table(reader: Reader, table: str) -> None:
    for attempt in range(_ATTEMPTS_MAX):
        if attempt:
            await anyio.sleep(_PAUSE_SECONDS)
        try:
            await reader.fetch(f"VACUUM (FULL) {table}")
        except StorageBusy:
            continue
        return
    readers = await reader.fetch(_READING, table)
    who = readers[0][0] if readers else "another program"
    raise StorageBusy(f"{who} keeps the table {table} from being written anew: end it, then repeat this")
