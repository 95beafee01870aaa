"""Which event loops the SQLite store is tested on (aiosqlite knows no other), and where its file lies.

A worker opens it on uvloop. The writer, where tasks meet, is tested on both, and the stores of `bus.testing`, which
many other tests use, are on asyncio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.model.repository import MessageLog, Store
from store import open_store

from ..engines import new_file

UVLOOP: tuple[str, dict[str, Any]] = ("asyncio", {"use_uvloop": True})
ASYNCIO: tuple[str, dict[str, Any]] = ("asyncio", {"use_uvloop": False})

on_both_loops = pytest.mark.parametrize("anyio_backend", [UVLOOP, ASYNCIO], ids=["uvloop", "asyncio"])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return UVLOOP


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "posthouse.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with open_store(str(new_file(path))) as store:
        yield store


@pytest.fixture
def log(store: Store) -> MessageLog:
    return store.log
