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

    async def run(sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await connection.fetch(_in_postgresql(sql), *values)
        return rows

    return run


@cache
def _in_postgresql(sql: str) -> str:
    return sql.replace("IN [", "= ANY (").replace("]", ")").replace("?", "$")
