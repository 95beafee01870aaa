"""A worker that takes less care of its disk than it promises: what the tests of power cuts have to find out.

    python -m tests.crash.careless_worker unsynced serve ...

Owns the lies. Each changes words that the worker says to SQLite, and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import aiosqlite

import worker

from ..integration.wire_worker import SERVE

__all__ = ["LIES", "careless", "main"]

LIES = {
    "unsynced": ("synchronous = FULL", "synchronous = NORMAL"),
    "unchecked": ("wal_checkpoint(TRUNCATE)", "query_only"),
}
"""`unsynced` does not wait for a commit's sync; `unchecked` does not copy back what it finds in the WAL at its start.

(`query_only` answers as a checkpoint does that nobody was in the way of: with a 0.)"""


def careless(lie: str) -> list[str]:
    """Give what serves with this lie, in any folder."""
    return [SERVE[0], "-m", "tests.crash.careless_worker", lie, *SERVE[3:]]


def _lying(method: Any, lie: str) -> Any:
    truth, instead = LIES[lie]

    def said(connection: aiosqlite.Connection, sql: str, *arguments: Any, **options: Any) -> Any:
        return method(connection, sql.replace(truth, instead), *arguments, **options)

    return said


def main() -> None:
    """Serve with a lie."""
    lie = sys.argv.pop(1)
    for name in ("execute", "execute_fetchall"):
        setattr(aiosqlite.Connection, name, _lying(getattr(aiosqlite.Connection, name), lie))
    worker.main()


if __name__ == "__main__":
    main()
