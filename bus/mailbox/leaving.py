"""What a mailbox has to do with messages that leave the log: which it is owed, and which it loses.

A part of `Mailbox`, which has the messages. Its rules:

- What was handed out and is not settled, and dead letters, are held whether their channel was left or not.
- What is being removed is neither handed out nor given up: it is lost when it is gone, and else has its turn.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Set

from .backlog import Backlog
from .dead_letters import Buried
from .intake import Intake
from .sources import Sources

__all__ = ["Leaving"]


class Leaving(Buried):
    """See the module."""

    sources: Sources
    intake: Intake
    backlog: Backlog
    _ahead: set[int]

    def holds(self, seqs: Set[int]) -> set[int]:
        """Return those that were handed out and are not settled, and the dead letters, of whatever channel."""
        held: set[int] = set()
        for kept in (self._unsettled.keys(), self.dead, self._reviving):
            if kept:
                held |= kept & seqs
        return held

    def keeps(self, seq: int) -> bool:
        """Return whether a message was handed out and is not settled, or is a dead letter, of whatever channel."""
        return bool(self.holds({seq}))

    def owes(self, seq: int, sender_bot_id: str, channel: str | None) -> bool:
        """Return whether a message is still to be handed out for the first time."""
        return (
            seq > self.sources.handed_out(channel)
            and seq not in self._ahead
            and self.sources.wants(seq, sender_bot_id, channel)
        )

    def is_through(self, seq: int, channel: str | None) -> bool:
        """Return whether all of a source up to a seq was handed out, without a look at each message."""
        idle = self.intake.level and not self.intake
        return idle or seq <= self.sources.handed_out(channel)

    def can_lose(self, seq: int) -> bool:
        """Return whether a message that is owed waits, is not being worked on, and is or was no dead letter."""
        item = self._unsettled.get(seq)
        if item is not None and (item.session is not None or item.retried or seq in self._absent):
            return False
        if self.is_settling(seq):
            return False
        return seq not in self.dead and seq not in self._reviving

    def prepare_to_lose(self, channels: Mapping[int, str | None]) -> None:
        """Note that messages, by seq, are being removed: the state saved with that owes them no more.

        Until `lose` or `retain` none of them is handed out, and none expires.
        """
        self.losses.prepare(channels)
        self.dirty = True

    def retain(self) -> None:
        """Note that nothing was removed: what came to its turn meanwhile is next."""
        self.losses.keep()
        for seq in self.losses.take_withheld():
            heapq.heappush(self._returned, seq)

    def lose(self) -> None:
        """Drop what was removed from the log; what is of a channel that was left in the meantime is no loss."""
        missed = {seq for seq, channel in self.losses.losing.items() if self.sources.still_wants(seq, channel)}
        lost = self.losses.take(missed, reading=self.intake.reading is not None)
        self.losses.take_withheld()
        handed_out = self.sources.handed_out(None)
        early = self._unsettled.keys() | self._ahead
        waiting = (seq for seq, channel in lost.items() if channel is None and seq not in early)
        self.backlog.went(sum(seq > handed_out for seq in waiting))
        self.intake.drop(lambda envelope: envelope.seq in lost)
        for seq in lost:
            self._unsettled.pop(seq, None)
        self.dirty = True

    def forget_gap(self) -> None:
        """Note that what was lost was told."""
        self.losses.gap = None
        self.dirty = True
