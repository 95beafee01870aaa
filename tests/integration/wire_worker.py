"""A worker as a process of its own, on a database of its own."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import zmq

from .wire import TIMEOUT_SECONDS, Session, TapReader

__all__ = ["REPOSITORY", "SERVE", "Process", "Worker", "free_endpoints"]

REPOSITORY = Path(__file__).resolve().parents[2]

SERVE = [sys.executable, "-m", "worker", "serve"]
"""What starts a worker, in any folder."""

_PORTS = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections: a client that looks for a killed worker at such a port
could connect to itself, and then the worker could not bind it again."""


def _host() -> str:
    """Give an address of this process alone: who looks for a worker that has ended finds no other test's there."""
    pid = os.getpid()
    return f"127.{1 + (pid >> 16) % 254}.{pid >> 8 & 255}.{pid & 255}" if sys.platform == "linux" else "127.0.0.1"


def free_endpoints(count: int) -> list[str]:
    """Find ports that are free now, all different, by binding them all at once."""
    host = _host()
    sockets: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(_PORTS, 200):
            each = socket.socket()
            sockets.append(each)
            try:
                each.bind((host, port))
            except OSError:
                sockets.pop().close()
            if len(sockets) == count:
                return [f"tcp://{host}:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()
    raise AssertionError(f"no {count} free ports in {_PORTS}")


class Process(Protocol):
    """A process that can be ended and waited for, as `subprocess.Popen` is one."""

    pid: int

    def poll(self) -> int | None:
        """Give the exit code, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and give the exit code; subprocess.TimeoutExpired where it takes too long."""

    def kill(self) -> None:
        """End it at once."""

    def terminate(self) -> None:
        """Ask it to end."""

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""


class Worker:
    """A worker process on a database of its own. Its endpoints stay the same over a restart."""

    def __init__(self, directory: Path, configuration: str = "") -> None:
        self.directory = directory
        self.database = directory / "posthouse.db"
        self.engine = ""
        """The URL of a database of PostgreSQL instead."""
        self.command, self.tap = free_endpoints(2)
        self.serve = list(SERVE)
        """What the next start runs; the addresses and the database are added to it."""
        self._configuration = configuration
        self._log = directory / "worker.log"
        self._context = zmq.Context()
        self._clients: list[Session | TapReader] = []
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.command} process={self._process and self._process.pid}>"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and wait until it answers a hello."""
        self.launch()
        # A hello for a protocol that nobody speaks is answered, and leaves no trace in the database.
        with Session(self) as probe:
            probe.send(op="hello", request=0, protocol=999_999, bot="probe")
            probe.receive()

    def launch(self) -> None:
        """Start the process, and wait for nothing."""
        stored = ["--engine", self.engine] if self.engine else ["--database", str(self.database)]
        arguments = ["--bind", self.command, "--tap", self.tap, *stored]
        if self._configuration:
            path = self.directory / "worker.toml"
            path.write_text(self._configuration, encoding="utf-8")
            arguments += ["--config", str(path)]
        self._process = self._spawn(arguments)

    def _spawn(self, arguments: Sequence[str]) -> Process:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self.serve, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def session(self, bot: str | None = None, **fields: Any) -> Session:
        """Connect, and say hello where a bot is named."""
        session = Session(self)
        self._clients.append(session)
        if bot is not None:
            session.hello(bot, **fields)
        return session

    def tap_reader(self, *channels: str, heads: Sequence[str] = ()) -> TapReader:
        """Connect to the tap."""
        reader = TapReader(self, channels, heads=heads)
        self._clients.append(reader)
        return reader

    def plain_connection(self) -> socket.socket:
        """Connect to the command port without ZeroMQ."""
        host, port = self.command.removeprefix("tcp://").split(":")
        return socket.create_connection((host, int(port)), TIMEOUT_SECONDS)

    def kill(self) -> None:
        """End the process as a power cut would: no handler runs."""
        process = self._running()
        process.kill()
        process.wait(TIMEOUT_SECONDS)

    def stop(self) -> None:
        """End the process in order."""
        self.signal(signal.SIGTERM)
        assert self.exit_code() == 0, self.log_tail()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, and return at once."""
        self._running().send_signal(number)

    @property
    def pid(self) -> int:
        """The process id of the one that runs, or ran last."""
        return self._running().pid

    def exit_code(self) -> int:
        """Wait for the process to end by itself."""
        return self._running().wait(TIMEOUT_SECONDS)

    def has_ended(self) -> bool:
        """Tell whether the process is gone, so that nothing more will be answered."""
        return self._running().poll() is not None

    def log_tail(self) -> str:
        """Give the end of what the process wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def close_clients(self) -> None:
        """Close every socket that was opened through here."""
        while self._clients:
            self._clients.pop().close()

    def close(self) -> None:
        """End the process and everything connected to it."""
        self.close_clients()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(TIMEOUT_SECONDS)
        self._context.term()

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        """Open a socket that drops what it has left when it is closed."""
        opened: zmq.Socket[bytes] = self._context.socket(kind)
        opened.linger = 0
        return opened

    def _running(self) -> Process:
        if self._process is None:
            raise AssertionError("the worker was not started")
        return self._process
