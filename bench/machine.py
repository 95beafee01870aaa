"""The machine that a benchmark runs on: what to know of it beside the figures, and nothing that names it.

Owns the look at the operating system. What a system does not tell is None, and no benchmark depends on it.
"""

from __future__ import annotations

import os
import platform
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = [
    "CORES",
    "LOAD_MAX",
    "Busy",
    "Watched",
    "allow_files",
    "busy_seconds",
    "facts",
    "load",
    "memory_bytes",
    "pin",
    "processor_seconds",
    "tree_seconds",
    "unsent_bytes",
    "wait_until_quiet",
]

CORES = 2
"""What a whole comparison runs on: the servers and all of their clients together."""

LOAD_MAX = (os.cpu_count() or CORES) / 2
"""The load above which figures say little: half of the cores are at work for somebody else."""

_LOAD_SECONDS = 5.0
"""How often the system computes its load."""

_LOOK_SECONDS = 0.1

_CONNECTIONS = Path("/proc/net/tcp")


class Busy(Exception):
    """Other programs are running."""


def facts() -> dict[str, Any]:
    """Describe the machine and this Python."""
    return {
        "cpu_count": os.cpu_count(),
        "system": platform.system(),
        "kernel": platform.release().partition("-")[0],
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load() -> float:
    """Give the mean number of processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)


def wait_until_quiet(
    load_max: float,
    seconds: float,
    *,
    look: Callable[[], float] = load,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the load is at most `load_max`. Raise Busy if that takes longer than so many seconds."""
    waited = 0.0
    while (found := look()) > load_max:
        if waited >= seconds:
            raise Busy(f"the load is {found:g}, above {load_max:g}: other programs disturb the measurement")
        sleep(_LOAD_SECONDS)
        waited += _LOAD_SECONDS


def unsent_bytes(port: int) -> int | None:
    """Give the most that the kernel holds for one TCP connection of a local port, and its peer does not take."""
    try:
        lines = _CONNECTIONS.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    rows = [line.split() for line in lines]
    return max((int(row[4].partition(":")[0], 16) for row in rows if int(row[1][-4:], 16) == port), default=0)


def pin() -> None:
    """Keep this process, and all that it starts, on the first two cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def memory_bytes(pid: int) -> int:
    """Give the memory that a process and its children hold (their resident sets), without what they share."""
    total = 0
    pending = [pid]
    while pending:
        current = Path("/proc", str(pending.pop()))
        try:
            words = current.joinpath("statm").read_text(encoding="ascii").split()
            for task in current.joinpath("task").iterdir():
                pending += map(int, task.joinpath("children").read_text(encoding="ascii").split())
        except OSError:
            continue  # it has ended in the meantime
        total += (int(words[1]) - int(words[2])) * os.sysconf("SC_PAGE_SIZE")
    return total


def processor_seconds(pid: int) -> tuple[float, float]:
    """Give the processor time of a process's main thread, and that of all its other threads, ended ones included.

    Both are 0 where the system does not tell.
    """
    process = Path("/proc", str(pid))
    try:
        main = _seconds(process / "task" / str(pid) / "stat")
        return main, max(0.0, _seconds(process / "stat") - main)
    except OSError:
        return 0.0, 0.0


def tree_seconds(pid: int) -> float:
    """Give the processor time of a process, of all that it started, and of those of them that have ended."""
    total = 0.0
    pending = [pid]
    while pending:
        process = Path("/proc", str(pending.pop()))
        try:
            total += _seconds(process / "stat", 4)
            for task in process.joinpath("task").iterdir():
                pending += map(int, task.joinpath("children").read_text(encoding="ascii").split())
        except OSError:
            continue  # it has ended in the meantime: its parent has what it took
    return total


def busy_seconds() -> float:
    """Give how long all processors together were at work since the start, or taken by the machine's host.

    It is 0 where the system does not tell.
    """
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _, _, interrupts, softly, stolen = map(int, words[1:9])
    return (user + nice + system + interrupts + softly + stolen) / os.sysconf("SC_CLK_TCK")


def _seconds(file: Path, fields: int = 2) -> float:
    """Add up user's and system's time, with 4 fields also those of children that were waited for."""
    words = file.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return sum(map(int, words[11 : 11 + fields])) / os.sysconf("SC_CLK_TCK")


class Watched:
    """Looks at a figure again and again while a block runs, and keeps the most that it was."""

    def __init__(self, look: Callable[[], int]) -> None:
        self.most = 0
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __repr__(self) -> str:
        return f"<Watched most={self.most}>"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self.most = max(self.most, self._look())


def allow_files() -> int:
    """Allow this process, and what it starts, as many open files as it may have; give their number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
