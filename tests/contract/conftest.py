"""Which event loops and which backends the contract suites run on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from store import open_store
from store.records import RunStatus, WorkflowDefinition, WorkflowRun
from store.repository import MessageRepository, Store, WorkflowRepository

from .samples import definition, run


class Backend(Protocol):
    """A kind of store at a place of its own: opened again, it has what was stored before."""

    def open(self) -> AbstractAsyncContextManager[Store]: ...


class SqliteBackend:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> AbstractAsyncContextManager[Store]:
        return open_store(str(self.path))


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def sqlite_backend(tmp_path: Path) -> SqliteBackend:
    return SqliteBackend(tmp_path / "posthouse.db")


@pytest.fixture(params=["sqlite"])
def backend(request: pytest.FixtureRequest) -> Backend:
    chosen: Backend = request.getfixturevalue(f"{request.param}_backend")
    return chosen


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    async with backend.open() as store:
        yield store


@pytest.fixture
def workflows(store: Store) -> WorkflowRepository:
    return store.workflows


@pytest.fixture
def messages(store: Store) -> MessageRepository:
    return store.messages


@pytest.fixture
async def workflow(workflows: WorkflowRepository) -> WorkflowDefinition:
    """The definition w."""
    saved = definition("w")
    await workflows.save_definition(saved)
    return saved


@pytest.fixture
async def running(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> WorkflowRun:
    """The run r of w, which is running."""
    return await workflows.create_run(run("r", workflow.id, status=RunStatus.RUNNING))
