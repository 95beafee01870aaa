"""Migrates a database as a store does, and kills itself before one of its statements, or within one.

    python -m tests.store.migration_program FILE STATEMENT [STEPS]

STATEMENT is a part of its SQL. With STEPS, the kill comes after so many steps of SQLite within it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from pathlib import Path

import anyio

from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.schema import migrate

_STEPS_A_CALL = 100


async def main(path: Path, part: str, steps: int) -> None:
    """Migrate, and die on the way."""

    def arm(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA cache_size = 10")  # so that much of the migration is in the WAL by then

        left: float = float("inf")

        def trace(sql: str) -> None:
            nonlocal left
            left = steps if part in sql else float("inf")
            progress(0)

        def progress(taken: int = _STEPS_A_CALL) -> int:
            nonlocal left
            left -= taken
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        connection.set_trace_callback(trace)
        connection.set_progress_handler(progress, _STEPS_A_CALL)

    connection = StoreConnection(path, isolation_level="IMMEDIATE")
    async with connection:
        await connection.run(arm)
        await migrate(connection)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0)
