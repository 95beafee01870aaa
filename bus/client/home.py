"""Where a bot lives: one run of one event loop, in one thread of one process.

Owns the check that a call is made there. Anywhere else it would wait forever: an event set in one loop wakes no
task in another, and no timeout would apply.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

__all__ = ["Home"]


class Home:
    """The place where something is connected; `what` names it in errors."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._process: int | None = None
        self._thread = ""
        self._place: tuple[int, Any, Any] | None = None
        self._left = False

    def __repr__(self) -> str:
        return f"<Home of {self._what} in thread {self._thread!r} of process {self._process}>"

    def enter(self) -> None:
        """Note that this is the place."""
        self._process, self._thread, self._place = os.getpid(), threading.current_thread().name, _place()

    def leave(self) -> None:
        """Allow calls everywhere: nothing is waited for any more."""
        self._left = True

    def check(self) -> None:
        """Raise RuntimeError, which says what to do, if this is another process, thread or run of a loop."""
        if self._left:
            return
        if self._place is None:
            raise RuntimeError(f"{self._what} is not connected: use it inside `async with bus.connect(…) as bot:`")
        if os.getpid() != self._process:
            raise RuntimeError(
                f"{self._what} was connected in process {self._process}, and this process was forked from it:"
                " create and connect a bot here"
            )
        if _place() != self._place:
            raise RuntimeError(
                f"{self._what} is connected in the event loop of thread {self._thread!r}, and this call was made"
                " outside of it: make it there, with anyio.from_thread.run or asyncio.run_coroutine_threadsafe,"
                " or connect one bot in every event loop"
            )


def _place() -> tuple[int, Any, Any]:
    """Return the thread and the run of asyncio, of trio, or of both if one runs inside the other."""
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
    return threading.get_ident(), loop, token
