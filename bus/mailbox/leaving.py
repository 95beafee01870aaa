"""Messages that leave the log: which of them a mailbox still needs, and which it loses.

A part of `Mailbox`, which has the messages. Its rules:

- Unsettled messages and dead letters are held whether their channel was left or not.
- A message that is being removed is neither delivered nor given up. It is lost once removed; else delivered.

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
        """Return those that are unsettled or dead letters, of any channel."""
        held: set[int] = set()
        for kept in (self._unsettled.keys(), self.dead, self._reviving):
            if kept:
                held |= kept & seqs
        return held

    def keeps(self, seq: int) -> bool:
        """Return True if a message is unsettled or a dead letter, of any channel."""
        return bool(self.holds({seq}))

    def owes(self, seq: int, sender_bot_id: str, channel: str | None) -> bool:
        """Return True if a message is still to be delivered for the first time."""
        return (
            seq > self.sources.handed_out(channel)
            and seq not in self._ahead
            and self.sources.wants(seq, sender_bot_id, channel)
        )

    def is_through(self, seq: int, channel: str | None) -> bool:
        """Return True if all messages of a source up to a seq were delivered, without looking at each."""
        idle = self.intake.level and not self.intake
        return idle or seq <= self.sources.handed_out(channel)

    def can_lose(self, seq: int) -> bool:
        """Return False if a message is in flight, suspended or settling, or if it is or was a dead letter."""
        item = self._unsettled.get(seq)
        if item is not None and (item.session is not None or item.retried or seq in self._absent):
            return False
        if self.is_settling(seq):
            return False
        return seq not in self.dead and seq not in self._reviving

    def prepare_to_lose(self, channels: Mapping[int, str | None]) -> None:
        """Mark messages, by seq, as being removed: the state saved with the removal no longer contains them.

        Until `lose` or `retain` none of them is delivered, and none expires.
        """
        self.losses.prepare(channels)
        self.dirty = True

    def retain(self) -> None:
        """Undo `prepare_to_lose`: nothing was removed. Messages whose turn came meanwhile are next."""
        self.losses.keep()
        for seq in self.losses.take_withheld():
            heapq.heappush(self._returned, seq)

    def lose(self) -> None:
        """Drop what was removed from the log; messages of a channel left in the meantime do not count as lost."""
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
        """Clear the gap: a session has been notified."""
        self.losses.gap = None
        self.dirty = True
