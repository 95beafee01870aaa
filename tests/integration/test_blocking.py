"""No call blocks the event loop: not the worker's, and not a client's.

The worker runs in the test's own loop, so that it can be watched; for the client on every backend it runs in a
thread of its own. That the watch sees what it should is tested first.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest
import zmq

import bus
from bus.broker.opening import open_broker
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import Store, WorkflowRepository
from bus.settings import Listen, Settings
from bus.testing import Worker
from store import open_store

from .conftest import BACKENDS
from .watch import ROOT, Call, Watch

pytestmark = pytest.mark.anyio

MARK = Call("os.pwrite", "store/sqlite/file/lockfile.py LockFile._write")
"""An exception: a hundred bytes to the page cache after each commit, which no disk is waited for."""

LENGTH = Call("os.stat", "store/sqlite/file/wal.py Growth.__call__")
"""The other one: the length of the WAL after each commit, a file that is open, so that the kernel knows it."""

PLACES = Call("os.stat", "store/sqlite/file/lockfile.py _key_at")
"""And the third: whether the open files are still the ones with their names, before each answer."""

SECONDS = 60
"""The longest that a test may take: each takes about one."""

worker_loops = pytest.mark.parametrize(
    "anyio_backend", [BACKENDS["asyncio"], BACKENDS["uvloop"]], ids=["asyncio", "uvloop"]
)
"""The worker runs on asyncio alone."""


# ── The watch sees it ────────────────────────────────────────────────────────────────────────────────────

BLOCKING = {
    "time.sleep": "import time; time.sleep(0)",
    "io.open": "open(path).close()",
    "io.TextIOWrapper.read": "file.read()",
    "os.stat": "path.exists()",
    "os.open": "import os; os.close(os.open(path, os.O_RDONLY))",
    "os.fsync": "import os; os.fsync(file.fileno())",
    "os.pwrite": "import os; os.pwrite(file.fileno(), b'x', 0)",
    "fcntl.flock": "import fcntl; fcntl.flock(file, fcntl.LOCK_SH)",
    "sqlite3.connect": "import sqlite3; sqlite3.connect(':memory:').close()",
    "sqlite3.Connection.execute": "connection.execute('SELECT 1')",
    "socket.recv": "import socket; a, b = socket.socketpair(); b.send(b'x'); a.recv(1); a.close(); b.close()",
    "threading.Condition.wait": "import threading; threading.Event().wait(0)",
    "_posixsubprocess.fork_exec": "import subprocess; subprocess.run(['true'])",
}
"""What blocks, by the name under which it is reported."""


@pytest.mark.parametrize("what", BLOCKING)
async def test_a_blocking_call_is_seen(what: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    code = compile(BLOCKING[what], str(ROOT / "bus" / "deliberate.py"), "exec")
    connection = sqlite3.connect(":memory:")
    with path.open("r+") as file, Watch() as watch:
        exec(code, {"path": path, "file": file, "connection": connection})
    connection.close()
    assert Call(what, "bus/deliberate.py <module>") in watch.calls


class Slow(Mapping[str, str]):
    """Headers that sleep when they are read."""

    def __getitem__(self, key: str) -> str:
        return "b"

    def __iter__(self) -> Iterator[str]:
        time.sleep(0)
        return iter("a")

    def __len__(self) -> int:
        return 1


async def test_a_blocking_call_inside_of_ours_is_seen(worker_thread: Worker) -> None:
    async with worker_thread.connect(bot="writer") as bot:
        with Watch() as watch:
            await bot.publish("news", None, headers=Slow())
    assert watch.calls.total() == 1
    assert all(call.what == "time.sleep" and call.where.startswith("bus/") for call in watch.calls)


def test_sqlite_in_a_thread_of_another_is_seen() -> None:
    def ask() -> None:
        sqlite3.connect(":memory:").close()

    with Watch() as watch:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert {call.what for call in watch.strangers} == {"sqlite3.connect", "sqlite3.Connection.close"}
    assert watch.sqlite_calls == 0


# ── And finds nothing ────────────────────────────────────────────────────────────────────────────────────


async def use_everything(connect: Callable[[str], bus.Bot], restart: Callable[[], Awaitable[None]]) -> None:
    """Ask of a worker what can be asked, before and after it is started anew."""
    async with connect("writer") as writer, connect("reader") as reader:
        await reader.subscribe("news", start="all")
        await writer.subscribe("news", echo=True)
        for _ in range(2):
            await talk(writer, reader)
            await look_back(writer)
            await checkpoint(writer.workflows)
            await restart()
        assert await reader.unsubscribe("news")


async def talk(writer: bus.Bot, reader: bus.Bot) -> None:
    """Send a few hundred messages of every kind, and settle them in every way."""
    drafts = [bus.Draft(channel="news", body=number, headers={"a": "b"}) for number in range(300)]
    receipts = await writer.send_all(
        [*drafts, bus.Draft(to="reader", body="hard"), bus.Draft(to="reader", body="bad")]
    )
    again = await writer.publish("news", 0, id=receipts[0].id)
    assert again.duplicate
    with pytest.raises(bus.UnknownBot):
        await writer.send("nobody", "?")
    left = {receipt.seq for receipt in receipts}
    async for message in reader.messages():
        match message.body, message.attempt:
            case "hard", 1:
                await message.nak(0.0)
                continue
            case "bad", _:
                await message.term("cannot be read", confirm=True)
            case number, _:
                await message.ack(confirm=number == 299)
        left.discard(message.seq)
        if not left:
            break
    [letter] = await reader.dead_letters()
    assert await reader.retry_dead_letters([letter["seq"]]) == 1
    async with await reader.receive() as message:
        await message.reply("well")
    while message.sender != "reader":
        async with await writer.receive() as message:
            assert message.body in ("well", *range(300))


async def checkpoint(workflows: WorkflowRepository) -> None:
    """Run a workflow with a large context, once more after every start."""
    await workflows.delete_definition("w", cascade=True)
    await workflows.save_definition(WorkflowDefinition(id="w", name="digest", owner=GlobalOwner()))
    run = WorkflowRun(id="r", workflow_id="w", workflow_name="digest", trigger_type="manual", started_at="")
    await workflows.create_run(run)
    fence = (await workflows.claim_run("r", "writer")).fence
    await workflows.update_run_status("r", RunStatus.RUNNING, context="x" * 500_000, fence=fence)
    await workflows.create_step_log(WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s"), fence=fence)
    await workflows.update_step_status("s", StepStatus.COMPLETED, output=[1], fence=fence)
    await workflows.renew_run("r", fence)
    assert [log.output for log in await workflows.list_step_logs("r")] == [[1]]
    await workflows.release_run("r", fence)


async def look_back(bot: bus.Bot) -> None:
    [latest] = await bot.history(between=("writer", "reader"), limit=1)
    assert latest.body == "well"
    assert len(await bot.history(thread=latest.id)) == 2
    assert len(await bot.history(channel="news", limit=1000)) % 300 == 0
    assert (await bot.find(latest.id))["message"]["body"] == "well"
    assert {row["name"] for row in await bot.bots()} == {"writer", "reader"}
    assert [row["name"] for row in await bot.channels()] == ["news"]
    assert len(await bot.subscriptions(channel="news")) == 2
    await bot.set_credit(50)
    assert (await bot.status())["sizes"]


@pytest.fixture
def worker_thread(tmp_path: Path) -> Iterator[Worker]:
    """A worker in a thread of its own, which is not watched."""
    with Worker(tmp_path / "posthouse.db") as running:
        yield running


async def test_a_client_never_blocks_its_loop(worker_thread: Worker) -> None:
    async def restart() -> None:
        await anyio.to_thread.run_sync(worker_thread.stop)
        await anyio.to_thread.run_sync(worker_thread.start)

    with Watch() as watch, anyio.fail_after(SECONDS):
        await use_everything(lambda name: worker_thread.connect(bot=name), restart)
    assert watch.calls == {}


class WorkerHere:
    """A worker in the test's own loop, in a task of its own."""

    def __init__(self, path: Path, context: zmq.Context[zmq.Socket[bytes]], tasks: anyio.abc.TaskGroup) -> None:
        self._path = path
        self._context = context
        self._tasks = tasks
        self._settings = Settings(listen=Listen(command="inproc://command", tap="inproc://tap"))
        self._stop = anyio.Event()
        self._stopped = anyio.Event()
        self.store: Store

    async def start(self) -> None:
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        await self._tasks.start(self._serve)

    async def stop(self) -> None:
        self._stop.set()
        await self._stopped.wait()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def connect(self, name: str) -> bus.Bot:
        return bus.Bot(name, "inproc://command", context=self._context)

    async def _serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with open_store(str(self._path)) as self.store:
            broker = await open_broker(
                self.store, self._settings, self._context, worker="posthouse/test", versions={}
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(broker.run)
                task_status.started()
                await self._stop.wait()
                broker.stop()
        self._stopped.set()


@asynccontextmanager
async def worker_here(path: Path) -> AsyncIterator[WorkerHere]:
    with zmq.Context() as context, anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            yield WorkerHere(path, context, tasks)


@worker_loops
async def test_a_worker_that_serves_never_blocks_its_loop(tmp_path: Path) -> None:
    async with worker_here(tmp_path / "posthouse.db") as worker:
        with Watch() as watch:
            await worker.start()
            await use_everything(worker.connect, worker.restart)
            await worker.stop()
    assert set(watch.calls) <= {MARK, LENGTH, PLACES}
    assert watch.strangers == {}
    assert watch.sqlite_calls > 0


@worker_loops
async def test_a_worker_that_starts_never_blocks_its_loop(tmp_path: Path) -> None:
    async with worker_here(tmp_path / "posthouse.db") as worker:
        with Watch() as watch:
            await worker.start()
            await worker.stop()
    assert set(watch.calls) <= {MARK, LENGTH, PLACES}
