"""What an error of SQLite means: which of our errors it is."""

from __future__ import annotations

import sqlite3

from bus.errors import Conflict, NotFound, Refused, StorageBusy, StorageFull, StoreError, StoreFailed

__all__ = ["refusal", "translate"]


def translate(error: sqlite3.Error) -> StoreError | None:
    """Return our error for a SQLite error about the disk or a lock, or None for any other."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return StorageFull("the disk is full; nothing was stored")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageBusy("another program holds the database's write lock; nothing was stored")
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY):
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        return StoreFailed(f"the database reported {name}: {error}")
    return None


def refusal(error: sqlite3.IntegrityError, *, missing: NotFound, conflict: str | None = None) -> Refused:
    """Return our error for a broken constraint: `missing` for a foreign key, or a Conflict for any other."""
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return missing
    return Conflict(conflict or str(error))
