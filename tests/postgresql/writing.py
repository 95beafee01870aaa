"""Small transactions of a database, and how a test waits until a server does something."""

from __future__ import annotations

import anyio

from store.postgresql.server.database import Database
from store.postgresql.server.writer import Operation, Transaction

from .cluster import Node

HAPPENS_SECONDS_MAX = 60.0


def adding(name: str) -> Operation[int]:
    """Return an operation that adds a channel, and answers with the number of channels."""

    async def operation(transaction: Transaction) -> int:
        await transaction.connection.execute("INSERT INTO bot_channels VALUES ($1, '', '')", name)
        return int(await transaction.connection.fetchval("SELECT count(*) FROM bot_channels"))

    return operation


async def channels(database: Database) -> list[str]:
    """Return the names of all channels, as a reader sees them."""
    return [row[0] for row in await database.read.fetch("SELECT name FROM bot_channels ORDER BY name")]


async def happens(node: Node, sql: str, database: str = "postgres") -> str:
    """Wait until a query of an operator has a row, and return it."""
    with anyio.fail_after(HAPPENS_SECONDS_MAX):
        while True:
            rows = await anyio.to_thread.run_sync(node.query, sql, database)
            if rows:
                return rows[0]
            await anyio.sleep(0.02)


async def waiting(node: Node, sessions: int = 1) -> str:
    """Wait until so many sessions wait for a standby, and return the process id of one."""
    return await happens(
        node,
        "SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'posthouse' AND wait_event = 'SyncRep'"
        f" HAVING count(*) >= {sessions}",
    )
