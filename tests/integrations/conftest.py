"""What tests of other libraries share: asyncio, as these need it, and a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import bus
from bus.testing import Worker

from ..crash.nursery import ForkedWorker
from ..integration.forked_worker import forked_worker

IMPATIENT = """
[delivery]
heartbeat_seconds = 0.4
session_timeout_seconds = 2.0

[workflows]
sweep_seconds = 0.2
"""


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
def process(tmp_path: Path) -> Iterator[ForkedWorker]:
    """A worker in a process of its own, for programs and commands."""
    with forked_worker(tmp_path) as worker:
        yield worker


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[ForkedWorker]:
    """The same, which soon notices that a program was killed."""
    with forked_worker(tmp_path, IMPATIENT) as worker:
        yield worker


@pytest.fixture
async def bot(worker: Worker) -> AsyncIterator[bus.Bot]:
    async with worker.connect(bot="graphs", max_in_flight=0) as bot:
        yield bot
