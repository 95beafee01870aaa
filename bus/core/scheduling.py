"""Delayed messages: when the log is asked to release those that are due.

Owns when the first one is due, and how many wait. The messages themselves are in the store. It moves what is due
into the log in one transaction (`ReleaseDue`), including what became due while the worker was down.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..model.records import WORKER_ID, Channel
from ..model.repository import DUE_AT_ONCE, LogState, Released, ReleaseDue, stored_lots
from ..settings import Limits
from ..wire.frames import Code
from .batches import Batches, Job
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn

__all__ = ["Scheduling"]


class Scheduling:
    """See the module. Due times are wall-clock times, as text, as if the clock had not been set since the start."""

    def __init__(
        self,
        state: LogState,
        directory: Directory,
        limits: Limits,
        *,
        batches: Batches,
        dispatch: Dispatch,
        turn: Turn,
    ) -> None:
        self._waiting = Counter({id: count for id, count in state.scheduled.items() if id != WORKER_ID})
        """How many wait on disk, by sender."""
        self._expected: Counter[str] = Counter()
        """Accepted messages that are not on disk yet."""
        self._total = self._waiting.total()
        self._next_due_at = state.next_due_at
        self._releasing = False
        self._has_events = state.next_due_at == DUE_AT_ONCE
        self._events_of = set(directory.worker_channels) if self._has_events else set()
        """The channels that events may be for: all, where that is not known."""
        self._directory = directory
        self._batches = batches
        self.dispatch = dispatch
        self.turn = turn
        self.limits = limits

    def __repr__(self) -> str:
        return f"<Scheduling reserved={self._total} next_due_at={self._next_due_at}>"

    def reserve(self, sender: str, count: int, of_one_max: int) -> int:
        """Reserve room for so many messages of a sender, which may have `of_one_max`, or fewer; return how many."""
        share = of_one_max - self._waiting[sender] - self._expected[sender]
        reserved = max(0, min(count, self.limits.scheduled_messages_max - self._total, share))
        self._expected[sender] += reserved
        self._total += reserved
        return reserved

    def expect_no_more(self, sender: str, count: int) -> None:
        """Release the room of messages whose outcome is known."""
        self._expected[sender] -= count
        self._total -= count
        if not self._expected[sender]:
            del self._expected[sender]

    def add(self, sender: str, due_at: str) -> None:
        """Count a message that waits on disk."""
        self._waiting[sender] += 1
        self._total += 1
        if self._next_due_at is None or due_at < self._next_due_at:
            self._next_due_at = due_at

    def expect_events(self, channel: str) -> None:
        """Note that an event of the worker was written for a channel. It is due at once, and not counted."""
        self._has_events = True
        self._events_of.add(channel)

    def release(self) -> None:
        """Release what is due into the log."""
        if self._releasing or not (self._has_events or self._next_due_at is not None):
            return
        time = self.turn.steady()
        if not self._has_events and (self._next_due_at is None or self._next_due_at > time):
            return
        new = [name for name in sorted(self._events_of) if name not in self._directory.channels]
        channels = [self._directory.new_channel(name, self.turn.moment.wall, WORKER_ID) for name in new]
        self._releasing, self._has_events = True, False
        # Their timestamp is the batch's time, which may be ahead of the clock; what is due goes by the clock.
        limits = self.limits
        change = ReleaseDue("", limits.messages_per_publish_max, limits.batch_bytes_max, until=time)
        self._batches.add(_ReleaseJob(self, change, channels))

    def released(self, released: Released) -> None:
        """Enter the released messages, and continue with what is still due."""
        self._releasing = False
        self._next_due_at = released.next_due_at
        counted = Counter(each.sender_bot_id for each in released.messages if each.sender_bot_id != WORKER_ID)
        self._total -= counted.total()
        self._waiting -= counted  # drops what is 0
        self._has_events = self._has_events or released.next_due_at == DUE_AT_ONCE
        if not self._has_events:
            self._events_of.clear()
        self.dispatch.enter(*stored_lots(released.messages))
        self.dispatch.counters.damaged += len(released.damaged)
        self.release()

    def cancelled(self, senders: Counter[str]) -> None:
        """Count messages no more that were removed before they were due, by their senders."""
        del senders[WORKER_ID]
        self._total -= senders.total()
        self._waiting -= senders

    def not_released(self) -> None:
        """Note that nothing was released: the next tick tries again."""
        self._releasing, self._has_events = False, True


class _ReleaseJob(Job[Released]):
    """Due messages on their way into the log."""

    def __init__(self, scheduling: Scheduling, change: ReleaseDue, channels: Sequence[Channel]) -> None:
        super().__init__(changes=[change], channels=channels)
        self._scheduling = scheduling

    def done(self, answers: Sequence[Released], at: str) -> None:
        """Deliver what was due."""
        self._scheduling.released(answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Leave it to the next tick."""
        self._scheduling.not_released()
