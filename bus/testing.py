"""A worker in the test's own process, on inproc sockets, whatever event loop the test uses.

    from bus.testing import worker  # a pytest fixture

    async def test_my_bot(worker):
        async with worker.connect(bot="writer") as bot:
            await bot.send("writer", "a note to self")

Owns a thread with its own event loop: the worker needs asyncio, but the test may use trio or no loop.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import msgspec
import pytest
import uuid_utils
import zmq

from store import open_store

from .bot import Bot
from .broker.broker import Broker, open_broker
from .model.repository import Store
from .settings import Listen, Settings

__all__ = ["Worker", "worker"]

_STOP_SECONDS = 30.0

T = TypeVar("T")


class Worker:
    """A worker on inproc sockets: `with Worker(path) as worker:`.

    `url` and `tap_url` are its addresses, in the ZeroMQ `context`; `connect` returns a bot that uses both. `clock`
    returns times with a zone by which leases of runs begin and expire, so that a test need not wait for them.
    """

    def __init__(
        self,
        database: Path | str,
        settings: Settings | None = None,
        *,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        name = uuid_utils.uuid7()
        self.database = Path(database)
        self.url = f"inproc://posthouse-{name}"
        self.tap_url = f"inproc://posthouse-tap-{name}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.settings = msgspec.structs.replace(
            settings or Settings(), listen=Listen(command=self.url, tap=self.tap_url)
        )
        self.clock = clock
        self._process = os.getpid()
        self._portal: anyio.from_thread.BlockingPortal
        self._running: AbstractContextManager[tuple[Store, Broker]] | None = None
        self._broker: Broker | None = None
        self._store: Store | None = None
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<Worker {'running' if self._running else 'stopped'} at {self.url} on {self.database}>"

    def __enter__(self) -> Worker:
        self._portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal("asyncio"))
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() != self._process:
            return  # a forked child leaves the test; the worker belongs to its parent
        try:
            if self._running is not None:
                self.stop()
        finally:
            self._stack.close()
            self.context.destroy(linger=0)

    def start(self) -> None:
        """Start serving the database. Raises what `open_store` and binding raise."""
        self._check_process()
        running = self._portal.wrap_async_context_manager(_serving(self))
        self._store, self._broker = running.__enter__()
        self._running = running

    def stop(self) -> None:
        """Stop gracefully: the batch is written, positions are saved, and every session gets `closing`."""
        self._check_process()
        assert self._broker is not None
        self._portal.call(self._broker.stop)
        self._leave()

    def kill(self) -> None:
        """Stop as in a crash: unwritten changes are lost, and nobody is notified."""
        self._check_process()
        self._leave()

    def _leave(self) -> None:
        running, self._running = self._running, None
        self._store = self._broker = None
        assert running is not None, "the worker is not running"
        running.__exit__(None, None, None)

    def call(self, use: Callable[[Store], Awaitable[T]]) -> T:
        """Call a function with the open store, in the worker's event loop, and return its result.

        This blocks until it is done. Use it for what no bot can request from a worker. The worker's memory is not
        updated.
        """
        self._check_process()
        assert self._store is not None, "the worker is not running"
        return self._portal.call(use, self._store)

    def connect(self, *, bot: str, **options: Any) -> Bot:
        """Return a bot that connects to this worker when its context is entered; options as for `bus.connect`."""
        self._check_process()
        options = {"tap_url": self.tap_url, "context": self.context, **options}
        return Bot(bot, self.url, **options)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this worker runs inside process {self._process}, and cannot be reached from another one: test"
                " code that forks with a worker process, posthouse serve"
            )


@asynccontextmanager
async def _serving(worker: Worker) -> AsyncIterator[tuple[Store, Broker]]:
    opened = open_store(str(worker.database), rules=worker.settings.workflow_rules, clock=worker.clock)
    async with opened as store, anyio.create_task_group() as tasks:
        broker = await open_broker(
            store,
            worker.settings,
            worker.context,
            worker="posthouse/testing",
            versions={},
            report=lambda note, sessions: None,  # a test's output is its own
        )
        ended = anyio.Event()

        async def run() -> None:
            try:
                await broker.run()
            finally:
                ended.set()

        tasks.start_soon(run)
        yield store, broker
        if broker.stopping:
            with anyio.move_on_after(_STOP_SECONDS):
                await ended.wait()
        tasks.cancel_scope.cancel()


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A running worker on its own database, which is deleted after the test."""
    with (
        tempfile.TemporaryDirectory(prefix="posthouse-") as folder,
        Worker(Path(folder) / "test.db") as running,
    ):
        yield running
