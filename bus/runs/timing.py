"""When a program that waits looks at the store: when it is woken, and from time to time.

Owns the clock of runs, and the pauses between looks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import anyio
import msgspec

__all__ = ["AGAIN_SECONDS", "Crowd", "Polls", "Timing", "wait"]

AGAIN_SECONDS = 2.0
"""How soon to look again, at the latest, when the worker could not answer."""

_LOOKS_A_SECOND_MAX = 20
"""Looks of all runs of a program that rest, if a worker tells when to look: the more rest, the less often each."""


class Crowd:
    """How many runs of one program rest."""

    def __init__(self) -> None:
        self.resting = 0

    def __repr__(self) -> str:
        return f"<Crowd resting={self.resting}>"


async def wait(event: anyio.Event, seconds: float) -> None:
    """Wait until an event is set, for so many seconds at most."""
    with anyio.move_on_after(seconds):
        await event.wait()


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The clock, and how often to check whether a wait is over: soon at first, then less often."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    poll_seconds: float = 0.05
    poll_seconds_max: float = 2.0
    wait: Callable[[anyio.Event, float], Awaitable[None]] = wait
    """Waits for an event for so many seconds at most: a clock that a test moves has a wait of its own."""
    expects: Callable[[datetime | None], AbstractContextManager[None]] = lambda until: nullcontext()
    """Returns a context for a wait that ends at a time, if it does: a clock that is moved has to know of it."""
    limit: Callable[[float | None], anyio.CancelScope] = anyio.move_on_after
    """Returns a cancel scope for what may take so many seconds."""
    woken: Callable[[str], anyio.Event] = lambda run_id: anyio.Event()
    """Returns an event that is set when something happens to the run with this id, or may have been missed.

    A program that waits takes the event, looks at the store, and then waits for the event. Without a worker nobody
    sets it, so the program also looks from time to time.
    """
    place_seconds: float | None = None
    """How long a run that waits for a slot keeps its place; None if it has to be claimed again within a lease."""
    crowd: Crowd = msgspec.field(default_factory=Crowd)
    """The runs of the program that rest: they share how often the worker is asked."""

    def polls(self, seconds_max: float = math.inf) -> Polls:
        """Begin a wait with a check at least every `seconds_max`."""
        return Polls(self, seconds_max)

    def left(self, until: datetime) -> float:
        """Return the seconds until a time; 0 or less if it has passed."""
        return (until - self.clock()).total_seconds()


class Polls:
    """The growing pauses of one wait, randomised to keep concurrent waits apart."""

    def __init__(self, timing: Timing, seconds_max: float) -> None:
        self._timing = timing
        self._seconds_max = min(timing.poll_seconds_max, seconds_max)
        self._seconds = min(timing.poll_seconds, self._seconds_max)

    async def pause(self, woken: anyio.Event, *, seconds_max: float = math.inf, again: bool = False) -> None:
        """Wait for the next check: soon, if the last one has to be made `again`, because the worker was away."""
        await wait(woken, min(self.seconds(again=again), seconds_max))

    def seconds(self, *, again: bool = False) -> float:
        """Return the time until the next check."""
        seconds = self._seconds
        if again:
            seconds = min(seconds, AGAIN_SECONDS)
        elif self._timing.place_seconds is not None:
            seconds = max(seconds, self._timing.crowd.resting / _LOOKS_A_SECOND_MAX)
        else:
            self._seconds = min(self._seconds * 2, self._seconds_max)
        return seconds * random.uniform(0.75, 1.0)
