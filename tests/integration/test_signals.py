"""Signals at every moment of a worker's life: it ends in order, with its documented code and no traceback."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .wire import TIMEOUT_SECONDS
from .wire_worker import SERVE, Worker

BLOCKED = "SigBlk"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker that is started as usual: that is what is tested here."""
    with Worker(tmp_path) as worker:
        yield worker


def blocks(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process holds a signal back."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        name, _, mask = line.partition(":")
        if name == BLOCKED:
            return bool(int(mask, 16) >> (number - 1) & 1)
    return False


def wait_until_held(pid: int, number: signal.Signals) -> None:
    """Wait until a worker that starts holds a signal back: its imports have only begun."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not blocks(pid, number):
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_during_the_start_ends_in_order(tmp_path: Path, number: signal.Signals) -> None:
    worker = Worker(tmp_path)
    try:
        worker.launch()
        wait_until_held(worker.pid, number)
        worker.signal(number)
        assert worker.exit_code() == 0
        assert '"stopped"' in worker.log_tail()
        assert "Traceback" not in worker.log_tail()
    finally:
        worker.close()


def test_a_hangup_ends_no_worker(worker: Worker) -> None:
    session = worker.session("bot")
    worker.signal(signal.SIGHUP)
    assert session.ping()["op"] == "pong"
    assert session.ping()["op"] == "pong"
    worker.signal(signal.SIGTERM)
    assert worker.exit_code() == 0
    assert '"signal_ignored"' in worker.log_tail()


def test_a_hangup_during_the_start_ends_no_worker(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    try:
        worker.launch()
        wait_until_held(worker.pid, signal.SIGHUP)
        worker.signal(signal.SIGHUP)
        assert worker.session("bot").ping()["op"] == "pong"
    finally:
        worker.close()


UNSHARE = ["unshare", "--pid", "--fork", "--kill-child"]


def may_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not may_unshare(), reason="unshare is missing, or may make no process namespace")
@pytest.mark.parametrize("moment", ["at the start", "while it serves"])
def test_the_first_process_of_a_container_hears_the_signal(tmp_path: Path, moment: str) -> None:
    worker = Worker(tmp_path)
    worker.serve = [*UNSHARE, *SERVE]
    try:
        worker.launch()
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (found := children.read_text(encoding="ascii").split()):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        while os.readlink(f"/proc/{found[0]}/exe").endswith(
            "unshare"
        ):  # which holds the signal itself for a moment
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if moment == "at the start":
            wait_until_held(int(found[0]), signal.SIGTERM)
        else:
            worker.session("bot").ping()
        os.kill(int(found[0]), signal.SIGTERM)
        assert worker.exit_code() == 0
        assert '"stopped"' in worker.log_tail()
    finally:
        worker.close()


@pytest.mark.parametrize("how", ["missing", "broken"])
def test_a_worker_serves_without_uvloop(tmp_path: Path, how: str) -> None:
    hiding = "import sys; sys.modules['uvloop'] = None; "
    if how == "broken":
        (tmp_path / "uvloop.py").write_text("raise ImportError('no such library')", encoding="utf-8")
        hiding = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    worker = Worker(tmp_path)
    worker.serve = [sys.executable, "-c", f"{hiding}import worker; worker.main()", "serve"]
    with worker:
        assert worker.session("bot").ping()["op"] == "pong"
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
