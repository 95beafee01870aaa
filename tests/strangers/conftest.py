"""What strangers meet: a worker of each test's own, and a neighbour who must not notice them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..integration.forked_worker import forked_worker
from ..integration.wire import Session
from ..integration.wire_worker import Worker


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with forked_worker(tmp_path) as worker:
        yield worker


@pytest.fixture
def neighbour(worker: Worker) -> Session:
    """A bot with a session, which must be answered whatever a stranger does."""
    return worker.session("neighbour")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}
