"""Reading the log of a database for an export, which a worker may be using (`bus.model.databases.LogReader`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from bus.errors import DatabaseUnusable
from bus.model.databases import LogExtent
from bus.model.repository import FindRequest, LogMessage

from ..message_rows import intact, message_of
from ..urls import shown
from .messages.finding import find_thread
from .messages.rows import COLUMNS, read_row
from .server.connecting import SCHEMA, connect, is_lost, make_safe, unreachable

__all__ = ["PostgresqlLogReader", "open_log"]

_MESSAGES_A_PORTION = 256
"""Read at once: of the largest messages, what fits into memory."""

_PORTION = f"SELECT {COLUMNS} FROM bot_messages WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3"

_END = "SELECT epoch, last_seq FROM log CROSS JOIN log_end"

_BOTS = "SELECT id, name FROM bots"

_EXISTS = "SELECT to_regclass($1) IS NOT NULL"


class PostgresqlLogReader:
    """See `bus.model.databases.LogReader`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def end(self) -> LogExtent:
        """See the protocol."""
        return LogExtent(*await self._connection.fetchrow(_END))

    async def names(self) -> dict[str, str]:
        """See the protocol."""
        return dict(map(tuple, await self._connection.fetch(_BOTS)))

    async def thread(self, request: FindRequest, through_seq: int) -> list[int]:
        """See the protocol."""
        return await find_thread(self._connection, request, through_seq + 1, through_seq)

    async def portion(self, after_seq: int, through_seq: int) -> list[tuple[int, LogMessage | None]]:
        """See the protocol."""
        found = await self._connection.fetch(_PORTION, after_seq, through_seq, _MESSAGES_A_PORTION)
        rows = map(read_row, found)
        return [(row[0], message_of(row) if intact(row) else None) for row in rows]


@asynccontextmanager
async def open_log(url: str) -> AsyncIterator[PostgresqlLogReader]:
    """Open the log of a database. Raise DatabaseUnusable, and StoreFailed if the server cannot be reached."""
    try:
        connection, *_ = await connect(url)
        try:
            await make_safe(connection)
            if not await connection.fetchval(_EXISTS, f"{SCHEMA}.log_end"):
                raise DatabaseUnusable(f"there is no store at {shown(url)}: nothing can be exported")
            yield PostgresqlLogReader(connection)
        finally:
            connection.terminate()
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise DatabaseUnusable(f"{shown(url)} was made by another version ({error}): serve it once") from error
    except Exception as error:
        if is_lost(None, error):
            raise unreachable(url, error) from error
        raise
