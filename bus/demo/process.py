"""A worker process: started, killed, restarted on the same file, and stopped gracefully.

Owns the process and its addresses. It ends only what it started, however its context is left.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import anyio
import anyio.abc

from ..errors import BusError

__all__ = ["WorkerFailed", "WorkerProcess"]

_PORTS = (20_000, 32_000)
"""Below the ports that systems use for outgoing connections: a bot that reconnects to the killed worker's port
could otherwise connect to itself, and the worker could not bind the port again."""

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02

_ROOT = Path(__file__).resolve().parents[1]
"""The folder that has both `bus` and the module `worker`, however they are installed."""


class WorkerFailed(BusError):
    """The worker process did not start, or ended unexpectedly."""


class WorkerProcess:
    """A worker process on its own file, always at the same address."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "demo.db"
        self._log = folder / "worker.log"
        command, self._tap = _free_addresses(2)
        self.url = command
        self._process: anyio.abc.Process | None = None

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.url} process={self.pid}>"

    async def __aenter__(self) -> WorkerProcess:
        try:
            await self.start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def pid(self) -> int:
        """The process id of the running process, or of the last one."""
        return self._process.pid if self._process is not None else 0

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process is None or self._process.returncode is not None

    def failed(self) -> WorkerFailed:
        """Return the error for a process that ended unexpectedly, with its last line of output."""
        code = self._process.returncode if self._process is not None else None
        tail = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return WorkerFailed(f"the worker ended with exit code {code}: {' '.join(tail)}")

    async def start(self) -> None:
        """Start it and wait until it serves."""
        begin = self._log.stat().st_size if self._log.exists() else 0
        arguments = ["--bind", self.url, "--tap", self._tap, "--database", str(self.database)]
        with self._log.open("ab") as log:
            self._process = await anyio.open_process(
                [sys.executable, "-m", "worker", "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
            )
        with anyio.move_on_after(_START_SECONDS):
            while b'"serving"' not in self._log.read_bytes()[begin:]:
                if self.has_ended:
                    raise self.failed()
                await anyio.sleep(_POLL_SECONDS)
            return
        raise WorkerFailed(f"the worker did not serve within {_START_SECONDS:g} s")

    async def kill(self) -> None:
        """Kill it with SIGKILL, which it cannot handle."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> int:
        """Stop it gracefully, and return its exit code."""
        assert self._process is not None
        self._process.terminate()
        with anyio.fail_after(_STOP_SECONDS):
            return await self._process.wait()

    async def check(self) -> bool:
        """Run `posthouse check` on the file; return True if it found no damage."""
        command = [sys.executable, "-m", "worker", "check", "--json", str(self.database)]
        return (await anyio.run_process(command, check=False, cwd=_ROOT)).returncode == 0

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True), suppress(ProcessLookupError):
            if not self.has_ended:
                try:
                    await self.stop()
                except TimeoutError:
                    await self.kill()


def _free_addresses(count: int) -> list[str]:
    """Find different ports that are free now, by binding them all at once."""
    bound: list[socket.socket] = []
    try:
        for port in random.sample(range(*_PORTS), 200):
            each = socket.socket()
            bound.append(each)
            try:
                each.bind(("127.0.0.1", port))
            except OSError:
                bound.pop().close()
            if len(bound) == count:
                return [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in bound]
    finally:
        for each in bound:
            each.close()
    raise WorkerFailed(f"no free port from {_PORTS[0]} to {_PORTS[1]} on 127.0.0.1")
