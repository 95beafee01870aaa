"""A store in a process that may open no more files."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus.errors import StoreError, StoreFailed
from bus.model.repository import AddMessages, HistoryRequest, lots_of
from store import open_store

from ..contract.store.samples import at, direct, page, read_page

pytestmark = pytest.mark.anyio


@contextmanager
def descriptors_left(number: int = 0) -> Iterator[None]:
    """Let this process open so many files within the block, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_open_store_needs_no_more_of_them(tmp_path: Path) -> None:
    """What nobody did before works as well: the first page that is read, the first question, the first message."""
    first_page = page("bob", ("", 0))
    async with open_store(str(tmp_path / "log.db")) as store:
        with descriptors_left():
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            assert not (await read_page(store.log, first_page)).messages
            await store.log.apply([AddMessages(lots_of([direct("m", "ann", "bob")]), at(1))])
            assert len((await read_page(store.log, first_page)).messages) == 1
            assert len(await store.log.history(HistoryRequest(limit=8, between=("ann", "bob")))) == 1


async def test_a_batch_of_any_size_needs_no_more_of_them(tmp_path: Path) -> None:
    """SQLite keeps what a statement of many rows overwrites, from 64 KiB on in a file, unless told not to."""

    def batch(number: int) -> AddMessages:
        body = b'"%b"' % (b"x" * 2000)
        names = [f"m{number}-{place}" for place in range(100)]
        return AddMessages(lots_of([direct(name, f"s{name}", f"r{name}", body=body) for name in names]), at(number))

    async with open_store(str(tmp_path / "log.db")) as store:
        await store.log.apply([batch(number) for number in range(5)])
        with descriptors_left():
            await store.log.apply([batch(number) for number in range(5, 10)])
        assert (await store.log.sizes())["messages"] == 1000


@pytest.mark.parametrize("killed", [False, True])
async def test_a_store_that_cannot_be_opened_for_want_of_them_is_not_called_damaged(
    tmp_path: Path, killed: bool
) -> None:
    """A worker that was killed leaves a WAL, which is opened as well when the file is looked at."""
    path = str(tmp_path / "log.db")
    async with open_store(path) as store:
        await store.log.apply([AddMessages(lots_of([direct("m", "ann", "bob")]), at(1))])
        if killed:
            for suffix in ("", "-wal", "-shm"):
                shutil.copy(f"{path}{suffix}", tmp_path / f"killed.db{suffix}")
            path = str(tmp_path / "killed.db")
    failures: list[StoreError] = []
    for number in range(20):
        with descriptors_left(number):
            try:
                async with open_store(path):
                    break
            except StoreError as error:
                failures.append(error)
    assert len(failures) > 3
    assert [error for error in failures if not isinstance(error, StoreFailed)] == []
