"""The processes of a benchmark: a worker on a fresh database, and clients that are told what to do.

Owns their beginning and their end: it ends only what it started, however the block around it is left. The worker is
the one that users run, `posthouse serve`, with the whole of its durability; the database lies in a temporary folder
beside this project, since a system's own folder for temporary files may be memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from . import machine

__all__ = ["ROOT", "BenchFailed", "Client", "Worker"]

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, in which databases lie while they are measured."""

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02

_ADDRESS = "tcp://127.0.0.1:*"
"""A port that the system chooses; the worker's log tells which."""

_PARTS = ("posthouse", "python", "sqlite", "zeromq", "pyzmq", "msgspec", "anyio", "aiosqlite")

_spawn = multiprocessing.get_context("spawn")
"""A client begins as a Python of its own: nothing of the benchmark's own process is in it."""


class BenchFailed(Exception):
    """The benchmark could not be carried through."""


class Worker:
    """A worker process, from its entry to its exit. `settings` is the text of its configuration file.

    `profile` is where cProfile is to leave what it saw of the worker, which it slows down.
    """

    def __init__(self, settings: str = "", *, profile: Path | None = None) -> None:
        self.url = ""
        self.versions: dict[str, str] = {}
        """Of the worker and what it is made of."""
        self._settings = settings
        self._profile = profile
        self._folder = tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT)
        self.database = Path(self._folder.name, "bench.db")
        self._log = Path(self._folder.name, "worker.log")
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.url} process={self._process and self._process.pid}>"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._log.exists():
            error.add_note(f"the end of the worker's log:\n{self._log_text()[-2000:]}")
        self._end()

    @property
    def port(self) -> int:
        """The port that bots connect to."""
        return int(self.url.rpartition(":")[2])

    @property
    def cpu_seconds(self) -> float:
        """What it took of the processors until now."""
        return machine.cpu_seconds(self._process.pid) if self._process is not None else 0.0

    def _start(self) -> None:
        folder = Path(self._folder.name)
        folder.joinpath("posthouse.toml").write_text(self._settings, encoding="utf-8")
        profile = ["-m", "cProfile", "-o", str(self._profile.resolve())] if self._profile is not None else []
        options = [
            "--config",
            "posthouse.toml",
            "--database",
            self.database.name,
            "--bind",
            _ADDRESS,
            "--tap",
            _ADDRESS,
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *profile, "-m", "worker", "serve", *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while (url := self._served_at()) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchFailed(f"the worker did not start:\n{self._log_text()[-2000:]}")
            time.sleep(_POLL_SECONDS)
        self.url = url

    def _served_at(self) -> str | None:
        """Give the address that the worker logs when it serves."""
        for line in self._log_text().splitlines():
            if '"event": "serving"' in line and line.endswith("}"):
                told = msgspec.json.decode(line)
                self.versions = {name: told[name] for name in _PARTS}
                return str(told["command"])
        return None

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _end(self) -> None:
        process = self._process
        try:
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(_STOP_SECONDS)
        finally:
            self._folder.cleanup()


class Client:
    """A process that runs `work(pipe, *arguments)`; it is told things and answers over the pipe.

    `work` has to end when its pipe is closed. What it raises ends the process, and is seen as an answer that does
    not come.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_run, args=(work, theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __repr__(self) -> str:
        return f"<Client process={self._process.pid}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # this reaches a process that is stopped, too
        self._process.join(_STOP_SECONDS)
        self._pipe.close()

    def tell(self, *command: Any) -> None:
        """Send a command; it is answered once."""
        self._pipe.send(command)

    def answer(self, seconds: float) -> Any:
        """Wait for the answer to the oldest command that has none."""
        try:
            if self._pipe.poll(seconds):
                return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_STOP_SECONDS)
            raise BenchFailed(f"{self!r} ended by itself, with exit code {self._process.exitcode}") from None
        raise BenchFailed(f"{self!r} did not answer within {seconds:g} s")

    def ask(self, *command: Any, seconds: float = 60.0) -> Any:
        """Send a command and wait for its answer."""
        self.tell(*command)
        return self.answer(seconds)

    def stop(self) -> None:
        """Stop the process where it is, as a debugger does; return when it stands still."""
        pid = self._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)


def _run(work: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    try:
        work(pipe, *arguments)
    except (EOFError, BrokenPipeError):
        return
