"""Where the contract suites run: which backends of the store, on which event loops.

Workflows are kept in two places that must not differ: an open store, and a worker that a bot is connected to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio
import pytest

from bus.model.records import (
    WORKER_ID,
    WORKER_NAME,
    RecoveredRun,
    RunStatus,
    WorkflowDefinition,
    WorkflowRun,
    timestamp,
)
from bus.model.repository import StartScheduled, Store, WorkflowRepository, WorkflowRules
from bus.settings import Limits, Settings, Workflows
from bus.testing import Worker
from store import open_store

from ..engines import empty_store, new_file
from ..postgresql.databases import Databases
from ..postgresql.places import PostgresqlPlace
from .samples import ANN, BOB, add_bots, definition, run

LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {"use_uvloop": False}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}

STORES = ("sqlite", "postgresql")
"""The kinds of store. A fixture for each, such as `sqlite_place`, returns a `StorePlace` of the test's own."""

REMOTE, REMOTE_POSTGRESQL = "remote", "remote-postgresql"

EVERYWHERE = [
    *((store, "uvloop") for store in STORES),
    (REMOTE, "asyncio"),
    (REMOTE, "trio"),
    (REMOTE_POSTGRESQL, "asyncio"),
]
"""A store is opened on the loop that a worker opens it on, and runs are executed on each loop once.

What a connection does on each is tested in `tests/client`.
"""

_CALLS_ONLY = "test_workflow_"
"""Files whose tests execute no run, but call the repository.

They leave out what other tests show with these calls: a second loop of the same worker, and a worker on PostgreSQL
(`tests/client`, and runs that are executed).
"""

FRAME_BYTES_MAX = 32 * 1024 * 1024
"""A worker whose frames take the largest context, so that its limits can be seen through a connection."""


class Clock:
    """What tells a store the time: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.reset()

    def __call__(self) -> datetime:
        return self.now

    def reset(self) -> None:
        self.now = datetime(2026, 6, 1, tzinfo=UTC)

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def after(self, seconds: float) -> str:
        return timestamp(self.now + timedelta(seconds=seconds))


class StorePlace(Protocol):
    """Where a store is kept: opened again, it has what was stored before."""

    url: str

    def open(
        self, *, rules: WorkflowRules | None = None, clock: Callable[[], datetime] | None = None
    ) -> AbstractAsyncContextManager[Store]: ...


class SqlitePlace:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path)

    def open(
        self, *, rules: WorkflowRules | None = None, clock: Callable[[], datetime] | None = None
    ) -> AbstractAsyncContextManager[Store]:
        return open_store(str(self.path), rules=rules, clock=clock)


class Place(Protocol):
    """Workflows that are kept somewhere, as two bots reach them."""

    workflows: WorkflowRepository
    """As ANN reaches them."""
    others: WorkflowRepository
    """As BOB does."""
    clock: Clock

    async def add_bots(self, *ids: str) -> None:
        """Register bots."""

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        """Do what a worker does from time to time."""

    async def start_scheduled(self) -> None:
        """Start the runs that are due, as a worker also does."""


class WorkflowBackend(Protocol):
    """A place that is opened and closed: opened again, it has what was stored before."""

    def open(self) -> AbstractAsyncContextManager[Place]: ...


# ── An open store ────────────────────────────────────────────────────────────────────────────────────────


class LocalPlace:
    """A store that is open, for one test after another."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.workflows: WorkflowRepository = store.workflows
        self.others: WorkflowRepository = store.workflows
        self.clock = clock
        self._store = store

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Place]:
        """Yield it without the workflows of the test before."""
        self.clock.reset()
        await _forget_workflows(self._store)
        yield self

    async def add_bots(self, *ids: str) -> None:
        await _add_missing(self._store, *ids)

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        return await self._store.workflows.recover_runs(limit)

    async def start_scheduled(self) -> None:
        await _start_scheduled(self._store)


class LocalBackend:
    def __init__(self, place: StorePlace) -> None:
        self._place = place
        self._clock = Clock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Place]:
        async with self._place.open(clock=self._clock) as store:
            yield LocalPlace(store, self._clock)


# ── A worker, and bots that are connected to it ──────────────────────────────────────────────────────────


class RemotePlace:
    def __init__(self, worker: Worker, clock: Clock, *bots: WorkflowRepository) -> None:
        self.workflows, self.others = bots
        self.clock = clock
        self._worker = worker

    async def add_bots(self, *ids: str) -> None:
        async def add(store: Store) -> None:
            await _add_missing(store, *ids)

        await anyio.to_thread.run_sync(self._worker.call, add)

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        async def recover(store: Store) -> list[RecoveredRun]:
            return await store.workflows.recover_runs(limit)

        return await anyio.to_thread.run_sync(self._worker.call, recover)

    async def start_scheduled(self) -> None:
        await anyio.to_thread.run_sync(self._worker.call, _start_scheduled)


