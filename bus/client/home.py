"""Where a bot lives: one run of one event loop, in one thread of one process.

Owns the check that a call is made there. Anywhere else it would wait forever: an event set in one loop wakes no
task in another, and no timeout would apply.

Also owns what a bot asks of that loop for every message: the time, and something to wait for. anyio finds out anew
each time which loop is running, which takes longer than what is done with it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio

__all__ = ["Event", "Home", "running_loops"]


class Event(Protocol):
    """Something that one task waits for until it is set."""

    def set(self) -> None:
        """Wake the task, or let it not wait at all."""

    def wait(self) -> Awaitable[None]:
        """Wait until it is set."""


class Home:
    """The place where something is connected; `what` names it in errors."""

    def __init__(self, what: str) -> None:
        self.now: Callable[[], float] = anyio.current_time
        """Return the time by the loop's clock."""
        self._what = what
        self._process: int | None = None
        self._generation = _generation
        self._thread = ""
        self._thread_id = 0
        self._place: tuple[Any, Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop; None on trio."""
        self._left = False

    def __repr__(self) -> str:
        return f"<Home of {self._what} in thread {self._thread!r} of process {self._process}>"

    def enter(self) -> None:
        """Note that this is the place."""
        self._process, self._generation, self._place = os.getpid(), _generation, running_loops()
        self._thread, self._thread_id = threading.current_thread().name, threading.get_ident()
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            self._loop = asyncio.get_running_loop()
            self.now = self._loop.time

    def event(self) -> Event:
        """Return a new event, for one task of this place to wait for."""
        return anyio.Event() if self._loop is None else _Future(self._loop)

    def task(self) -> object:
        """Return the task that is running here, or this place if none is."""
        if self._loop is None:
            return sys.modules["trio.lowlevel"].current_task()
        return asyncio.current_task(self._loop) or self

    def leave(self) -> None:
        """Allow calls everywhere: nothing is waited for any more."""
        self._left = True

    def check(self) -> None:
        """Raise RuntimeError, which says what to do, if this is another process, thread or run of a loop."""
        if self._left:
            return
        if self._is_here():
            return
        if self._place is None:
            raise RuntimeError(f"{self._what} is not connected: use it inside `async with bus.connect(…) as bot:`")
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self._what} was connected in process {self._process}, and this process was forked from it:"
                " create and connect a bot here"
            )
        raise RuntimeError(
            f"{self._what} is connected in the event loop of thread {self._thread!r}, and this call was made"
            " outside of it: make it there, with anyio.from_thread.run or asyncio.run_coroutine_threadsafe,"
            " or connect one bot in every event loop"
        )

    def _is_here(self) -> bool:
        if self._generation is not _generation:
            return False
        if self._loop is not None and "trio" not in sys.modules:
            # Faster than to ask for the running loop, which costs a system call before Python 3.12. The thread that
            # runs a loop of asyncio runs no other one meanwhile, except one of trio.
            return threading.get_ident() == self._thread_id and self._loop.is_running()
        return running_loops() == self._place


_generation = object()
"""Stands for this process: one that is forked from it has another."""


def _forked() -> None:
    global _generation
    _generation = object()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forked)


class _Future:
    """An event of asyncio's that is no more than a future."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        return self._future


def running_loops() -> tuple[Any, Any]:
    """Return the runs of asyncio and of trio in this thread; None for one that has none here."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    token, trio = None, sys.modules.get("trio.lowlevel")
    if trio is not None:
        try:
            token = trio.current_trio_token()
        except RuntimeError:
            token = None
    return loop, token
