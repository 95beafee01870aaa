"""A reading connection: it raises our errors, and holds no snapshot.

Owns the handling of damaged text, and one rule: a statement is read to its end in one turn of the database's
thread. An open statement would hold its snapshot, and all other reads of the connection would miss commits that
were acknowledged since. So no cursor is exposed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

import anyio
import msgspec

from bus.errors import StoreClosed

from .connection import StoreConnection
from .failures import translate

__all__ = ["Reader", "is_text", "lenient_text"]

_T = TypeVar("_T")


def lenient_text(text: bytes) -> str:
    """Decode text that may not be UTF-8, as a `text_factory`: an exception would hide the other rows."""
    return text.decode("utf-8", "surrogateescape")


def is_text(row: Sequence[Any]) -> bool:
    """Return True if all texts of a row, as read by `lenient_text`, were UTF-8."""
    try:
        msgspec.msgpack.encode(row)
    except UnicodeEncodeError:
        return False
    return True


class Reader:
    """One reading connection. Tasks may share it, unless it is one's `alone`; their statements take turns."""

    def __init__(self, connection: StoreConnection, *, alone: bool = False) -> None:
        self._connection = connection
        self._alone = alone
        self._closed = False

    def __repr__(self) -> str:
        return f"<Reader {'closed' if self._closed else 'open'}>"

    async def fetch_portion(
        self, statements: Sequence[tuple[str, Sequence[Any]]], bytes_max: int
    ) -> tuple[list[sqlite3.Row], bool]:
        """Return the first rows of statements, and whether there are more; raise like `execute_fetchall`.

        It stops before the row with which their texts would exceed `bytes_max` characters, but not before the
        first.
        """
        if self._closed:
            raise StoreClosed("the store is closed")

        def fetch(connection: sqlite3.Connection) -> tuple[list[sqlite3.Row], bool]:
            found: list[sqlite3.Row] = []
            size = 0
            for sql, parameters in statements:
                with closing(connection.execute(sql, parameters)) as cursor:
                    for row in cursor:
                        size += sum(len(value) for value in row if isinstance(value, str))
                        if found and size > bytes_max:
                            return found, True
                        found.append(row)
            return found, False

        return await self._run(fetch)

    async def execute_fetchall(
        self, sql: str, parameters: Sequence[Any] = (), *, value_bytes_max: int | None = None
    ) -> list[sqlite3.Row]:
        """Return all rows of a statement. Raise StoreFailed if the disk fails, and StoreClosed once closed.

        Raise sqlite3.DataError if a value, or a row, has more than `value_bytes_max` bytes. If the connection is
        one task's alone, cancelling that interrupts the statement: the next need not wait.
        """
        if self._closed:
            raise StoreClosed("the store is closed")

        def execute(connection: sqlite3.Connection) -> list[sqlite3.Row]:
            if value_bytes_max is None:
                return connection.execute(sql, parameters).fetchall()
            most = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, value_bytes_max)
            try:
                return connection.execute(sql, parameters).fetchall()
            finally:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)

        return await self._run(execute)

    async def _run(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return await self._connection.run(read)
        except anyio.get_cancelled_exc_class():
            if self._alone:
                await self._connection.interrupt()
            raise
        except sqlite3.Error as error:
            failure = translate(error)
            if failure is None:
                raise
            raise failure from error

    def close(self) -> None:
        """Accept no more statements; the connection is closed by its opener."""
        self._closed = True
