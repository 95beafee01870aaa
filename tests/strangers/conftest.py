"""What these tests run on: workers of their own, and a neighbour who must not notice anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..integration.forked_worker import forked_worker
from ..integration.wire import Session
from ..integration.wire_worker import Worker

Serve = Callable[[str], Worker]
"""Start a worker with a configuration."""


@pytest.fixture
def anyio_backend() -> str:
    """What a worker runs on."""
    return "asyncio"


@pytest.fixture
def serve(tmp_path: Path, store_url: str) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda configuration: stack.enter_context(forked_worker(tmp_path, configuration, store_url))


@pytest.fixture
def worker(serve: Serve) -> Worker:
    """A worker with the default settings."""
    return serve("")


@pytest.fixture
def neighbour(worker: Worker) -> Session:
    """A bot with a session, which must be answered whatever a stranger does."""
    return worker.session("neighbour")
