"""Giving free pages of the file back: in portions, while others write, and only if the file can be compacted so."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from bus.errors import Conflict, StorageBusy
from bus.model.repository import AddMessages, MessageLog, RemoveMessages, Store, lots_of
from store import open_store
from store.portions import FREED_PAGES
from store.sqlite.check import Check
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.schema import migrate

from ..contract.store.samples import at, direct

pytestmark = pytest.mark.anyio

LARGE = b'"%b"' % (b"x" * 4000)
"""A body that takes a page or two."""

COUNT = 5 * FREED_PAGES


async def fill_and_empty(log: MessageLog) -> None:
    """Fill the file, and remove most of what is in it: but for every tenth message, and the last one."""
    messages = [direct(f"m{number}", "ann", "bob", body=LARGE) for number in range(1, COUNT + 1)]
    await log.apply([AddMessages(lots_of(messages), at(0))])
    await log.apply([RemoveMessages(tuple(seq for seq in range(1, COUNT) if seq % 10))])


async def compact(log: MessageLog) -> int:
    """Free all pages that can be freed; return how many portions that took."""
    portions = 1
    while (await log.compact(dry_run=False)).free_bytes:
        portions += 1
    return portions


def size_bytes(path: Path) -> int:
    return path.stat().st_size


def damage(path: Path) -> list[str]:
    check = Check(path)
    for _ in check.run():
        pass
    return check.damage


async def test_what_is_free_is_given_back_in_portions(path: Path, store: Store) -> None:
    await fill_and_empty(store.log)
    before = await store.log.compact(dry_run=True)
    assert before.free_bytes > COUNT * 4096 // 2
    first = await store.log.compact(dry_run=False)
    assert 0 < first.freed_bytes <= FREED_PAGES * 4096
    assert first.free_bytes == before.free_bytes - first.freed_bytes
    assert await compact(store.log) >= 2
    after = await store.log.compact(dry_run=True)
    assert (after.free_bytes, after.freed_bytes) == (0, 0)
    assert size_bytes(path) == after.database_bytes <= before.database_bytes - before.free_bytes
    kept = {message.seq for message in await store.log.messages(range(1, COUNT + 1))}
    assert kept == {*range(10, COUNT, 10), COUNT}
    assert damage(path) == []


async def test_others_write_between_two_portions(path: Path, store: Store) -> None:
    await fill_and_empty(store.log)
    written: list[int] = []

    async def write() -> None:
        while not compacted.is_set():
            message = direct(f"n{len(written)}", "ann", "bob")
            await store.log.apply([AddMessages(lots_of([message]), at(1))])
            written.append(1)

    compacted = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        portions = await compact(store.log)
        during = len(written)
        compacted.set()
    assert during >= portions // 2
    assert damage(path) == []


async def test_a_dry_run_gives_nothing_back(path: Path, store: Store) -> None:
    await fill_and_empty(store.log)
    room = await store.log.compact(dry_run=True)
    assert (room.free_bytes > 0, room.in_portions) == (True, True)
    assert await store.log.compact(dry_run=True) == room


async def test_nothing_is_acknowledged_less_by_it(path: Path) -> None:
    async with open_store(str(path)) as store:
        await fill_and_empty(store.log)
        await store.log.compact(dry_run=False)
        await store.log.apply([AddMessages(lots_of([direct("last", "ann", "bob")]), at(2))])
        copy = path.with_name("copy.db")
        for suffix in ("", "-wal"):  # as a kill leaves them
            copy.with_name(f"copy.db{suffix}").write_bytes(path.with_name(f"{path.name}{suffix}").read_bytes())
    async with open_store(str(copy)) as store:
        assert [message.id for message in await store.log.messages([COUNT + 1])] == ["last"]
        await compact(store.log)
    assert damage(copy) == []


async def test_who_reads_an_earlier_state_keeps_the_file_from_becoming_smaller(path: Path, store: Store) -> None:
    await fill_and_empty(store.log)
    room = await store.log.compact(dry_run=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        [[read]] = other.execute("SELECT COUNT(*) FROM bot_messages").fetchall()
        with pytest.raises(StorageBusy, match="another program reads"):
            await compact(store.log)
        await store.log.apply([AddMessages(lots_of([direct("last", "ann", "bob")]), at(2))])
        assert other.execute("SELECT COUNT(*) FROM bot_messages").fetchall() == [(read,)]
    assert await compact(store.log) == 1
    assert size_bytes(path) <= room.database_bytes - room.free_bytes


# ── Files of earlier versions ────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def earlier(path: Path) -> AsyncIterator[Store]:
    """A store in a file that an earlier version made."""
    connection = StoreConnection(path, isolation_level="IMMEDIATE")
    await connection
    await migrate(connection)
    await connection.close()
    async with open_store(str(path)) as store:
        yield store


async def test_the_file_of_an_earlier_version_is_left_and_the_way_out_is_named(earlier: Store) -> None:
    await fill_and_empty(earlier.log)
    room = await earlier.log.compact(dry_run=True)
    assert (room.free_bytes > 0, room.in_portions) == (True, False)
    with pytest.raises(Conflict, match="compact --whole"):
        await earlier.log.compact(dry_run=False)
    assert await earlier.log.compact(dry_run=True) == room


async def test_it_can_be_compacted_once_it_was_written_anew(path: Path, earlier: Store) -> None:
    await fill_and_empty(earlier.log)
    await earlier.log.scrub(at(3))
    room = await earlier.log.compact(dry_run=True)
    assert (room.free_bytes, room.in_portions, size_bytes(path)) == (0, True, room.database_bytes)
    await earlier.log.apply([RemoveMessages(tuple(range(1, COUNT)))])
    assert await compact(earlier.log) >= 1
    assert size_bytes(path) < room.database_bytes
    assert damage(path) == []
