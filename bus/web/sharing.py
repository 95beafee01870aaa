"""Answers of the worker that all who look at the same page share.

Owns how often the worker is asked. Its rules:

- Whoever asks while the same is being asked waits for that answer, errors included.
- An answer counts for as long as who asks allows, and for twenty times as long as it took, up to half a minute. So
  what is cheap is nearly as it is now, what is costly is asked rarely, and a busy worker is asked less.
- An error counts for as long as who asks allows: the next attempt may succeed.
- After an action of a person nothing from before counts.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

import anyio

from ..errors import BusError

__all__ = ["Shared"]

_TIMES = 20
"""About a twentieth of the time passes in asking the same."""

_COSTLY_SECONDS_MAX = 30.0
"""A question may have taken long only because the worker was restarted."""

_KEPT_SECONDS = 10.0
"""After which an answer that nobody asks for is forgotten."""

T = TypeVar("T")


class _Answer:
    """The last answer to one question."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self._value: Any = None
        self._error: BusError | None = None
        self._at: float | None = None
        self._took = 0.0

    def counts(self, now: float, seconds: float) -> bool:
        """Return True if it is not older than so many seconds, or was costly."""
        cost = 0.0 if self._error is not None else min(_TIMES * self._took, _COSTLY_SECONDS_MAX)
        return self._at is not None and now - self._at < max(seconds, cost)

    async def renew(self, ask: Callable[[], Awaitable[Any]], clock: Callable[[], float]) -> None:
        """Ask again."""
        began = clock()
        value: Any = None
        fault: BusError | None = None
        try:
            value = await ask()
        except BusError as error:
            fault = error
        self._value, self._error, self._at = value, fault, clock()  # at once: a cancelled question changes nothing
        self._took = self._at - began

    def given(self) -> Any:
        """Return the value, or raise the error."""
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._value


class Shared:
    """See the module. `clock` never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[Hashable, _Answer] = {}

    def __repr__(self) -> str:
        return f"<Shared {len(self._answers)}>"

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        """Return an answer that is at most so many seconds old, unless it was costly. Raise what `ask` raises."""
        self._sweep()
        answer = self._answers.setdefault(key, _Answer())
        async with answer.lock:
            if not answer.counts(self._clock(), seconds):
                await answer.renew(ask, self._clock)
            found: T = answer.given()
            return found

    def forget(self) -> None:
        """Ask for everything anew: something was changed."""
        self._answers.clear()

    def _sweep(self) -> None:
        now = self._clock()
        over = [
            key
            for key, answer in self._answers.items()
            if not answer.counts(now, _KEPT_SECONDS) and not answer.lock.statistics().locked
        ]
        for key in over:
            del self._answers[key]
