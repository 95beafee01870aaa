"""A store in a process that may open no more files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store import open_store
from store.repository import AddMessages, HistoryRequest

from .samples import at, direct, page

pytestmark = pytest.mark.anyio


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open nothing within the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_an_open_store_needs_no_more_of_them(tmp_path: Path) -> None:
    """What nobody did before works as well: the first page that is read, the first question, the first message."""
    first_page = page("bob", ("", 0))
    async with open_store(str(tmp_path / "log.db")) as store:
        with no_descriptor_left():
            with pytest.raises(OSError, match="Too many open files"):
                os.open(os.devnull, os.O_RDONLY)
            assert not (await store.log.read_page(first_page)).messages
            await store.log.apply([AddMessages([direct("m", "ann", "bob")], at(1))])
            assert len((await store.log.read_page(first_page)).messages) == 1
            assert len(await store.log.history(HistoryRequest(limit=8, between=("ann", "bob")))) == 1
