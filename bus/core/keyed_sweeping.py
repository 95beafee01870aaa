"""When the keyed store is swept: values that expired are ended, and what is old is removed.

Owns when. The store decides which those are, by its clock. Values that expire are ended soon after they did. The
ids of writes are left alone until the worker has run for as long as they are remembered, because nobody could
repeat a write while it did not.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.keyed import MARKER_SECONDS, REPEAT_SECONDS
from ..model.repository import KeyedSwept, SweepKeyed
from ..wire.frames import Code
from .batches import Batches, Job
from .effects import Turn
from .keyed_watching import KeyedWatching

__all__ = ["KeyedSweeping"]

_SWEEP_SECONDS = 60.0
"""How often old markers and ids are looked for: late by a small part of their age."""

_FIRST_SECONDS = 5.0
"""When the first sweep comes, after the start, and the next one, after one that failed."""

_ROWS_AT_ONCE = 500
"""Values that are ended in one transaction: some milliseconds."""


class KeyedSweeping:
    """See the module."""

    def __init__(self, batches: Batches, watching: KeyedWatching, turn: Turn) -> None:
        self._batches = batches
        self._watching = watching
        self._turn = turn
        self._sweeping = False
        self._due: float | None = None
        self._began: float | None = None
        watching.expect = self.expect

    def __repr__(self) -> str:
        return f"<KeyedSweeping due={self._due}>"

    def tick(self) -> None:
        """Sweep, when that is due."""
        now = self._turn.moment.now
        if self._began is None:
            self._began = now
            self.expect(_FIRST_SECONDS)
        if self._sweeping or self._due is None or now < self._due:
            return
        self._sweeping, self._due = True, None
        repeat_seconds = None if now - self._began < REPEAT_SECONDS else REPEAT_SECONDS
        self._batches.add(_SweepJob(self, SweepKeyed(_ROWS_AT_ONCE, repeat_seconds, MARKER_SECONDS)))

    def expect(self, seconds: float) -> None:
        """Sweep in so many seconds at the latest: a value expires then."""
        due = self._turn.moment.now + seconds
        self._due = due if self._due is None else min(self._due, due)

    def swept(self, swept: KeyedSwept) -> None:
        """Notify watchers of what has expired, and wait for the next time."""
        self._sweeping = False
        self.expect(0.0 if swept.more else _SWEEP_SECONDS)
        if swept.next_seconds is not None:
            self.expect(max(swept.next_seconds, 0.0))
        self._watching.changed(swept.stores)

    def not_swept(self) -> None:
        """Note that nothing was swept: that is tried again soon, because values may have expired."""
        self._sweeping = False
        self.expect(_FIRST_SECONDS)


class _SweepJob(Job[KeyedSwept]):
    """A sweep on its way."""

    def __init__(self, sweeping: KeyedSweeping, change: SweepKeyed) -> None:
        super().__init__(changes=[change])
        self._sweeping = sweeping

    def done(self, answers: Sequence[KeyedSwept], at: str) -> None:
        """Notify watchers of what has expired."""
        self._sweeping.swept(answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Try again later."""
        self._sweeping.not_swept()
