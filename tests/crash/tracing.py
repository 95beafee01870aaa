"""Faults at one exact system call of a worker: strace counts its calls, and kills it at one or lets one fail.

Owns how strace is called and how its record is read. A worker that is to be killed at a call never makes it; one
that meets an error gets it in place of the call. Calls are counted a thread, as strace itself does: all of SQLite's
come from the writer's, and those on the lock file from the one that runs the event loop.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["CALLS", "COPY", "DATABASE", "FILES", "LOCK", "Place", "Point", "count_calls", "trace", "why_not"]

CALLS = ("fdatasync", "fsync", "pwrite64", "write", "ftruncate", "unlink")
"""The calls by which something comes to a disk, or goes."""

_DONE_SECONDS = 30.0

_ENDED = re.compile(rb"^(\d+) +\+\+\+ (?:exited|killed)", re.MULTILINE)
_CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


class Place(NamedTuple):
    """Some files of a database, by what their names end with; None is their folder."""

    name: str
    suffixes: tuple[str | None, ...]

    def paths(self, database: Path) -> list[Path]:
        """Give the files, whether they are there or not."""
        return [
            database.parent if suffix is None else database.with_name(database.name + suffix)
            for suffix in self.suffixes
        ]


DATABASE = Place("database", ("", "-wal", "-journal", None))
"""What SQLite keeps on the disk; the -shm is memory that looks like a file."""

FILES = Place("database's files", ("", "-wal", "-journal"))
"""The same without the folder: SQLite goes on where a folder cannot be synced, for some file systems never can."""

COPY = Place("database's own file", ("",))
"""What the WAL is copied back to."""

LOCK = Place("lock", ("-lock",))


class Point(NamedTuple):
    """One call of a run: the `number`th of its kind, counted from 1, on these files."""

    call: str
    place: Place
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number} on the {self.place.name}"


@cache
def why_not() -> str | None:
    """Say why nothing can be traced here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ["strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", "trace=fdatasync", "true"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=_DONE_SECONDS, check=False)
    return None if ended.returncode == 0 else f"strace may not trace here: {ended.stderr.strip()[-200:]}"


def trace(
    command: Sequence[str], database: Path, record: Path, *, place: Place = DATABASE, fault: str | None = None
) -> list[str]:
    """Give a command that runs under strace, with its calls on those files written down.

    `fault` is strace's word for what is to happen, and where: `fdatasync:signal=KILL:when=3`. The process that is
    started is the command itself, so that it can be killed and its exit code be read as without strace.
    """
    # Without --seccomp-bpf: with it strace sees a call too late to kill before it.
    calls = CALLS if fault is None else {*CALLS, fault.partition(":")[0]}
    traced = ["strace", "-D", "-f", "-q", "-o", str(record), "-e", f"trace={','.join(calls)}"]
    for path in place.paths(database):
        traced += ["-P", str(path)]
    if fault is not None:
        traced += ["-e", f"inject={fault}"]
    return [*traced, *command]


def count_calls(record: Path, pid: int) -> Counter[str]:
    """Count the calls of a process that has ended: for each kind, those of the thread that made the most."""
    deadline = time.monotonic() + _DONE_SECONDS
    while str(pid).encode() not in _ENDED.findall(record.read_bytes()):
        if time.monotonic() > deadline:
            raise AssertionError(f"strace did not write the end of process {pid} to {record}")
        time.sleep(0.01)
    made = Counter(_CALL.findall(record.read_text(encoding="utf-8", errors="replace")))
    counts: Counter[str] = Counter()
    for (_, call), number in made.items():
        counts[call] = max(counts[call], number)
    return counts
