"""The statements of all backends, in SQLite: it knows their parameters as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiosqlite

from ...statements import Statements
from .reader import Reader

__all__ = ["statements_on"]


def statements_on(connection: Reader | aiosqlite.Connection) -> Statements:
    """Return what runs them on a connection."""

    async def run(sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        return list(await connection.execute_fetchall(sql, values))

    return run
