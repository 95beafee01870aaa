"""What the integration tests run on: the client's event loops, and worker processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .forked_worker import forked_worker
from .wire_worker import Worker

BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

_names = itertools.count(1)


@pytest.fixture(params=list(BACKENDS.values()), ids=list(BACKENDS))
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(scope="module")
def shared_process(shared_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with forked_worker(tmp_path_factory.mktemp("shared"), store_url=shared_store_url) as worker:
        yield worker


@pytest.fixture
def shared(shared_process: Worker) -> Iterator[Worker]:
    """A worker that many tests use, each with names of its own."""
    yield shared_process
    shared_process.close_clients()


@pytest.fixture
def worker(tmp_path: Path, store_url: str) -> Iterator[Worker]:
    """A worker of this test alone, for what concerns all that is in it."""
    with forked_worker(tmp_path, store_url=store_url) as worker:
        yield worker


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{next(_names)}"
