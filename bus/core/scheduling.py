"""Messages that wait until they are due: when the log is asked to take the next ones in.

Owns when the first is due and how many wait. The messages themselves are in the store, which puts what is due into
the log in one transaction (`ReleaseDue`), also what became due while the worker was down.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.repository import LogState, Released, ReleaseDue
from ..settings import Limits
from ..wire.frames import Code
from .batches import Batches, Job
from .dispatch import Dispatch
from .effects import Turn

__all__ = ["Scheduling"]


class Scheduling:
    """See the module. Due times are of the wall clock, as text, as if it had not been set since the start."""

    def __init__(
        self, state: LogState, *, batches: Batches, dispatch: Dispatch, turn: Turn, limits: Limits
    ) -> None:
        self.waiting = state.scheduled
        self.expected = 0
        """Messages that were taken, and are not on disk yet."""
        self._next_due_at = state.next_due_at
        self._releasing = False
        self._batches = batches
        self._dispatch = dispatch
        self._turn = turn
        self._limits = limits

    def __repr__(self) -> str:
        return f"<Scheduling waiting={self.waiting} next_due_at={self._next_due_at}>"

    def has_room(self) -> bool:
        """Return True if one more message may wait."""
        return self.waiting + self.expected < self._limits.scheduled_messages_max

    def add(self, due_at: str) -> None:
        """Note that a message waits on disk."""
        self.waiting += 1
        if self._next_due_at is None or due_at < self._next_due_at:
            self._next_due_at = due_at

    def release(self) -> None:
        """Let the log take in what is due."""
        if self._releasing or self._next_due_at is None or self._next_due_at > (time := self._turn.steady()):
            return
        self._releasing = True
        # They are stamped with the batch's time, which may be ahead of the clock: what is due is another matter.
        limits = self._limits
        change = ReleaseDue("", limits.messages_per_publish_max, limits.batch_bytes_max, until=time)
        self._batches.add(_ReleaseJob(self, change))

    def released(self, released: Released) -> None:
        """Enter what the log took in, and go on with what is due still."""
        self._releasing = False
        self._next_due_at = released.next_due_at
        self.waiting -= len(released.messages)
        for message in released.messages:
            self._dispatch.enter(message, message.seq, message.timestamp)
        self._dispatch.counters.damaged += len(released.damaged)
        self.release()

    def not_released(self) -> None:
        """Note that the log took in nothing: it is asked again with the next tick."""
        self._releasing = False


class _ReleaseJob(Job[Released]):
    """What is due on its way into the log."""

    def __init__(self, scheduling: Scheduling, change: ReleaseDue) -> None:
        super().__init__(changes=[change])
        self._scheduling = scheduling

    def done(self, answers: Sequence[Released], at: str) -> None:
        """Deliver what was due."""
        self._scheduling.released(answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Leave it to the next tick."""
        self._scheduling.not_released()
