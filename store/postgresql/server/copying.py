"""COPY: the cheapest way to append rows.

Owns what asyncpg leaves behind when a session ends unnoticed before it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import asyncpg

__all__ = ["copy"]


async def copy(
    connection: asyncpg.Connection, table: str, *, records: Sequence[tuple[Any, ...]], columns: Sequence[str]
) -> None:
    """Append rows to a table, with these columns. Raise as any statement of the connection does."""
    try:
        await connection.copy_records_to_table(table, records=records, columns=columns)
    except Exception:
        # If the server has said that the session is over, asyncpg fails before it waits for a future that it made.
        # Nobody else knows of it, and asyncio would report its error as one that nobody saw.
        for each in gc.get_referents(connection._protocol):  # noqa: SLF001
            if isinstance(each, asyncio.Future):
                each.add_done_callback(_see)
        raise


def _see(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
