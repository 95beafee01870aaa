"""Giving free pages of the file back to the system, while it is written.

Owns what makes this possible: a database that was prepared for it records which page refers to each other one. So
its last pages can be moved into free ones, some in each transaction, and it ends before them. Its file becomes
shorter at the next checkpoint that nobody prevents. The file of an earlier version is made such a one when it is
written anew (`scrubbing`). Killed in between, the file is as it was after one of the transactions.
"""

from __future__ import annotations

import sqlite3

from bus.errors import StorageBusy
from bus.model.compacting import Compacted

from ...portions import FREED_PAGES
from .connection import StoreConnection
from .writer import Transaction, begin_wal_anew

__all__ = ["give_back", "prepare_to_compact", "shorten"]

_INCREMENTAL = 2


async def prepare_to_compact(connection: StoreConnection) -> None:
    """Have a file without pages record what refers to which; another one does so from its next VACUUM on."""
    [[mode]] = await connection.execute_fetchall("PRAGMA auto_vacuum")
    if mode != _INCREMENTAL:  # saying it again would write a page at every start
        await connection.execute("PRAGMA auto_vacuum = INCREMENTAL")


async def give_back(transaction: Transaction, *, dry_run: bool) -> Compacted:
    """Move some of the last pages into free ones, unless this is a dry run or the file cannot be compacted so."""
    connection = transaction.connection
    room = await connection.run(_room)
    if dry_run or not room.free_bytes or not room.in_portions:
        return room
    if not connection.in_transaction:
        await connection.execute("BEGIN IMMEDIATE")
    after = await connection.run(_move)
    freed_bytes = room.free_bytes - after.free_bytes
    transaction.body_bytes += 2 * freed_bytes  # each page that moves, and one that refers to it
    return Compacted(after.database_bytes, after.free_bytes, freed_bytes)


def _room(connection: sqlite3.Connection) -> Compacted:
    names = "page_size", "page_count", "freelist_count", "auto_vacuum"
    size, pages, free, mode = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return Compacted(pages * size, free * size, in_portions=mode == _INCREMENTAL)


def _move(connection: sqlite3.Connection) -> Compacted:
    for _ in range(FREED_PAGES):  # each step of a statement frees one, and Python's sqlite3 makes only the first
        connection.execute("PRAGMA incremental_vacuum(1)")
    return _room(connection)


async def shorten(connection: StoreConnection) -> None:
    """Let the file end where the database does. Raise StorageBusy if another program reads what was behind."""
    if not await begin_wal_anew(connection):
        raise StorageBusy(
            "another program reads the database, so its file cannot become smaller yet; repeat this when it is done"
        )
