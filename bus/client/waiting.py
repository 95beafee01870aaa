"""Frames and messages that wait for the worker's answer, and for how long.

Owns the one timer that ends their waits. A timer for each would cost the event loop as much as sending the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import anyio
import msgspec

from ..errors import BusError, request_error
from ..wire.frames import RETRY, ItemError, Ok, Published, StoredMessage
from ..wire.parts_frames import InParts
from .home import Event, Home

__all__ = [
    "AnsweredInParts",
    "Awaited",
    "Deadlines",
    "FrameTooLarge",
    "Make",
    "Part",
    "Receipt",
    "Request",
    "Ticket",
]

Make = Callable[[int], msgspec.Struct]
"""Makes the frame of a request with its number."""

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


class FrameTooLarge(Exception):
    """A frame is larger than the worker takes at once; it may be sent in parts if it is about workflows."""

    def __init__(self, frame: bytes, may_be_in_parts: bool) -> None:
        super().__init__(frame, may_be_in_parts)
        self.frame = frame
        self.may_be_in_parts = may_be_in_parts


class AnsweredInParts(Exception):
    """The answer is larger than a frame, and is to be read in parts."""

    def __init__(self, request: int, total: int) -> None:
        super().__init__(request, total)
        self.request = request
        self.total = total


class Awaited:
    """Something to wait for until it is `done` or `overdue`. Only one task waits for it."""

    __slots__ = ("done", "due_at", "event", "overdue")

    def __init__(self) -> None:
        self.done = False
        self.due_at = math.inf
        self.event: Event | None = None
        """What its task waits for, once it does: most frames are awaited by nobody."""
        self.overdue = False

    def finish(self) -> None:
        """Note that it is done, and wake its task."""
        self.done = True
        if self.event is not None:
            self.event.set()


class Ticket(Awaited):
    """The messages of one call, and the outcome of each: a receipt or an error."""

    __slots__ = ("ids", "open", "outcomes", "payloads")

    def __init__(self, ids: list[str], payloads: list[bytes]) -> None:
        super().__init__()
        self.ids = ids
        self.payloads = payloads
        self.outcomes: list[Receipt | BusError | None] = [None] * len(ids)
        self.open = len(ids)

    def settle(self, start: int, outcomes: Sequence[Receipt | BusError]) -> None:
        """Note the outcomes of messages that follow one another."""
        if not self.done:
            self.outcomes[start : start + len(outcomes)] = outcomes
            self.open -= len(outcomes)
            if not self.open:
                self.finish()


class Part(NamedTuple):
    """Messages of a ticket that follow one another, and travel in one frame."""

    ticket: Ticket
    start: int
    stop: int

    @property
    def ids(self) -> list[str]:
        """The ids of its messages."""
        return self.ticket.ids[self.start : self.stop]

    @property
    def payloads(self) -> list[bytes]:
        """Its messages, as in a publish frame."""
        return self.ticket.payloads[self.start : self.stop]

    def fail(self, error: BusError) -> None:
        """Note that none of its messages was stored, as far as is known."""
        self.ticket.settle(self.start, [error] * (self.stop - self.start))


class Request(Awaited):
    """A frame that waits for its answer; a publish frame has `parts`."""

    __slots__ = ("error", "frame", "number", "once", "parts", "settles", "then", "value")

    def __init__(
        self,
        frame: bytes,
        parts: Sequence[Part] = (),
        *,
        once: bool = False,
        settles: Sequence[StoredMessage] = (),
    ) -> None:
        super().__init__()
        self.frame = frame
        self.parts = parts
        self.once = once
        """Whether it is valid in its own session only, and is not repeated."""
        self.settles = settles
        """The messages that it settles: it is not repeated if the worker has another log."""
        self.number = 0
        self.then: Callable[[], None] | None = None
        """Called when it is done, for those who do not wait for it."""
        self.value: msgspec.Raw | None = None
        self.error: BusError | AnsweredInParts | None = None

    def finish(self) -> None:
        """Note that it is done, and say so."""
        super().finish()
        if self.then is not None:
            self.then()

    def answer(self, answer: Ok | InParts) -> None:
        """Note the answer, unless it failed before."""
        if not self.done:
            if isinstance(answer, Ok):
                self.value = answer.value
            else:
                self.error = AnsweredInParts(answer.request, answer.total)
            self.finish()

    def fail(self, error: BusError) -> None:
        """Note that it failed, with all its messages, unless it was answered before."""
        if not self.done:
            self.error = error
            for part in self.parts:
                part.fail(error)
            self.finish()

    def settle(self, published: Published) -> None:
        """Note what became of each message in its parts, as the worker published them."""
        errors = {error.index: error for error in published.errors}
        duplicates, scheduled = frozenset(published.duplicates), frozenset(published.scheduled)
        ids = [id for part in self.parts for id in part.ids]
        outcomes = iter(
            [
                Receipt(id, seq or 0, index in duplicates, index in scheduled)
                if seq is not None or index in scheduled
                else _refusal(errors[index])
                for index, (id, seq) in enumerate(zip(ids, published.seqs, strict=True))
            ]
        )
        for part in self.parts:
            part.ticket.settle(part.start, list(islice(outcomes, part.stop - part.start)))


class Deadlines:
    """Ends waits that take too long, while `run` is running."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._awaited: dict[Awaited, None] = {}
        self._looks_at = 0.0
        self._sooner = anyio.Event()

    def __repr__(self) -> str:
        return f"<Deadlines of {len(self._awaited)}>"

    async def wait(self, awaited: Awaited, due_at: float) -> None:
        """Wait until something is done. Raises TimeoutError if it is not by `due_at`, by the loop's clock."""
        if not awaited.done:
            awaited.due_at = due_at
            awaited.event = self._home.event()
            self._awaited[awaited] = None
            if due_at < self._looks_at:
                self._sooner.set()
            try:
                await awaited.event.wait()
            finally:
                del self._awaited[awaited]
        if awaited.overdue:
            raise TimeoutError

    async def run(self) -> None:
        """End overdue waits until cancelled."""
        while True:
            now = self._home.now()
            self._looks_at = now + _LOOK_SECONDS
            for awaited in self._awaited:
                if awaited.due_at > now:
                    self._looks_at = min(self._looks_at, awaited.due_at)
                elif not awaited.done:
                    awaited.overdue = True
                    awaited.finish()
            self._sooner = anyio.Event()
            with anyio.CancelScope(deadline=self._looks_at):
                await self._sooner.wait()


def _refusal(error: ItemError) -> BusError:
    retry = error.code in RETRY
    return request_error(
        error.code, error.message, retry=retry, retry_after=error.retry_after, details=error.details
    )
