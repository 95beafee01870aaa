"""Sees every blocking call that is made in an event loop's thread on behalf of `bus` or `store`.

Owns a profile function: Python tells it of each call into C, with the function and the stack, in whatever loop. It
replaces nothing and raises nothing, so that no handler can swallow what it found. (The package blockbuster does it
by exchanging built-in functions for ones that raise; it knows asyncio alone, and neither `open` nor `os.pwrite`,
`os.fsync` or `fcntl.flock`.) It does not see what C calls without Python, and so not what ZeroMQ waits for: a
receive that blocks would hang a test, and not be named.
"""

from __future__ import annotations

import io
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["ROOT", "Call", "Watch"]

ROOT = Path(__file__).resolve().parents[2]

_OURS = (f"{ROOT}/bus/", f"{ROOT}/store/")

_FUNCTIONS: dict[str, frozenset[str] | None] = {
    "_posixsubprocess": None,
    "_socket": frozenset({"getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"}),
    "_sqlite3": frozenset({"connect"}),
    "builtins": frozenset({"input"}),
    "fcntl": None,
    "io": frozenset({"open", "open_code"}),
    "posix": None,
    "select": frozenset({"poll", "select"}),
    "time": frozenset({"sleep"}),
}
"""Functions that may wait, by module; None means all but the harmless ones."""

_HARMLESS = frozenset({"close", "fspath", "getpid", "urandom"})
"""What asks the kernel for nothing that a disk or a peer could delay. A lock file is closed once, at the end."""

_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
_FILE_METHODS = frozenset(
    {
        "flush", "read", "read1", "readall", "readinto", "readinto1", "readline", "readlines", "truncate", "write",
        "writelines",
    }
)  # fmt: skip
_SOCKET_METHODS = frozenset({"accept", "connect", "recv", "recv_into", "recvfrom", "send", "sendall", "sendto"})

_WAITS = {
    function.__code__: name
    for name, function in {
        "threading.Condition.wait": threading.Condition.wait,
        "threading.Thread.join": threading.Thread.join,
        "subprocess.Popen.wait": subprocess.Popen.wait,
    }.items()
}
"""Functions in Python that wait for a thread or process; events, queues and futures wait through the first."""

_THREAD_START = threading.Thread.start.__code__
"""It waits for the new thread's first step, and for nothing else."""

_SQLITE_THREADS = ("/aiosqlite/", "store/sqlite/file/schema.py")
"""Who may use SQLite outside the loop: aiosqlite, and the look at the file before it is opened, in a thread."""


class Call(NamedTuple):
    """A blocking call: what was called, and where in our code."""

    what: str
    where: str


class Watch:
    """Watches the thread in which it is entered, and how the threads that are started meanwhile use SQLite."""

    def __init__(self) -> None:
        self.calls: Counter[Call] = Counter()
        """What blocked the loop's thread."""
        self.strangers: Counter[Call] = Counter()
        """SQLite in threads that are not aiosqlite's."""
        self.sqlite_calls = 0
        """SQLite in threads that are."""
        self._thread = threading.get_ident()

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        threading.setprofile(self._look)
        sys.setprofile(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _look(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            what = _blocking(argument)
        elif event == "call":
            what = _WAITS.get(frame.f_code)
        else:
            return
        if what is None:
            return
        if threading.get_ident() == self._thread:
            where = _where(frame)
            if where is not None:
                self.calls[Call(what, where)] += 1
        elif what.startswith("sqlite3."):
            if any(each in code for code in _files(frame) for each in _SQLITE_THREADS):
                self.sqlite_calls += 1
            else:
                self.strangers[Call(what, frame.f_code.co_qualname)] += 1


def _blocking(function: Any) -> str | None:
    """Name a function of C if it may wait."""
    name: str = function.__name__
    owner = getattr(function, "__self__", None)
    if isinstance(owner, (sqlite3.Connection, sqlite3.Cursor)):
        return f"sqlite3.{type(owner).__name__}.{name}"
    if isinstance(owner, _FILES):
        return f"io.{type(owner).__name__}.{name}" if name in _FILE_METHODS else None
    if isinstance(owner, socket.SocketType):
        return f"socket.{name}" if name in _SOCKET_METHODS and owner.gettimeout() != 0 else None
    module = getattr(function, "__module__", None)
    if module not in _FUNCTIONS:
        return None
    names = _FUNCTIONS[module]
    if name in names if names is not None else name not in _HARMLESS:
        return f"{_MODULES.get(module, module)}.{name}"
    return None


_MODULES = {"_socket": "socket", "_sqlite3": "sqlite3", "posix": "os"}


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _files(frame: FrameType) -> Iterator[str]:
    return (each.f_code.co_filename for each in _stack(frame))


def _where(frame: FrameType) -> str | None:
    """Give our innermost place on the stack; None where there is none, or where a module is imported there.

    An import reads files, but once, and never in a worker that has served every kind of request.
    """
    for each in _stack(frame):
        file = each.f_code.co_filename
        if file.startswith("<frozen importlib") or each.f_code is _THREAD_START:
            return None
        if file.startswith(_OURS):
            return f"{file.removeprefix(f'{ROOT}/')} {each.f_code.co_qualname}"
    return None
