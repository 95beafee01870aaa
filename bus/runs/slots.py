"""Who waits for a slot in this program: the first of them is woken when a run of the same kind stops running.

Owns the order of these waits. It grants nothing: whoever is woken claims its run, and the worker decides. What runs
of other programs leave free is noticed by claiming again from time to time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["SlotKey", "SlotQueue", "SlotTurn"]

SlotKey = tuple[str, str | None]
"""What shares slots: a workflow's id and a concurrency key."""


class SlotTurn:
    """One run's turn to claim: it is queued while it waits for a slot."""

    def __init__(self, queue: list[SlotTurn]) -> None:
        self._queue = queue
        self.woken = anyio.Event()
        """Set when a slot may be free."""

    def begin(self) -> None:
        """Note that the run is claimed now: what becomes free from here on wakes it again."""
        self.woken = anyio.Event()

    def wait(self) -> anyio.Event:
        """Keep a place in the queue, and return the event that is set when a slot may be free."""
        if self not in self._queue:
            self._queue.append(self)
        return self.woken


class SlotQueue:
    """The waits for slots of one program, in the order in which they began."""

    def __init__(self) -> None:
        self._queues: dict[SlotKey, list[SlotTurn]] = {}

    def __repr__(self) -> str:
        return f"<SlotQueue {sum(map(len, self._queues.values()))} waiting>"

    @contextmanager
    def turn(self, key: SlotKey) -> Iterator[SlotTurn]:
        """Return a context for claiming a run, with the run's turn."""
        queue = self._queues.setdefault(key, [])
        turn = SlotTurn(queue)
        try:
            yield turn
        finally:
            if turn in queue:
                queue.remove(turn)
            if turn.woken.is_set():
                self.freed(key)  # it was woken, and did not claim
            if not queue and self._queues.get(key) is queue:
                del self._queues[key]

    def freed(self, key: SlotKey) -> None:
        """Wake the first that was not woken yet."""
        for turn in self._queues.get(key, ()):
            if not turn.woken.is_set():
                turn.woken.set()
                return
