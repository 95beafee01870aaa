"""Several processes of one bot, or one that is started again when its files change.

Owns the processes: how many there are, when one is started again, and how all are stopped. Its rules:

- Each has a process group of its own, so that Ctrl-C reaches only the supervisor, which passes it on once. A second
  one is passed on too, and cancels what the handlers do.
- A process that failed is started again after a pause, which grows while it fails soon. One that cannot work, as
  its exit code says, ends them all. One that has ended in order is left so.
- With a watched folder, a change of a Python file starts all of them again, and one that failed waits for a change.
- If the supervisor is killed, its processes end: each holds the end of a pipe, and stops when the other closes.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from ..signals import received_signals, send_signal
from .streams import EXIT_CONFIG, EXIT_DENIED, EXIT_SIGNAL

__all__ = ["Supervisor", "python_files", "stop_with_supervisor"]

_PIPE = "POSTHOUSE_SUPERVISOR"
"""The environment variable with the descriptor of the pipe."""

_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
_SOON_SECONDS = 60.0
"""Who works for longer than this had nothing to do with the failures before."""

_USAGE = 2
_TERMINATED = EXIT_SIGNAL + signal.SIGTERM
"""Of who was stopped before it could do so in order."""
_HOPELESS = (_USAGE, EXIT_CONFIG, EXIT_DENIED)
"""The exit codes of what fails again each time, until somebody mends it."""

_SKIPPED = ("__pycache__", "node_modules", "site-packages")

_logger = logging.getLogger("posthouse.bot")


class Supervisor:
    """Keeps processes of a command running until a signal; `watched` is a folder whose Python files may change."""

    def __init__(self, command: Sequence[str], *, count: int, watched: Path | None = None) -> None:
        self._command = list(command)
        self._count = count
        self._watched = watched
        self._processes: dict[int, anyio.abc.Process] = {}
        self._stopped = anyio.Event()
        self._changes = 0
        self._changed = anyio.Event()
        self._code = 0

    def __repr__(self) -> str:
        return f"<Supervisor of {len(self._processes)} of {self._count}>"

    async def run(self) -> int:
        """Run until all processes have ended, and return the exit code: 0, or that of the first one that failed."""
        reading, writing = os.pipe()
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._heed_signals)
                if self._watched is not None:
                    tasks.start_soon(self._watch, self._watched)
                async with anyio.create_task_group() as keeping:
                    for number in range(1, self._count + 1):
                        keeping.start_soon(self._keep, number, reading)
                tasks.cancel_scope.cancel()
        finally:
            os.close(reading)
            os.close(writing)
        return self._code

    async def _keep(self, number: int, pipe: int) -> None:
        """Start a process again and again, until there is no use, or everything stops."""
        failures = 0
        while not self._stopped.is_set():
            changes, began = self._changes, anyio.current_time()
            code = await self._ended(number, pipe, changes)
            if self._stopped.is_set():
                self._code = self._code or (0 if code == _TERMINATED else code)
                return
            if self._changes != changes:
                failures = 0
                continue
            if self._watched is not None:
                _logger.warning("process %d ended with %d; it is started again when a file changes", number, code)
                await self._changed.wait()
            elif code == 0:
                return
            elif code in _HOPELESS:
                self._code = code
                self._stop(signal.SIGTERM)
            else:
                failures = 1 if anyio.current_time() - began > _SOON_SECONDS else failures + 1
                pause = _PAUSE_SECONDS[min(failures, len(_PAUSE_SECONDS)) - 1]
                _logger.error("process %d ended with %d; it is started again in %g s", number, code, pause)
                with anyio.move_on_after(pause):
                    await self._changed.wait()

    async def _ended(self, number: int, pipe: int, changes: int) -> int:
        """Start a process, and return its exit code as a shell would say it."""
        process = await anyio.open_process(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=None,
            stderr=None,
            env={**os.environ, _PIPE: str(pipe)},
            start_new_session=True,
            pass_fds=(pipe,),
        )
        async with process:
            self._processes[number] = process
            if self._stopped.is_set() or self._changes != changes:  # it was started just then
                send_signal(process, signal.SIGTERM)
            try:
                code = await process.wait()
            finally:
                del self._processes[number]
        return code if code >= 0 else EXIT_SIGNAL - code

    def _stop(self, number: signal.Signals) -> None:
        self._stopped.set()
        self._changed.set()
        for process in self._processes.values():
            send_signal(process, number)

    async def _heed_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with received_signals("SIGINT", "SIGTERM", "SIGHUP") as signals:
            task_status.started()
            async for _ in signals:
                self._stop(signal.SIGTERM)

    async def _watch(self, folder: Path) -> None:
        """Stop all processes when a file changes: each is started again then."""
        seen = await anyio.to_thread.run_sync(python_files, folder)
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            found = await anyio.to_thread.run_sync(python_files, folder)
            changed = sorted(path for path, _ in seen.items() ^ found.items())
            if changed and not self._stopped.is_set():
                seen = found
                _logger.info("%s changed: starting again", changed[0].removeprefix(f"{folder}/"))
                self._changes += 1
                before, self._changed = self._changed, anyio.Event()
                before.set()
                for process in self._processes.values():
                    send_signal(process, signal.SIGTERM)


def python_files(folder: Path) -> dict[str, int]:
    """Return when each Python file in a folder was changed; without hidden folders and environments."""
    return dict(_files(str(folder)))


def _files(folder: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it has gone, or cannot be read
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path)
            elif entry.name.endswith(".py"):
                yield entry.path, entry.stat().st_mtime_ns
        except OSError:
            continue


def stop_with_supervisor() -> bool:
    """Let this process be stopped when its supervisor is gone; return False if it has none."""
    pipe = os.environ.pop(_PIPE, None)
    if pipe is None:
        return False

    def wait() -> None:
        os.read(int(pipe), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="supervisor", daemon=True).start()
    return True
