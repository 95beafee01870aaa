"""Frames and messages that wait for the worker's answer, and for how long.

Owns the one timer that ends their waits. A timer for each would cost the event loop as much as sending the frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import anyio
import msgspec

from ..errors import BusError
from ..wire.frames import StoredMessage

__all__ = ["Awaited", "Deadlines", "Receipt", "Request", "Ticket"]

_LOOK_SECONDS = 10.0
"""How long the timer sleeps if nothing is due sooner: later deadlines need not wake it."""


class Receipt(msgspec.Struct, frozen=True):
    """Confirmation that a message is on the worker's disk.

    `seq` is its place in the log, or 0 if it is `scheduled`: then it gets its place when it is due. With
    `duplicate` it had already been stored before, under the same id.
    """

    id: str
    seq: int
    duplicate: bool = False
    scheduled: bool = False


class Awaited:
    """Something to wait for until it is `done` or `overdue`."""

    __slots__ = ("done", "due_at", "overdue")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.due_at = math.inf
        self.overdue = False


class Ticket(Awaited):
    """The messages of one call, and the outcome of each: a receipt or an error."""

    __slots__ = ("ids", "open", "outcomes", "payloads")

    def __init__(self, ids: list[str], payloads: list[bytes]) -> None:
        super().__init__()
        self.ids = ids
        self.payloads = payloads
        self.outcomes: list[Receipt | BusError | None] = [None] * len(ids)
        self.open = len(ids)

    def settle(self, index: int, outcome: Receipt | BusError) -> None:
        """Note the outcome of a message; the first one counts."""
        if self.outcomes[index] is None:
            self.outcomes[index] = outcome
            self.open -= 1
            if not self.open:
                self.done.set()


class Request(Awaited):
    """A frame that waits for its answer; a publish frame has the `places` of its messages in their tickets."""

    __slots__ = ("error", "frame", "once", "places", "settles", "value")

    def __init__(
        self,
        frame: bytes,
        places: list[tuple[Ticket, int]] | None = None,
        *,
        once: bool = False,
        settles: Sequence[StoredMessage] = (),
    ) -> None:
        super().__init__()
        self.frame = frame
        self.places = places
        self.once = once
        """Whether it is valid in its own session only, and is not repeated."""
        self.settles = settles
        """The messages that it settles: it is not repeated if the worker has another log."""
        self.value: msgspec.Raw | None = None
        self.error: BusError | None = None


class Deadlines:
    """Ends waits that take too long, while `run` is running."""

    def __init__(self) -> None:
        self._awaited: dict[Awaited, None] = {}
        self._looks_at = 0.0
        self._sooner = anyio.Event()

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._awaited)}>"

    async def wait(self, awaited: Awaited, due_at: float) -> None:
        """Wait until something is done. Raises TimeoutError if it is not by `due_at`, by the loop's clock."""
        awaited.due_at = due_at
        self._awaited[awaited] = None
        if due_at < self._looks_at:
            self._sooner.set()
        try:
            await awaited.done.wait()
        finally:
            del self._awaited[awaited]
        if awaited.overdue:
            raise TimeoutError

    async def run(self) -> None:
        """End overdue waits until cancelled."""
        while True:
            now = anyio.current_time()
            self._looks_at = now + _LOOK_SECONDS
            for awaited in self._awaited:
                if awaited.due_at > now:
                    self._looks_at = min(self._looks_at, awaited.due_at)
                elif not awaited.done.is_set():
                    awaited.overdue = True
                    awaited.done.set()
            self._sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._looks_at):
                await self._sooner.wait()
