"""What tests of other libraries share: asyncio, as these need it, and a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import bus
from bus.testing import Worker


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that the tests of a module share."""
    with Worker(tmp_path_factory.mktemp("worker") / "posthouse.db") as worker:
        yield worker


@pytest.fixture
def own_worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker that a test may kill."""
    with Worker(tmp_path / "posthouse.db") as worker:
        yield worker


@pytest.fixture
async def bot(worker: Worker) -> AsyncIterator[bus.Bot]:
    async with worker.connect(bot="graphs", max_in_flight=0) as bot:
        yield bot
