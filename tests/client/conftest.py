"""The event loops that a client runs on, and workers in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bus.settings import Delivery, Settings
from bus.testing import Worker

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


@pytest.fixture(params=list(BACKENDS.values()), ids=list(BACKENDS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def worker(store_url: str) -> Iterator[Worker]:
    """A worker with the default settings."""
    with Worker(store_url) as running:
        yield running


@pytest.fixture
def impatient_worker(store_url: str) -> Iterator[Worker]:
    """A worker that delivers again soon, so that no test waits for a patient one."""
    delivery = Delivery(
        ack_wait_seconds=0.6,
        backoff_seconds=(0.05,),
        max_deliver=3,
        heartbeat_seconds=0.2,
        session_timeout_seconds=0.9,
    )
    with Worker(store_url, Settings(delivery=delivery)) as running:
        yield running
