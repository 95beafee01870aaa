"""Where a worker listens: at a path that nobody takes from it, at IPv6 addresses, and with room for many."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
import zmq

import bus

from .refusals import IN_USE, WRONG_CONFIGURATION, refuse_forked
from .wire import TIMEOUT_SECONDS
from .wire_worker import Worker, free_endpoints

pytestmark = pytest.mark.anyio

CONNECTIONS = 2000


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker that is a child of this process, which waits for it to stand still."""
    with Worker(tmp_path) as worker:
        yield worker


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose name is short enough for a socket's path."""
    with ExitStack() as stack:
        short = Path(f"/tmp/posthouse-{os.getpid()}-{threading.get_ident() % 1000}")
        short.symlink_to(tmp_path)
        stack.callback(short.unlink)
        yield short


def at(folder: Path, name: str = "first") -> Worker:
    """A worker on a database of its own, at the path `bus.sock`."""
    directory = folder / name
    directory.mkdir(exist_ok=True)
    worker = Worker(directory)
    worker.command = f"ipc://{folder}/bus.sock"
    return worker


# ── A socket's path ──────────────────────────────────────────────────────────────────────────────────────


def test_a_second_worker_does_not_take_the_path_of_one_that_runs(folder: Path) -> None:
    with at(folder) as first:
        for other in ("--bind", "--tap"):
            free = {"--bind": "--tap", "--tap": "--bind"}[other]
            refusal = refuse_forked(
                folder, other, first.command, free, free_endpoints(1)[0], "--database", "other.db"
            )
            assert refusal.code == IN_USE
            assert first.command in refusal.line
        assert first.session("late").ping()["op"] == "pong"


def test_a_file_is_not_removed_for_a_socket(folder: Path) -> None:
    (folder / "bus.sock").write_text("precious", encoding="utf-8")
    refusal = refuse_forked(folder, "--bind", f"ipc://{folder}/bus.sock", "--tap", free_endpoints(1)[0])
    assert refusal.code == WRONG_CONFIGURATION
    assert "not a socket" in refusal.line
    assert (folder / "bus.sock").read_text(encoding="utf-8") == "precious"


def test_the_socket_of_a_worker_that_was_killed_is_taken_over(folder: Path) -> None:
    with at(folder) as worker:
        worker.session("bot")
        worker.kill()
        assert stat.S_ISSOCK((folder / "bus.sock").stat().st_mode)
        worker.start()
        assert worker.session("bot").ping()["op"] == "pong"
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
        assert not (folder / "bus.sock").exists()


def test_a_worker_that_stops_removes_only_its_own_socket(folder: Path) -> None:
    with at(folder) as first:
        for name in ("bus.sock", "bus.sock.lock"):
            (folder / name).unlink()
        with at(folder, "second") as second:
            first.signal(signal.SIGTERM)
            assert first.exit_code() == 0
            assert second.session("bot").ping()["op"] == "pong"
            assert (folder / "bus.sock.lock").exists()
        assert not (folder / "bus.sock").exists()
        assert not (folder / "bus.sock.lock").exists()


def test_of_workers_that_start_at_once_one_gets_the_path(folder: Path) -> None:
    with at(folder) as dead:
        dead.kill()
        workers = [at(folder, f"worker-{number}") for number in range(4)]
        try:
            for worker in workers:
                worker.launch()
            with workers[0].session("bot") as session:
                assert session.ping()["op"] == "pong"
            losers = ended(workers, len(workers) - 1)
            assert [worker.exit_code() for worker in losers] == [IN_USE] * (len(workers) - 1)
        finally:
            for worker in workers:
                worker.close()


def ended(workers: list[Worker], count: int) -> list[Worker]:
    """Wait for so many workers to end, and give those."""
    found: list[Worker] = []
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for worker in workers:
            try:
                descriptor = os.pidfd_open(worker.pid)
            except ProcessLookupError:
                found.append(worker)
                continue
            stack.callback(os.close, descriptor)
            selector.register(descriptor, selectors.EVENT_READ, worker)
        while len(found) < count:
            ready = selector.select(TIMEOUT_SECONDS)
            assert ready, f"{len(found)} workers ended, not {count}"
            for key, _ in ready:
                selector.unregister(key.fd)
                found.append(key.data)
        return found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing/bus.sock", "missing is not an existing folder"),
        ("file/bus.sock", "file is not an existing folder"),
        ("x" * 120, "longer than 107 bytes"),
        (".", "not a socket"),
        ("/", "not a socket"),
        ("link", "not a socket"),
        ("@", "missing"),
        ("@name", "every user of this machine"),
        ("*", "could not know"),
        ("", "missing"),
    ],
)
def test_a_path_that_cannot_be_is_refused_in_words(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    refusal = refuse_forked(tmp_path, "--bind", f"ipc://{path}", "--tap", free_endpoints(1)[0])
    assert refusal.code == WRONG_CONFIGURATION
    assert words in refusal.line
    assert sorted(each.name for each in tmp_path.iterdir() if "posthouse" not in each.name) == ["file", "link"]


# ── IPv6 ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_bots_connect_and_watch_over_ipv6(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    worker.command, worker.tap = (f"tcp://[::1]:{each.rpartition(':')[2]}" for each in free_endpoints(2))
    try:
        worker.launch()
        with anyio.fail_after(TIMEOUT_SECONDS):
            async with (
                bus.connect(worker.command, bot="bot") as bot,
                bot.watch("news") as live,
            ):
                assert bot.tap_url == worker.tap
                await bot.publish("news", 1)
                assert (await anext(aiter(live))).body == 1
    finally:
        worker.close()


def test_an_ipv6_address_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        address = f"tcp://[::1]:{taken.getsockname()[1]}"
        refusal = refuse_forked(tmp_path, "--bind", address, "--tap", free_endpoints(1)[0])
    assert refusal.code == IN_USE
    assert address in refusal.line


# ── Many at once ─────────────────────────────────────────────────────────────────────────────────────────


def test_thousands_of_bots_that_come_at_once_are_welcomed(worker: Worker) -> None:
    system_max = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii"))
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(CONNECTIONS, system_max, (descriptors - 200) // 3)
    # While the worker stands still, the system keeps the connections, as many as the backlog has room for.
    worker.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
    host, port = worker.command.removeprefix("tcp://").split(":")
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT_SECONDS))
    worker.signal(signal.SIGCONT)

    with zmq.Context() as context, ExitStack() as stack:
        context.set(zmq.MAX_SOCKETS, count + 10)
        sockets = [stack.enter_context(context.socket(zmq.DEALER)) for _ in range(count)]
        for number, each in enumerate(sockets):
            each.linger = 0
            each.connect(worker.command)
            each.send(b'{"op":"hello","request":1,"protocol":1,"bot":"bot-%d"}' % number)
        for each in sockets:
            assert each.poll(int(TIMEOUT_SECONDS * 1000))
            assert b'"welcome"' in each.recv()
