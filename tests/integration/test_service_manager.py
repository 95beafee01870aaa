"""What a worker tells the process that started it: when it serves, that it lives, and that it ends."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .wire import TIMEOUT_SECONDS
from .wire_worker import REPOSITORY, Worker

NEWER = ("RestartSteps", "RestartMaxDelaySec")
"""Keys of the unit that systemd before 254 ignores."""

UNIT = REPOSITORY / "config" / "posthouse.service"


class Manager:
    """A service manager's socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.bind(address.replace("@", "\0"))

    def close(self) -> None:
        self._socket.close()

    def until(self, word: str) -> dict[str, str]:
        """Return the first thing said that has a word."""
        while True:
            said = dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))
            if word in said:
                return said


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@posthouse-{secrets.token_hex(8)}"
    manager = Manager(address)
    yield manager
    manager.close()


def test_a_service_manager_is_told_what_the_worker_does(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    worker = Worker(tmp_path, "[log]\nlevel = 'info'")
    try:
        worker.launch()
        assert manager.until("READY") == {"READY": "1", "STATUS": f"serves bots at {worker.command}"}
        assert worker.session("bot").ping()["op"] == "pong"
        for _ in range(3):
            assert manager.until("WATCHDOG") == {"WATCHDOG": "1"}
        worker.signal(signal.SIGHUP)
        assert int(manager.until("RELOADING")["MONOTONIC_USEC"]) > 0
        assert manager.until("READY")["STATUS"].startswith("serves bots")
        worker.signal(signal.SIGTERM)
        assert manager.until("STOPPING")["STOPPING"] == "1"
        assert worker.exit_code() == 0
    finally:
        worker.close()


def test_a_service_manager_that_is_gone_ends_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    with Worker(tmp_path) as worker:
        assert worker.session("bot").ping()["op"] == "pong"


@pytest.mark.parametrize("file", [UNIT, UNIT.with_name("posthouse-web.service")], ids=lambda file: file.stem)
def test_systemd_understands_the_units(tmp_path: Path, file: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        assert "POSTHOUSE_NEEDS_SYSTEMD" not in os.environ, "systemd-analyze is missing"
        pytest.skip("systemd is not installed")
    text = file.read_text(encoding="utf-8").replace("/opt/posthouse/bin/posthouse", "/bin/true")
    unit = tmp_path / file.name
    unit.write_text(re.sub(r"^(User|Group)=.*", r"\1=root", text, flags=re.MULTILINE), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    assert (ended.returncode, ended.stdout) == (0, "")
    faults = [line for line in ended.stderr.splitlines() if file.name in line]
    assert [line for line in faults if not any(key in line for key in NEWER)] == []
