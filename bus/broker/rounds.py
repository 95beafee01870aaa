"""The order of a session's workflow calls.

Consecutive calls are carried out in order. Writes enter the store's one queue without waiting for each other, so
that they share a commit, and so do reads; but a read waits for the writes before it, and a write for the reads. Few
reads of a session are carried out at once: its records may be large, and others' calls come between them.
"""

from __future__ import annotations

import anyio

__all__ = ["Round"]

_READS_AT_ONCE = 2
"""Reads of one session: one by the store, while the answer to the other is written."""


class Round:
    """Consecutive calls of one session, either all writes or all reads, after those that came before."""

    __slots__ = ("_turns", "_waiting", "after", "done", "open", "writes")

    def __init__(self, writes: bool, after: Round | None) -> None:
        self.writes = writes
        self.after = after
        self.open = 0
        self.done = anyio.Event()
        self._waiting = 0
        self._turns: anyio.Semaphore | None = None

    @property
    def turns(self) -> anyio.Semaphore:
        """Lets some reads at a time through, so that those of other sessions come between them."""
        if self._turns is None:
            self._turns = anyio.Semaphore(_READS_AT_ONCE, fast_acquire=True)
        return self._turns

    def arrive(self) -> bool:
        """Return True if a call that arrives has to `wait`: the calls before are not done, or others still wait."""
        waits = self._waiting > 0 or (self.after is not None and not self.after.done.is_set())
        self._waiting += waits
        return waits

    async def wait(self) -> None:
        """Return when the calls before are done, in the order in which calls arrived."""
        if self.after is not None:
            await self.after.done.wait()
        self._waiting -= 1
