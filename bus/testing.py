"""A worker in the test's own process, on inproc sockets, whatever event loop the test uses.

    from bus.testing import worker  # a pytest fixture

    async def test_my_bot(worker):
        async with worker.connect(bot="writer") as bot:
            await bot.send("writer", "a note to self")

    async def test_my_program(worker):
        async with worker.serve(my_program.bot), worker.connect(bot="asker") as asker:
            reply = await asker.request("my-bot", "a question")

Owns a thread with its own event loop: the worker needs asyncio, but the test may use trio or no loop.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import anyio
import anyio.from_thread
import msgspec
import pytest
import uuid_utils
import zmq

from store import open_store

from .bot import Bot
from .broker.broker import Broker
from .broker.opening import open_broker
from .client.connection import Connection
from .client.serving import CONCURRENCY
from .errors import Fenced
from .model.records import RunStatus, parse_timestamp
from .model.repository import Store
from .runs.timing import Timing
from .settings import Listen, Settings

__all__ = ["Worker", "worker"]

_STOP_SECONDS = 30.0

_LOOK_SECONDS = 0.01
_REST_LOOKS = 4
"""Everything rests if no bot has heard anything for so many looks: long enough for an answer of the worker."""

_SKIP_AT_ONCE = timedelta(minutes=30)
"""Time that is skipped between renewals of the leases of runs that are held: half of the longest lease."""

_MARGIN_SECONDS = 60.0
"""For which a lease lasts after a skip, until its holder renews it."""

STOP_SECONDS = 1.0
"""How long handlers of a served bot may go on after the test's block: nobody waits for what they do."""

T = TypeVar("T")


class _MovedTime:
    """The time of a worker and its bots: that of the system, plus what was skipped."""

    def __init__(self) -> None:
        self._skipped = timedelta()
        self._awaited: Counter[datetime] = Counter()
        self._limits: WeakKeyDictionary[anyio.CancelScope, datetime] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<_MovedTime skipped={self._skipped}>"

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC) + self._skipped

    @contextmanager
    def expects(self, until: datetime | None) -> Iterator[None]:
        """Note that something waits until a time."""
        if until is not None:
            self._awaited[until] += 1
        try:
            yield
        finally:
            if until is not None:
                self._awaited -= Counter([until])

    def limit(self, seconds: float | None) -> anyio.CancelScope:
        """Return a scope that is cancelled when so many seconds have passed, or were skipped."""
        scope = anyio.move_on_after(seconds)
        if seconds is not None:
            self._limits[scope] = self.now() + timedelta(seconds=seconds)
        return scope

    def awaited(self) -> list[datetime]:
        """Return the times for which something waits."""
        return [*self._awaited, *self._limits.values()]

    def move(self, by: timedelta) -> None:
        """Skip some time."""
        self._skipped += by

    def end_limits(self) -> None:
        """Cancel what has taken its time, in the event loop in which it runs."""
        now = self.now()
        for scope, until in list(self._limits.items()):
            if until <= now:
                del self._limits[scope]
                scope.cancel()


