"""Which event loops the SQLite store is tested on (aiosqlite knows no other), and where its file lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.model.repository import MessageLog, Store
from store import open_store


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "posthouse.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with open_store(str(path)) as store:
        yield store


@pytest.fixture
def log(store: Store) -> MessageLog:
    return store.log
