"""The processes of a benchmark: servers, a worker on a fresh database, and clients that are told what to do.

Owns their beginning and their end: it ends only what it started, however the block around it is left. The worker is
the one that users run, `posthouse serve`, with the whole of its durability. What a server keeps lies in a temporary
folder beside this project, since a system's own folder for temporary files may be memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

__all__ = ["DATABASE", "ROOT", "BenchFailed", "Client", "QuickClient", "Server", "Worker", "data_folder"]

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder, in which databases lie while they are measured."""

_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02

DATABASE = "bench.db"
"""The worker's file, in its folder."""

_PRELOADED = [f"bench.{name}" for name in ("raw", "raw_asking", "links", "through_bus", "limits")]
"""What clients run: loaded once."""

_ADDRESS = "tcp://127.0.0.1:*"
"""A port that the system chooses; the worker's log tells which."""

_LEFT_OUT = frozenset({"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"})

_PARTS = ("posthouse", "python", "sqlite", "zeromq", "pyzmq", "msgspec", "anyio", "aiosqlite")
"""Those whose versions the worker's log tells."""


class BenchFailed(Exception):
    """The benchmark could not be carried through."""


def data_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for a server's data, on this project's disk. It goes when it is cleaned up."""
    return tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT)


class Server:
    """A server process, from its start to its end, in a folder that is removed with it unless one is given.

    Subclasses say in `_command` what is run, and in `_is_ready` when it serves. A `_process_group` of 0 puts it and
    what it starts into a group of their own, and a `_user` makes them that user's, of the
    group of the same name.
    """

    _process_group: int | None = None
    _user: str | None = None

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = data_folder() if folder is None else None
        self.folder = folder or Path(self._temporary.name if self._temporary else "")
        self._log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} process={self._process and self._process.pid}>"

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
            error.add_note(f"the end of the log of {self!r}:\n{self._log_text()[-2000:]}")
        self._end()

    @property
    def pid(self) -> int:
        """The process that serves."""
        assert self._process is not None
        return self._process.pid

    def end(self, *, kill: bool = False) -> None:
        """End the process before the block is left, in order or by a kill; the folder stays."""
        self._stop(kill=kill)

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=self._process_group,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise BenchFailed(
                    f"{self!r} did not start within {_START_SECONDS:g} s:\n{self._log_text()[-2000:]}"
                )
            time.sleep(_POLL_SECONDS)

    def _log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _stop(self, *, kill: bool) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            if not kill:
                process.terminate()
                try:
                    process.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    kill = True
            if kill:
                process.kill()
                process.wait(_STOP_SECONDS)

    def _end(self) -> None:
        try:
            self._stop(kill=False)
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()


class Worker(Server):
    """A worker process. `settings` is the text of its configuration file.

    Everything is in a file of its folder, or in the database that the URL `engine` names.
    `profile` is where cProfile is to leave what it saw of the worker, which it slows down. `python` is the Python
    that runs it, of the environment in which it is installed.
    """

    def __init__(
        self,
        settings: str = "",
        *,
        profile: Path | None = None,
        folder: Path | None = None,
        python: str = sys.executable,
        engine: str | None = None,
    ) -> None:
        super().__init__(folder)
        self._engine = engine
        self._python = python
        self.url = ""
        self.versions: dict[str, str] = {}
        """Of the worker and what it is made of."""
        self._settings = settings
        self._profile = profile

    def __repr__(self) -> str:
        return f"<Worker {self.url} process={self._process and self._process.pid}>"

    @property
    def port(self) -> int:
        """The port that bots connect to."""
        return int(self.url.rpartition(":")[2])

    @property
    def database(self) -> Path:
        """The file that it serves."""
        return self.folder / DATABASE

    def _command(self) -> Sequence[str]:
        self.folder.joinpath("posthouse.toml").write_text(self._settings, encoding="utf-8")
        program = ["worker"] if self._profile is None else ["bench.profiled", str(self._profile.resolve())]
        store = ["--database", DATABASE] if self._engine is None else ["--engine", self._engine]
        options = ["--config", "posthouse.toml", *store, "--bind", _ADDRESS, "--tap", _ADDRESS]
        return [self._python, "-m", *program, "serve", *options]

    def _environment(self) -> dict[str, str]:
        """Return the environment without what makes it another worker, or one that compiles itself each time."""
        environment = super()._environment()
        return {name: value for name, value in environment.items() if name not in _LEFT_OUT}

    def _is_ready(self) -> bool:
        """Look whether the worker's log tells the address at which it serves."""
        for line in self._log_text().splitlines():
            if '"event": "serving"' in line and line.endswith("}"):
                told = msgspec.json.decode(line)
                self.url = str(told["command"])
                self.versions = {name: told[name] for name in _PARTS if name in told}
                return True
        return False


class Client:
    """A process that runs `work(pipe, *arguments)`; it is told things and answers over the pipe.

    `work` has to end when its pipe is closed. What it raises ends the process, and is seen as an answer that does
    not come.
    """

    _context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
    """A client begins as a Python of its own: nothing of the benchmark's own process is in it."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_run, args=(work, theirs, *arguments), daemon=True)
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


class QuickClient(Client):
    """A client that begins as a copy of a Python that has its modules loaded, and nothing else: it starts at once.

    It cannot be stopped where it is, since it is not a child of this process.
    """

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(_PRELOADED)


def _run(work: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this ends it
    try:
        work(pipe, *arguments)
    except (EOFError, BrokenPipeError):
        return
