"""Reading: connections to the primary that are lent to one question at a time.

Owns the pool. A new connection is believed after an empty commit that waits, and none is asked while a commit of
the writer is in doubt. What is lost with its connection is asked again. A question that is cancelled is
interrupted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import asyncpg

from bus.errors import StoreFailed

from .connecting import CLOSE_SECONDS_MAX, is_lost, refusal, translate
from .primary import ATTEMPTS_MAX, Primary

__all__ = ["Reader", "open_reader"]


class Reader:
    """Some connections for reading, with these settings; more questions wait for one of them."""

    def __init__(self, primary: Primary, connections_max: int, **settings: str) -> None:
        self._primary = primary
        self._settings = settings
        self._idle: list[asyncpg.Connection] = []
        self._free = anyio.Semaphore(connections_max)

    def __repr__(self) -> str:
        return f"<Reader {self._primary} idle={len(self._idle)}>"

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        """Return the rows of a query. Raise StoreFailed if they cannot be read, and InvalidValue."""
        async with self._free:
            for _ in range(ATTEMPTS_MAX):
                await self._primary.settled()
                connection = self._idle.pop() if self._idle else await self._reconnect()
                try:
                    with self._primary.waiting():
                        rows: list[Any] = await connection.fetch(sql, *values)
                except Exception as error:
                    if is_lost(connection, error):
                        connection.terminate()
                        continue
                    refused = refusal(error)
                    if isinstance(refused, asyncpg.PostgresError):
                        raise translate(refused) or StoreFailed(
                            f"PostgreSQL reported {refused.sqlstate}: {refused}"
                        ) from error
                    raise refused from error
                finally:
                    if not connection.is_closed():
                        self._idle.append(connection)
                return rows
        raise StoreFailed(f"the connection was lost {ATTEMPTS_MAX} times in one question; look at PostgreSQL's log")

    async def _reconnect(self) -> asyncpg.Connection:
        return await self._primary.reconnect(**self._settings)

    async def close(self) -> None:
        """Close the connections that are not in use. A server that does not answer is not waited for."""
        while self._idle:
            with suppress(TimeoutError, OSError, asyncpg.PostgresError):
                await self._idle.pop().close(timeout=CLOSE_SECONDS_MAX)


@asynccontextmanager
async def open_reader(primary: Primary, connections_max: int, **settings: str) -> AsyncIterator[Reader]:
    """Open a reader, and close it."""
    reader = Reader(primary, connections_max, **settings)
    try:
        yield reader
    finally:
        with anyio.CancelScope(shield=True):
            await reader.close()
