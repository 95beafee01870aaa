"""A reading connection: it raises our errors, and it holds no snapshot.

Owns what is made of a text that is damaged, and one rule: a statement is read to its end in one turn of the
database's thread. An open one would hold its snapshot, and every other read of the connection would miss what was
committed, and answered, since. Hence there is no cursor to be had here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import aiosqlite
import msgspec

from bus.errors import StoreClosed

from .writer import translate

__all__ = ["Reader", "is_text", "lenient_text"]


def lenient_text(text: bytes) -> str:
    """Read a text that may be no UTF-8, for a `text_factory`: an exception would hide the rows beside it."""
    return text.decode("utf-8", "surrogateescape")


def is_text(row: Sequence[Any]) -> bool:
    """Return True if every text of a row, as `lenient_text` read it, was UTF-8."""
    try:
        msgspec.msgpack.encode(row)
    except UnicodeEncodeError:
        return False
    return True


class Reader:
    """One reading connection. It may be asked by many tasks; their statements take turns."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._closed = False

    def __repr__(self) -> str:
        return f"<Reader {'closed' if self._closed else 'open'}>"

    async def execute_fetchall(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Return all rows of a statement. Raise StoreFailed if the disk fails, StoreClosed at the end."""
        if self._closed:
            raise StoreClosed("the store is closed")
        try:
            return list(await self._connection.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            failure = translate(error)
            if failure is None:
                raise
            raise failure from error

    def close(self) -> None:
        """Accept no more questions; the connection is closed by who opened it."""
        self._closed = True
