"""What a worker does when its log cannot be written: it goes on, and says later what was lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from bus.broker.log_stream import LogStream

from .wire import to_channel
from .wire_worker import Process, Worker

SETTINGS = "[log]\nformat = 'json'\n"


class Logged(Worker):
    """A worker whose standard streams a test chooses."""

    errors: int | IO[bytes] | None = None
    preparation: Callable[[], None] | None = None

    def _spawn(self, arguments: list[str]) -> Process:  # type: ignore[override]
        return subprocess.Popen(
            [*self.serve, *arguments],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            preexec_fn=self.preparation,
        )


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    worker = Logged(tmp_path, SETTINGS)
    yield worker
    worker.close()


def stop(worker: Worker) -> None:
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0


def log_something(worker: Worker) -> None:
    """Have the worker log a line while it serves, and see that it does."""
    session = worker.session("sender")
    worker.signal(signal.SIGHUP)
    session.publish(to_channel("news", 0))
    session.publish(to_channel("news", 1))


def lines(pipe: int) -> Iterator[str]:
    """Yield what comes from a pipe until its end."""
    with open(pipe, encoding="utf-8") as reader:
        yield from reader


# ── Logs that cannot be written ──────────────────────────────────────────────────────────────────────────


def test_a_worker_goes_on_when_the_reader_of_its_log_has_gone(logged: Logged) -> None:
    reader, logged.errors = os.pipe()
    logged.start()
    os.close(logged.errors)
    os.close(reader)
    log_something(logged)
    stop(logged)


def test_a_worker_serves_with_a_full_disk_under_its_log(logged: Logged) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        logged.errors = full
        logged.start()
        log_something(logged)
        logged.session("bot").publish(to_channel("news", 1))
        stop(logged)


def test_a_worker_goes_on_and_stops_with_a_log_that_nobody_reads(logged: Logged) -> None:
    reader, logged.errors = os.pipe()
    fill(logged.errors)
    logged.start()
    log_something(logged)
    stop(logged)
    os.close(logged.errors)
    os.close(reader)


def fill(pipe: int) -> None:
    """Fill a pipe, and leave it as blocking as it was."""
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        for size_bytes in (4096, 1):
            while True:
                try:
                    os.write(pipe, b"\n" * size_bytes)
                except BlockingIOError:
                    break
    finally:
        fcntl.fcntl(pipe, fcntl.F_SETFL, flags)


def test_a_log_that_nobody_read_is_complete_when_it_is_read_later(logged: Logged) -> None:
    reader, logged.errors = os.pipe()
    fill(logged.errors)
    logged.start()
    os.close(logged.errors)
    logged.signal(signal.SIGTERM)
    said = [json.loads(line)["event"] for line in lines(reader) if line.strip()]
    assert [event for event in said if event not in ("store", "log_lost", "session_refused")] == [
        "serving",
        "stopping",
        "stopped",
    ]
    assert logged.exit_code() == 0


@pytest.mark.parametrize("closed", [(2,), (1,), (0,), (0, 1, 2)], ids=str)
def test_no_database_and_no_socket_gets_the_number_of_a_closed_standard_stream(
    logged: Logged, closed: tuple[int, ...]
) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    logged.errors = subprocess.DEVNULL
    logged.preparation = close
    logged.start()
    for number in closed:
        assert os.readlink(f"/proc/{logged.pid}/fd/{number}") == os.devnull
    log_something(logged)
    stop(logged)


@pytest.mark.parametrize("closed", [False, True])
def test_a_refusal_keeps_its_code_when_it_cannot_be_said(tmp_path: Path, closed: bool) -> None:
    worker = Logged(tmp_path)
    with open("/dev/full", "wb", buffering=0) as full:
        worker.errors = full
        worker.preparation = (lambda: os.close(2)) if closed else None
        worker.command = "nonsense"
        worker.launch()
        assert worker.exit_code() == 78
    worker.close()


# ── What is said of it later ─────────────────────────────────────────────────────────────────────────────


def test_lost_lines_are_counted_and_told_when_the_log_can_be_written_again() -> None:
    reader, writer = os.pipe()
    spare = os.dup(writer)
    with open("/dev/full", "wb", buffering=0) as full:
        os.dup2(full.fileno(), writer)
    stream = LogStream(writer, lost=lambda count, reason: f"lost {count}: {reason}\n")
    for number in range(3):
        stream.write(f"line {number}\n")
    while "lines=0" not in repr(stream) or "lost=3" not in repr(stream):
        time.sleep(0.002)
    os.dup2(spare, writer)
    os.close(spare)
    with open(reader, encoding="utf-8") as lines:
        assert lines.readline() == f"lost 3: {os.strerror(errno.ENOSPC)}\n"
        stream.write("next\n")
        assert lines.readline() == "next\n"
        stream.finish()
        os.close(writer)
        assert lines.read() == ""


def test_what_repeats_is_told_once_and_then_counted(logged: Logged) -> None:
    reader, logged.errors = os.pipe()
    logged.start()
    os.close(logged.errors)
    session = logged.session("bot")
    for _ in range(20):
        logged.signal(signal.SIGHUP)
        session.ping()
    logged.signal(signal.SIGTERM)
    first, counted = (
        entry
        for entry in (json.loads(line) for line in lines(reader))
        if entry["event"] == "configuration_reloaded"
    )
    assert "repeats" not in first
    assert 1 <= counted["repeats"] < 20
    assert logged.exit_code() == 0


def test_the_last_line_of_a_worker_is_written_to_a_slow_reader(tmp_path: Path) -> None:
    worker = Logged(tmp_path)
    reader, worker.errors = os.pipe()
    worker.command = "nonsense"
    worker.launch()
    os.close(worker.errors)
    assert worker.exit_code() == 78
    assert any(line.startswith("posthouse: ") for line in lines(reader))
    worker.close()
