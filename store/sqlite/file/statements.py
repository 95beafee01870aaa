"""The statements of all backends, in SQLite: it knows their parameters as they are written, but for lists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import aiosqlite

from ...statements import Statements
from .reader import Reader

__all__ = ["statements_on"]


def statements_on(connection: Reader | aiosqlite.Connection) -> Statements:
    """Return what runs them on a connection."""
    return _Statements(connection)


class _Statements:
    def __init__(self, connection: Reader | aiosqlite.Connection) -> None:
        self._connection = connection

    async def __call__(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        parameters = [json.dumps(value) if isinstance(value, list | tuple) else value for value in values]
        return list(await self._connection.execute_fetchall(_in_sqlite(sql), parameters))

    async def each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        assert not isinstance(self._connection, Reader)
        await self._connection.executemany(_in_sqlite(sql), rows)


@cache
def _in_sqlite(sql: str) -> str:
    # A condition of a partial index is 0 or 1, and is not recognized under another name.
    sql = sql.replace("[", "(SELECT value FROM json_each(").replace("]", "))")
    return sql.replace("TRUE", "1").replace("FALSE", "0")
