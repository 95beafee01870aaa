"""Reading the log of a file for an export, which a worker may be using (`bus.model.databases.LogReader`).

Each portion is read at a moment of its own, so that the worker can checkpoint its WAL in between. This must not run
in a worker's process: closing the file there would drop the worker's locks.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bus.errors import DatabaseUnusable
from bus.model.databases import LogExtent
from bus.model.repository import FindRequest, LogMessage

from .file.connection import StoreConnection
from .file.place import find_place
from .file.read_only import UNREADABLE, open_read_only, unreadable
from .file.reader import Reader, lenient_text
from .file.schema import TRUST_NOTHING
from .messages.finding import find_thread
from .messages.rows import fetch_each

__all__ = ["SqliteLogReader", "open_log"]

_MESSAGES_A_PORTION = 256
"""Read at once: of the largest messages, what fits into memory."""

_PORTION = "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"

_END = "SELECT epoch, (SELECT COALESCE(MAX(seq), 0) FROM bot_messages) FROM log"

_BOTS = "SELECT id, name FROM bots"


class SqliteLogReader:
    """See `bus.model.databases.LogReader`."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self._path = path
        self._reader = reader

    def __repr__(self) -> str:
        return f"<SqliteLogReader {self._path}>"

    async def end(self) -> LogExtent:
        """See the protocol."""
        [[epoch, last_seq]] = await self._read(_END)
        return LogExtent(epoch, last_seq)

    async def names(self) -> dict[str, str]:
        """See the protocol."""
        return dict(map(tuple, await self._read(_BOTS)))

    async def thread(self, request: FindRequest, through_seq: int) -> list[int]:
        """See the protocol."""
        return await find_thread(self._reader, request, through_seq + 1, through_seq)

    async def portion(self, after_seq: int, through_seq: int) -> list[tuple[int, LogMessage | None]]:
        """See the protocol."""
        try:
            return await fetch_each(self._reader, _PORTION, (after_seq, through_seq, _MESSAGES_A_PORTION))
        except UNREADABLE as error:
            raise unreadable(self._path, error) from error

    async def _read(self, sql: str) -> list[Any]:
        try:
            return await self._reader.execute_fetchall(sql)
        except UNREADABLE as error:
            raise unreadable(self._path, error) from error


@asynccontextmanager
async def open_log(path: Path) -> AsyncIterator[SqliteLogReader]:
    """Open the log of a file; raise as `open_read_only` does, and DatabaseUnusable if a worker began meanwhile."""
    place = find_place(path)
    alone = not place.wal.exists()
    open_read_only(place.database, alone=alone).close()
    mode = "mode=ro&immutable=1" if alone else "mode=ro"
    uri: Any = f"{place.database.as_uri()}?{mode}"
    connection = StoreConnection(uri, uri=True, isolation_level=None)
    async with connection:
        await connection.run(_prepare)
        yield SqliteLogReader(path, Reader(connection))
    if alone and place.wal.exists():
        raise DatabaseUnusable(f"a worker has begun to serve {path} meanwhile: run this again")


def _prepare(connection: sqlite3.Connection) -> None:
    connection.text_factory = lenient_text
    connection.execute(TRUST_NOTHING)
