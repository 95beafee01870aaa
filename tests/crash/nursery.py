"""Workers that start in a few milliseconds: one process imports everything, and forks each of them.

What takes time at a start is importing. The child is the whole worker: it runs the command line with its
arguments, on real sockets and a real file, and is killed like any process. The nursery opens nothing itself, and
has one thread.

Run as a program it takes one JSON object a line: `start` with arguments, a folder, a log, and null or a lie that
breaks the worker on purpose (see `lies`), answered with the process id; `wait` for one with a time, answered with
its exit code, or null where it still runs. It ends when its input does, and all its children with it. With `start`,
`program` names a module that is run instead of the worker, as `python -m` does, `pipes` two named ones that are its
standard input and output, and `namespace` the file of the network namespace that the child enters first.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from store.sqlite.file.schema import inspect

from ..integration.wire_worker import REPOSITORY, Process, Worker
from .namespace import enter

__all__ = ["ForkedWorker", "Nursery", "forked", "shared_nursery"]

_ANSWER_SECONDS = 60.0

_GLANCE_SECONDS = 0.002
"""How often a process that waits for another one's end looks."""


class Nursery:
    """The process that forks workers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Nursery process={self._process.pid}>"

    def close(self) -> None:
        """End the process, and all that it forked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_ANSWER_SECONDS)
        self._process.stdout.close()

    def ask(self, **question: Any) -> Any:
        """Ask the process something, and give its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:  # a test's threads all look whether their worker is there
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError("the nursery has ended; what it wrote stands above")
        return json.loads(answer)


@cache
def shared_nursery() -> Nursery:
    """Return the one nursery of this process."""
    nursery = Nursery()
    atexit.register(nursery.close)
    return nursery


class _Child:
    """A forked worker, as `subprocess.Popen` would be one."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._code: int | None = None

    def poll(self) -> int | None:
        return self._reap(0.0)

    def wait(self, timeout: float | None = None) -> int:
        seconds = _ANSWER_SECONDS if timeout is None else timeout
        code = self._reap(seconds)
        if code is None:
            raise subprocess.TimeoutExpired("worker", seconds)
        return code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int, /) -> None:
        if self._code is None:  # until it is waited for, the id is its own
            os.kill(self.pid, number)

    def _reap(self, seconds: float) -> int | None:
        if self._code is None:
            self._code = self._nursery.ask(wait=self.pid, seconds=seconds)
        return self._code


def forked(
    nursery: Nursery,
    program: str,
    arguments: Sequence[str],
    *,
    directory: Path,
    log: Path,
    pipes: tuple[Path, Path] | None = None,
) -> Process:
    """Start a program out of a nursery. What it writes goes into the log, or through the second of the pipes."""
    where: dict[str, Any] = {"directory": str(directory), "log": str(log)}
    if pipes is not None:
        where["pipes"] = [str(pipe) for pipe in pipes]
    return _Child(nursery, nursery.ask(start=list(arguments), program=program, lie=None, **where))


class ForkedWorker(Worker):
    """A worker process out of a nursery, which tells a lie where one is named."""

    def __init__(self, directory: Path, configuration: str, nursery: Nursery, *, lie: str | None = None) -> None:
        super().__init__(directory, configuration)
        self.namespace: Path | None = None
        """The network that it starts in, if it is another one."""
        self._nursery = nursery
        self._lie = lie

    def _spawn(self, arguments: Sequence[str]) -> Process:
        question = {"lie": self._lie, "directory": str(self.directory), "log": str(self._log)}
        if self.namespace is not None:
            question["namespace"] = str(self.namespace)
        return _Child(self._nursery, self._nursery.ask(start=["serve", *arguments], **question))


# ── The program ──────────────────────────────────────────────────────────────────────────────────────────


def _serve(questions: int, answers: int) -> None:
    """Answer until the input ends."""
    running: set[int] = set()
    with os.fdopen(questions, "rb", buffering=0) as lines:
        while line := lines.readline():
            question = json.loads(line)
            if "start" in question:
                pid = _start(question, (questions, answers))
                running.add(pid)
                answer: int | None = pid
            else:
                answer = _wait(question["wait"], question["seconds"])
                if answer is not None:
                    running.discard(question["wait"])
            os.write(answers, json.dumps(answer).encode() + b"\n")
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _start(question: dict[str, Any], own: Sequence[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    for descriptor in own:
        os.close(descriptor)
    log = os.open(question["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for number, pipe in enumerate(question.get("pipes", ())):
        opened = os.open(pipe, os.O_WRONLY if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(question["directory"])
    if "namespace" in question:
        enter(Path(question["namespace"]))
    import worker
    from bus.broker.log_stream import LogStream

    from .lies import tell

    if question["lie"] is not None:
        tell(question["lie"])
    try:
        if "program" in question:
            sys.argv = [question["program"], *question["start"]]
            runpy.run_module(question["program"], run_name="__main__", alter_sys=True)
            sys.exit()
        worker.main(question["start"], prog_name="posthouse")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(sys.stderr, LogStream):
        sys.stderr.finish()
    sys.stderr.flush()
    os._exit(code)


def _wait(pid: int, seconds: float) -> int | None:
    """Wait for a child's end, and give its code as `Popen` does."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_GLANCE_SECONDS)


def _main() -> None:
    # What is printed is not to be taken for an answer.
    questions, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    _import_everything()
    _serve(questions, answers)


def _import_everything() -> None:
    """Import what a worker and its libraries import only when they run.

    No garbage collection of a child looks at any of it: that would copy the memory that both share.
    """
    for name in (
        "aiosqlite",
        "anyio._backends._asyncio",
        "anyio._core._signals",
        "email.parser",
        "importlib.readers",
        "store.moving.mover",
        "store.postgresql.store",
        "store.sqlite",
        "tests.crash.lies",
        "tests.crash.voyages",
        "uvloop",
        "worker",
    ):
        import_module(name)
    inspect(Path("nowhere"))  # what it finds out of the migrations does not change
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _main()
