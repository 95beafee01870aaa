"""Room for calls: how many of them a bot leaves unanswered at once, so that the worker need not refuse any.

Owns the order in which calls wait for room. A program may begin thousands of steps side by side; the worker takes a
few thousand calls of all bots together.
"""

from __future__ import annotations

from collections import deque

import anyio

__all__ = ["CALLS_BYTES_MAX", "CALLS_MAX", "CallRoom"]

CALLS_MAX = 1000
"""Calls of one bot: a quarter of what a worker takes of all, and enough to fill its commits."""

CALLS_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of their arguments: few enough for the worker to carry them out at once, and enough to fill its commits."""


class _Wait:
    """A call that waits, with the size of its arguments."""

    __slots__ = ("entered", "event", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.event = anyio.Event()
        self.entered = False


class CallRoom:
    """See the module. A call that is larger than all the room has it alone."""

    def __init__(self) -> None:
        self._calls = 0
        self._bytes = 0
        self._waiting: deque[_Wait] = deque()

    def __repr__(self) -> str:
        return f"<CallRoom calls={self._calls} bytes={self._bytes} waiting={len(self._waiting)}>"

    def enter_now(self, size_bytes: int) -> bool:
        """Enter, if no other call waits and there is room; return whether it did."""
        if self._waiting or not self._fits(size_bytes):
            return False
        self._calls += 1
        self._bytes += size_bytes
        return True

    def _fits(self, size_bytes: int) -> bool:
        return self._calls < CALLS_MAX and (not self._calls or self._bytes + size_bytes <= CALLS_BYTES_MAX)

    async def enter(self, size_bytes: int) -> None:
        """Enter when it is this call's turn."""
        if self.enter_now(size_bytes):
            return
        wait = _Wait(size_bytes)
        self._waiting.append(wait)
        try:
            await wait.event.wait()
        except BaseException:
            if wait.entered:
                self.leave(size_bytes)
            else:
                self._waiting.remove(wait)
                self._let_in()
            raise

    def leave(self, size_bytes: int) -> None:
        """Leave, and let others in."""
        self._calls -= 1
        self._bytes -= size_bytes
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size_bytes):
            wait = self._waiting.popleft()
            self._calls += 1
            self._bytes += wait.size_bytes
            wait.entered = True
            wait.event.set()
