"""The write-ahead log: who is told that it grows, and when."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import anyio
import pytest

from bus.errors import StoreFailed
from bus.model.repository import AddMessages, HistoryRequest, MessageLog, StoreWatch, lots_of
from store import open_store
from store.sqlite.file.wal import WAL_KEPT_BYTES, Growth, WalLength, WalWatch, file_bytes

from ..contract.store.samples import add, at, direct, page, read_page

MEBIBYTE = 2**20

_SNAPSHOT_SECONDS = 0.1
"""Longer than a commit takes, so that a snapshot is older than the commit at whose end the WAL is copied back."""


def test_it_is_said_once_and_again_when_it_has_doubled() -> None:
    said: list[str] = []
    watch = WalWatch(Path("some.db"), StoreWatch(warn=said.append, wal_warning_bytes=10 * MEBIBYTE))
    counts: list[int] = []
    for size in (1, 9, 10, 15, 21, 41, 43, 44, 8, 30, 60):
        watch.look(size * MEBIBYTE)
        counts.append(len(said))
    assert counts == [0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 5]
    assert "some.db-wal has 10 MiB" in said[0]
    assert "fuser some.db" in said[0]


@pytest.mark.anyio
async def test_a_snapshot_that_another_program_holds_is_told_of_and_leaves_nothing(tmp_path: Path) -> None:
    path, wal = tmp_path / "log.db", tmp_path / "log.db-wal"
    told, said = anyio.Event(), list[str]()

    def warn(sentence: str) -> None:
        said.append(sentence)
        told.set()

    number = 0
    with anyio.fail_after(60):
        async with open_store(str(path), watch=StoreWatch(warn=warn, wal_warning_bytes=MEBIBYTE)) as store:

            async def write_past(size_bytes: int) -> None:
                nonlocal number
                while await file_bytes(wal) <= size_bytes:
                    number += 1
                    message = direct(f"m{number}", "ann", "bob", body=b'"%b"' % (b"x" * 200_000))
                    await store.log.apply([AddMessages(lots_of([message]), at(0))])

            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN")
                other.execute("SELECT count(*) FROM bots").fetchone()
                await write_past(WAL_KEPT_BYTES + 8 * MEBIBYTE)
                await told.wait()
            while await file_bytes(wal) > WAL_KEPT_BYTES:
                number += 1
                await store.log.apply([AddMessages(lots_of([direct(f"m{number}", "ann", "bob")]), at(0))])
    assert str(wal) in said[0]


@pytest.mark.anyio
async def test_those_who_ask_all_the_time_do_not_keep_it_growing(tmp_path: Path) -> None:
    """The worker's own readers are done in a moment, and between two moments the WAL begins anew."""
    wal, written, largest = tmp_path / "log.db-wal", 0, 0
    with anyio.fail_after(60):
        async with open_store(str(tmp_path / "log.db")) as store, anyio.create_task_group() as tasks:
            asked = anyio.Event()

            async def ask() -> None:
                while True:
                    await store.log.history(HistoryRequest(limit=8, between=("ann", "bob")))
                    asked.set()

            async def read_pages() -> None:
                while True:
                    await read_page(store.log, page("bob", ("", 0), messages_max=8))

            tasks.start_soon(ask)
            tasks.start_soon(read_pages)
            while written < 1.5 * WAL_KEPT_BYTES:
                written += 200_000
                message = direct(f"m{written}", "ann", "bob", body=b'"%b"' % (b"x" * 200_000))
                await store.log.apply([AddMessages(lots_of([message]), at(0))])
                largest = max(largest, await file_bytes(wal))
            await asked.wait()
            tasks.cancel_scope.cancel()
    assert largest <= WAL_KEPT_BYTES, f"{largest} bytes"


@pytest.mark.anyio
async def test_short_readers_of_another_program_that_overlap_do_not_keep_it_growing(tmp_path: Path) -> None:
    """None of them lasts, but at every moment one of them has a snapshot, and the WAL could never begin anew."""
    path, wal = tmp_path / "log.db", tmp_path / "log.db-wal"
    written, largest = 0, 0
    with anyio.fail_after(60):
        async with open_store(str(path)) as store:
            with _Overlapping(path) as readers:
                while written < 2 * WAL_KEPT_BYTES:
                    written += 200_000
                    message = direct(f"m{written}", "ann", "bob", body=b'"%b"' % (b"x" * 200_000))
                    await store.log.apply([AddMessages(lots_of([message]), at(0))])
                    largest = max(largest, await file_bytes(wal))
            assert readers.snapshots > 2
    # A machine that stands still may let the writer's first wait run out; the second is half as much later.
    assert largest <= 1.5 * WAL_KEPT_BYTES + MEBIBYTE, f"{largest} bytes"


class _Overlapping:
    """Two connections in a thread that read in turns, each of which begins before the other one ends."""

    def __init__(self, path: Path) -> None:
        self.snapshots = 0
        self._path = path
        self._over = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _read(self) -> None:
        with (
            closing(sqlite3.connect(self._path, isolation_level=None)) as first,
            closing(sqlite3.connect(self._path, isolation_level=None)) as second,
        ):
            reading, next_one = first, second
            self._begin(reading)
            self._begun.set()
            while not self._over.wait(_SNAPSHOT_SECONDS):
                self._begin(next_one)
                reading.execute("COMMIT")
                reading, next_one = next_one, reading
            reading.execute("COMMIT")

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM bots").fetchone()
        self.snapshots += 1


@pytest.mark.anyio
async def test_a_checkpoint_that_fails_for_good_ends_what_is_served(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a checkpoint, so nobody would learn that the disk has failed."""

    async def fail(connection: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def serve() -> None:
        async with open_store(str(path)) as store:
            await add(store.log, direct("a", "ann", "bob"))
            await anyio.sleep_forever()

    monkeypatch.setattr("store.sqlite.file.writer.copy_back", fail)
    monkeypatch.setattr(Growth, "look", lambda self, size_bytes: WalLength.LONGER)
    with anyio.fail_after(30), pytest.raises(StoreFailed, match="disk I/O error"):
        await serve()


@pytest.mark.anyio
async def test_sizes_are_those_of_the_files(log: MessageLog) -> None:
    await add(log, *(direct(f"{n}", "ann", "bob") for n in range(3)))
    sizes = await log.sizes()
    assert sizes["messages"] == 3
    assert min(sizes["database_bytes"], sizes["wal_bytes"]) > 0
