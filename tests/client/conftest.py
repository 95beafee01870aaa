"""The event loops that a client runs on, and workers in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bus.settings import Delivery, Settings
from bus.testing import Worker

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

_ABOUT_THE_CONNECTION = frozenset(
    f"test_{name}.py"
    for name in ("bot", "elsewhere", "forgotten", "home", "large", "reconnect", "release", "request", "returning")
) | {"test_room.py", "test_silence.py", "test_sync.py", "test_transport.py", "test_waiting.py", "test_watch.py"}
"""Files that run on uvloop as well: it has sockets and timers of its own, which nothing above a connection sees."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--engine") is None:
        items[:] = [item for item in items if not _is_repetition(item)]


def _is_repetition(item: pytest.Item) -> bool:
    if item.path.parent != Path(__file__).parent or item.path.name in _ABOUT_THE_CONNECTION:
        return False
    return isinstance(item, pytest.Function) and _backend(item) == BACKENDS["uvloop"]


def _backend(item: pytest.Function) -> object:
    parameters = getattr(item, "callspec", None)
    return None if parameters is None else parameters.params.get("anyio_backend")


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
