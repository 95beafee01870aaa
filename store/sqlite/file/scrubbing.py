"""Leaving nothing in the file of what was removed.

Owns the way. SQLite overwrites what it removes only if it is told so, and even then copies of a row may be left in
unused parts of pages, from when the tree was balanced. So the file is built anew from what is in it, and its WAL is
emptied. Nothing is written meanwhile; readers go on. Killed in between, the file is as it was before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosqlite

from bus.errors import StorageBusy, StorageFull

from .connection import StoreConnection
from .failures import translate

__all__ = ["overwriting", "scrub"]


@asynccontextmanager
async def overwriting(connection: aiosqlite.Connection) -> AsyncIterator[None]:
    """Overwrite with zeros what is removed within this block. It costs writing the pages that become free."""
    [[before]] = await connection.execute_fetchall("PRAGMA secure_delete")
    await connection.execute_fetchall("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        await connection.execute_fetchall(f"PRAGMA secure_delete = {before}")


async def scrub(connection: StoreConnection) -> None:
    """Build the file anew, and empty its WAL. There must be no transaction.

    Raise StorageBusy if another program reads the database, and StorageFull if there is no room.
    """
    # In memory, as other temporary data, it would need as much of that as the file is large.
    await connection.execute_fetchall("PRAGMA temp_store = FILE")
    try:
        await connection.execute_fetchall("VACUUM")
        [[busy, _, _]] = await connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        if translate(error) is None:
            raise StorageFull(f"the database cannot be built anew: {error}; make room for a copy of it") from error
        raise
    finally:
        await connection.execute_fetchall("PRAGMA temp_store = MEMORY")
    if busy:
        raise StorageBusy("another program reads the database, so its WAL still has what was removed; repeat this")
