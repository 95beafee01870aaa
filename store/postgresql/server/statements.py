"""The statements of all backends, in PostgreSQL: it writes their parameters as `$1`, and lists as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import asyncpg

from ...statements import Statements
from .reader import Reader

__all__ = ["statements_on"]


def statements_on(connection: Reader | asyncpg.Connection) -> Statements:
    """Return what runs them on a connection."""
    return _Statements(connection)


class _Statements:
    def __init__(self, connection: Reader | asyncpg.Connection) -> None:
        self._connection = connection

    async def __call__(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await self._connection.fetch(_in_postgresql(sql), *values)
        return rows

    async def each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        assert not isinstance(self._connection, Reader)
        await self._connection.executemany(_in_postgresql(sql), rows)


@cache
def _in_postgresql(sql: str) -> str:
    return sql.replace("IN [", "= ANY (").replace("]", ")").replace("?", "$")