class RemoteBackend:
    """A worker that many tests use, one after another; every time it is opened it was started anew."""

    def __init__(self, store_url: str) -> None:
        self._clock = Clock()
        settings = Settings(
            limits=Limits(frame_bytes_max=FRAME_BYTES_MAX, answers_bytes_max=2 * FRAME_BYTES_MAX),
            workflows=Workflows(sweep_seconds=86_400),  # tests look for lost runs when they want to
        )
        self.worker = Worker(store_url, settings, clock=self._clock)
        self._opened = 0

    def begin(self) -> None:
        """Forget the workflows of the test before."""
        self._opened = 0
        self._clock.reset()
        self.worker.call(_forget_workflows)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Place]:
        if self._opened:
            await anyio.to_thread.run_sync(self.worker.stop)
            await anyio.to_thread.run_sync(self.worker.start)
        self._opened += 1
        connect = partial(self.worker.connect, max_in_flight=0)
        async with connect(bot="holder-a", bot_id=ANN) as ann, connect(bot="holder-b", bot_id=BOB) as bob:
            yield RemotePlace(self.worker, self._clock, ann.workflows, bob.workflows)


async def _add_missing(store: Store, *ids: str) -> None:
    known = {bot.id for bot in (await store.log.load()).bots}
    await add_bots(store, *(id for id in ids if id not in known))


async def _start_scheduled(store: Store) -> None:
    await store.log.apply([StartScheduled(100, WORKER_ID, WORKER_NAME, "")])


async def _forget_workflows(store: Store) -> None:
    for known in await store.workflows.list_definitions():
        await store.workflows.delete_definition(known.id, cascade=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _is_repetition(item)]


def _is_repetition(item: pytest.Item) -> bool:
    if item.path.parent != Path(__file__).parent or not item.path.name.startswith(_CALLS_ONLY):
        return False
    chosen = item.callspec.params.get("place_and_loop") if isinstance(item, pytest.Function) else None
    return chosen in {(REMOTE, "trio"), (REMOTE_POSTGRESQL, "asyncio")}


# ── Fixtures ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sqlite_place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(new_file(tmp_path / "posthouse.db"))


@pytest.fixture
def postgresql_place(postgresql_databases: Databases) -> Iterator[PostgresqlPlace]:
    with postgresql_databases.lent() as url:
        yield PostgresqlPlace(url)


def place_of(request: pytest.FixtureRequest, name: str) -> StorePlace:
    """Return the test's place of a kind of store."""
    place: StorePlace = request.getfixturevalue(f"{name}_place")
    return place


@pytest.fixture(params=STORES)
def store_place(request: pytest.FixtureRequest) -> StorePlace:
    return place_of(request, request.param)


@pytest.fixture(scope="module", params=EVERYWHERE, ids="-".join)
def place_and_loop(request: pytest.FixtureRequest) -> tuple[str, str]:
    chosen: tuple[str, str] = request.param
    return chosen


@pytest.fixture(scope="module")
def anyio_backend(place_and_loop: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    return LOOPS[place_and_loop[1]]


@pytest.fixture(scope="module")
def shared_url(
    place_and_loop: tuple[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[str | None]:
    """Where the open store is that the tests of a file share; None if they reach it through a worker."""
    if place_and_loop[0] in STORES:
        with empty_store(place_and_loop[0], tmp_path_factory.mktemp("store"), request) as url:
            yield url
    else:
        yield None


@pytest.fixture(scope="module")
async def shared_place(shared_url: str | None) -> AsyncIterator[LocalPlace | None]:
    """An open store that many tests use, one after another: to open one takes longer than most of them."""
    if shared_url is None:
        yield None
    else:
        clock = Clock()
        async with open_store(shared_url, clock=clock) as store:
            yield LocalPlace(store, clock)


@pytest.fixture(scope="module")
def shared_remote_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteBackend]:
    backend = RemoteBackend(str(tmp_path_factory.mktemp("worker") / "posthouse.db"))
    with backend.worker:
        yield backend


@pytest.fixture(scope="module")
def shared_remote_postgresql_backend(postgresql_databases: Databases) -> Iterator[RemoteBackend]:
    with postgresql_databases.lent() as url:
        backend = RemoteBackend(url)
        with backend.worker:
            yield backend


@pytest.fixture
def backend(place_and_loop: tuple[str, str], request: pytest.FixtureRequest) -> WorkflowBackend:
    if place_and_loop[0] in STORES:
        return LocalBackend(place_of(request, place_and_loop[0]))
    name = place_and_loop[0].replace("-", "_")
    remote: RemoteBackend = request.getfixturevalue(f"shared_{name}_backend")
    remote.begin()
    return remote


@pytest.fixture
def opening(shared_place: LocalPlace | None, request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Place]:
    if shared_place is not None:
        return shared_place.lent()
    backend: WorkflowBackend = request.getfixturevalue("backend")
    return backend.open()


@pytest.fixture
async def place(opening: AbstractAsyncContextManager[Place]) -> AsyncIterator[Place]:
    async with opening as place:
        yield place


@pytest.fixture
def workflows(place: Place) -> WorkflowRepository:
    return place.workflows


@pytest.fixture
def others(place: Place) -> WorkflowRepository:
    return place.others


@pytest.fixture
def clock(place: Place) -> Clock:
    return place.clock


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


@pytest.fixture
async def pending(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> WorkflowRun:
    """The run r of w, which nobody has begun."""
    return await workflows.create_run(run("r", workflow.id))