class Worker:
    """A worker on inproc sockets: `with Worker(path) as worker:`, or with the URL of a store, as for `open_store`.

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
        self.store_url = str(database)
        self.url = f"inproc://posthouse-{name}"
        self.tap_url = f"inproc://posthouse-tap-{name}"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.settings = msgspec.structs.replace(
            settings or Settings(), listen=Listen(command=self.url, tap=self.tap_url)
        )
        self._time = _MovedTime()
        self.clock = clock or self._time.now
        self._has_clock = clock is not None
        self._connections: WeakSet[Connection] = WeakSet()
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
        connected = Bot(bot, self.url, **options)
        self._follow(connected)
        return connected

    def _follow(self, bot: Bot) -> None:
        """Let a bot's runs have the time of this worker, and note its connection."""
        if not self._has_clock:
            timing = Timing(clock=self._time.now, expects=self._time.expects, limit=self._time.limit)
            bot.workflows.keep_time(timing)
        self._connections.add(vars(bot)["_connection"])

    @asynccontextmanager
    async def serve(
        self, bot: Bot, *, concurrency: int = CONCURRENCY, stop_timeout: float = STOP_SECONDS
    ) -> AsyncIterator[Bot]:
        """Serve a program's own bot at this worker within a block: `async with worker.serve(app.bot):`.

        The bot is the object that the program has created, with its handlers, and the test and the handlers may
        call it; only its addresses are this worker's. Its channels are subscribed to when the block begins. At the
        end it stops gracefully, and handlers that still run are cancelled after `stop_timeout` seconds. Then the
        bot is what it was before: it may be served again, here or elsewhere. Raises what serving raises.
        """
        self._check_process()
        failure: Exception | None = None
        with _moved(bot, self):
            self._follow(bot)
            async with anyio.create_task_group() as tasks:
                try:
                    await tasks.start(partial(bot.serve, concurrency=concurrency, stop_timeout=stop_timeout))
                    yield bot
                except Exception as error:  # raised as it is, not in the task group's ExceptionGroup
                    failure = error
                bot.stop()
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def skipping_time(self) -> AsyncIterator[None]:
        """Skip time within a block whenever everything rests, up to the next time for which something waits.

        These are the ends of sleeps, of timeouts and of waits between retries of runs, times at which runs begin
        (`run_at`, schedules), and the ends of leases whose holder is gone. They come in their order, and what
        follows from one of them happens before the next: when no bot of this worker has heard from it for a
        moment. What the functions of steps do meanwhile takes its own time. Not skipped is time for messages: an
        `ack_wait`, a `delay`, a back-off. Schedules have no end, so leave the block when the test has seen enough.

        Raises RuntimeError for a worker with a clock of the test's.
        """
        if self._has_clock:
            raise RuntimeError("this worker has a clock of the test's, which has to move it")
        self._check_process()
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._skip)
            try:
                yield
            except Exception as error:  # raised as it is, not in the task group's ExceptionGroup
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _skip(self) -> None:
        while True:
            await self._until_rest()
            if self._broker is None:
                continue
            welcomes = [each.welcome for each in self._connections if each.failure is None]
            live = {welcome.bot_id for welcome in welcomes if welcome is not None}
            if await anyio.to_thread.run_sync(self.call, partial(_skip_time, self._time, live)):
                self._time.end_limits()
                for connection in self._connections:
                    connection.wakes.wake_all()
                await self._until_rest()  # who holds a run renews it first
                await anyio.to_thread.run_sync(self._portal.call, self._sweep)

    async def _until_rest(self) -> None:
        """Wait until no bot has heard anything for a moment."""
        looks, heard = 0, -1
        while looks < _REST_LOOKS:
            await anyio.sleep(_LOOK_SECONDS)
            before, heard = heard, sum(connection.heard for connection in self._connections)
            looks = looks + 1 if heard == before else 0

    def _sweep(self) -> None:
        """Let the worker look now at what is due."""
        if self._broker is not None:
            vars(self._broker)["_core"].recovering.hurry()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this worker runs inside process {self._process}, and cannot be reached from another one: test"
                " code that forks with a worker process, posthouse serve"
            )


async def _skip_time(time: _MovedTime, live: set[str], store: Store) -> bool:
    """Skip time up to the next time for which something waits; return False if nothing does.

    Runs that are held by live bots stay held: no lease ends because time was skipped.
    """
    now, workflows = time.now(), store.workflows
    running = await workflows.list_all_runs(RunStatus.RUNNING, None)
    lost = [run.lease_expires_at for run in running if run.holder not in live]
    begin = [run.not_before for run in await workflows.list_all_runs(RunStatus.PENDING, None)]
    times = [status.next_at for status in await workflows.list_schedules()]
    due = [parse_timestamp(text) for text in (*lost, *begin, *times) if text is not None]
    coming = [each for each in (*due, *time.awaited()) if each > now]
    if not coming:
        return False
    until = min(coming) + timedelta(milliseconds=1)
    while (now := time.now()) < until:
        step = min(until - now, _SKIP_AT_ONCE)
        for run in running:
            if run.holder in live:
                with suppress(Fenced):  # it has ended meanwhile
                    await workflows.renew_run(run.id, run.fence, step.total_seconds() + _MARGIN_SECONDS)
        time.move(step)
    return True


@contextmanager
def _moved(bot: Bot, worker: Worker) -> Iterator[None]:
    """Let a bot be, within a block, one that was never entered, with the same handlers, at a worker's addresses."""
    if bot.is_entered:
        raise RuntimeError(f"bot {bot.name!r} is, or was, connected: it cannot be served as well")
    before = vars(bot).copy()
    vars(bot).clear()
    Bot.__init__(
        bot,
        before["name"],
        worker.url,
        bot_id=before["_bot_id"],
        max_in_flight=before["_inbox"].max_in_flight,
        timeout=before["_caller"].timeout,
        tap_url=worker.tap_url,
        context=worker.context,
    )
    own = set(vars(bot))
    for name in ("_application", "_middleware", "_run_functions"):
        vars(bot)[name].share(before[name])
    bot.workflows.encode, bot.workflows.decode = before["workflows"].encode, before["workflows"].decode
    vars(bot).update({name: value for name, value in before.items() if name not in own})
    try:
        yield
    finally:
        vars(bot).update({name: before[name] for name in own})


@asynccontextmanager
async def _serving(worker: Worker) -> AsyncIterator[tuple[Store, Broker]]:
    opened = open_store(worker.store_url, rules=worker.settings.workflow_rules, clock=worker.clock)
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
