"""A connection whose thread can be given several statements at once.

Each call of aiosqlite is a turn of the connection's thread, and costs two changes of threads beside a busy event
loop. What belongs together is therefore one function that runs there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

__all__ = ["Statement", "StoreConnection", "execute_all"]

Statement = tuple[str, Sequence[Any]]
"""SQL with its values."""

_ROWS_A_CHUNK = 64
"""What `aiosqlite.connect` gives its connections: how many rows an iteration fetches at once."""

T = TypeVar("T")


class StoreConnection(aiosqlite.Connection):
    """See the module. `options` are those of `sqlite3.connect`; await it, or enter it, to connect."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(lambda: sqlite3.connect(path, **options), iter_chunk_size=_ROWS_A_CHUNK)

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with the connection, on its thread, in one turn; return and raise what it does."""
        result: T = await self._execute(function, self._conn)  # type: ignore[no-untyped-call]
        return result

    async def execute_all(self, statements: Sequence[Statement]) -> None:
        """Carry out statements in one turn; none, if there are none."""
        if statements:
            await self.run(lambda connection: execute_all(connection, statements))


def execute_all(connection: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    """Carry out statements, on the connection's own thread."""
    for sql, values in statements:
        connection.execute(sql, values)
