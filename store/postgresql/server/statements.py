"""The statements of all backends, in PostgreSQL: it writes their parameters as `$1`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from ...statements import Statements
from .reader import Reader

__all__ = ["statements_on"]


def statements_on(connection: Reader | asyncpg.Connection) -> Statements:
    """Return what runs them on a connection."""

    async def run(sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await connection.fetch(sql.replace("?", "$"), *values)
        return rows

    return run
