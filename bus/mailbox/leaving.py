"""Messages that leave the log: which of them a mailbox needs, and which it loses.

Its rules:

- Unsettled messages and dead letters are held whether their channel was left or not.
- A message that is being removed is neither delivered nor given up. Once removed it is lost; otherwise it is
  returned.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set

from ..model.priorities import PRIORITIZED
from .parts import Parts

__all__ = ["Leaving"]


class Leaving:
    """Retention's view of one mailbox, whose parts it uses."""

    def __init__(self, parts: Parts) -> None:
        self._parts, self._pass_over = parts, parts.pass_over
        self._sources, self._intake, self._backlog, self._outstanding, self._dead_letters, self._losses = parts

    def __repr__(self) -> str:
        return f"<Leaving {self._losses}>"

    def holds(self, seqs: Set[int]) -> set[int]:
        """Return those that are unsettled or dead letters, of any channel."""
        held: set[int] = set()
        for kept in (self._outstanding.seqs, self._dead_letters.dead, self._dead_letters.reviving):
            if kept:
                held |= kept & seqs
        return held

    def needs(self, seq: int, sender_bot_id: str, source: str | None) -> bool:
        """Return True if a message is still to be delivered for the first time."""
        delivered = self._sources.has_delivered(seq, source)
        return not delivered and self._sources.wants(seq, sender_bot_id, source)

    def is_through(self, seq: int, source: str | None) -> bool:
        """Return True if all messages of a source up to a seq were delivered, without looking at each."""
        lane = self._sources.lanes.of(source)
        idle = self._intake.idle and not self._sources.is_paused(source) if lane is None else not lane.waits
        return idle or seq <= self._sources.handed_out(source)

    def can_lose(self, seq: int) -> bool:
        """Return False if a message is in flight, suspended or settling, or if it is or was a dead letter."""
        item = self._outstanding.get(seq)
        if item is not None and (item.session is not None or item.retried):
            return False
        if self._outstanding.is_suspended(seq) or self._outstanding.is_settling(seq):
            return False
        return seq not in self._dead_letters

    def prepare(self, sources: Mapping[int, str | None]) -> None:
        """Mark messages, by seq, as being removed: the state stored with the removal no longer contains them.

        Until `lose` or `retain` none of them is delivered, and none expires.
        """
        self._losses.prepare(sources)
        self._outstanding.dirty = True

    def retain(self) -> None:
        """Undo `prepare`: nothing was removed. Messages whose turn came meanwhile are returned."""
        self._losses.keep()
        self._outstanding.release_withheld()

    def forget_texts(self, seqs: Set[int]) -> bool:
        """Drop messages from memory that were erased: what has to be delivered is read again, and found erased.

        Return False if it had none of them.
        """
        unsettled = bool(self._outstanding.seqs & seqs)
        self._outstanding.forget_texts(seqs)
        in_lanes = self._sources.lanes.forget_texts(seqs)
        return self._intake.forget_texts(seqs, self._sources.position) or in_lanes or unsettled

    def miss(self, seqs: Collection[int]) -> None:
        """Extend the gap by messages whose turn came, and that were erased."""
        if seqs:
            self._losses.miss(seqs)
            self._pass_over(seqs)
            self._backlog.forget()
            self._outstanding.dirty = True

    def lose(self, senders: Mapping[int, str]) -> None:
        """Drop what was removed from the log, with its senders by seq.

        Messages of a channel left in the meantime do not count as lost.
        """
        missed = {seq for seq, source in self._losses.losing.items() if self._sources.still_wants(seq, source)}
        lost = self._losses.take(missed, reading=self._parts.is_reading)
        for seq, source in lost.items():
            waited = seq not in self._outstanding and not self._sources.has_delivered(seq, source)
            if waited and (source is None or source in PRIORITIZED):
                self._backlog.went(senders[seq])
        self._parts.drop(lost)
        self._outstanding.discard(lost)
