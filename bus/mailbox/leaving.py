"""Messages that leave the log: which of them a mailbox needs, and which it loses.

Its rules:

- What was delivered and is not settled, and dead letters, are held whether their channel was left or not.
- What is being removed is neither delivered nor given up: it is lost when it is gone, and is returned if it is not.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from .parts import Parts

__all__ = ["Leaving"]


class Leaving:
    """What retention asks and tells one mailbox, whose parts it works with."""

    def __init__(self, parts: Parts) -> None:
        self._sources = parts.sources
        self._intake = parts.intake
        self._backlog = parts.backlog
        self._outstanding = parts.outstanding
        self._dead_letters = parts.dead_letters
        self._losses = parts.losses

    def __repr__(self) -> str:
        return f"<Leaving {self._losses}>"

    def holds(self, seqs: Set[int]) -> set[int]:
        """Return those that were delivered and are not settled, and the dead letters, of whatever channel."""
        held: set[int] = set()
        for kept in (self._outstanding.seqs, self._dead_letters.dead, self._dead_letters.reviving):
            if kept:
                held |= kept & seqs
        return held

    def needs(self, seq: int, sender_bot_id: str, channel: str | None) -> bool:
        """Return whether a message is still to be delivered for the first time."""
        return (
            seq > self._sources.handed_out(channel)
            and seq not in self._sources.ahead
            and self._sources.wants(seq, sender_bot_id, channel)
        )

    def is_through(self, seq: int, channel: str | None) -> bool:
        """Return whether all of a source up to a seq was delivered, without a look at each message."""
        return self._intake.idle or seq <= self._sources.handed_out(channel)

    def can_lose(self, seq: int) -> bool:
        """Return whether a message that is held or needed waits, is not at work, and is or was no dead letter."""
        item = self._outstanding.get(seq)
        if item is not None and (item.session is not None or item.retried):
            return False
        if self._outstanding.is_suspended(seq) or self._outstanding.is_settling(seq):
            return False
        return seq not in self._dead_letters

    def prepare(self, channels: Mapping[int, str | None]) -> None:
        """Note that messages, by seq, are being removed: the state saved with that has them no more.

        Until `lose` or `retain` none of them is delivered, and none expires.
        """
        self._losses.prepare(channels)
        self._outstanding.dirty = True

    def retain(self) -> None:
        """Note that nothing was removed: what came to its turn meanwhile is returned."""
        self._losses.keep()
        self._outstanding.release_withheld()

    def lose(self) -> None:
        """Drop what was removed from the log; what is of a channel that was left in the meantime is no loss."""
        missed = {seq for seq, channel in self._losses.losing.items() if self._sources.still_wants(seq, channel)}
        lost = self._losses.take(missed, reading=self._intake.reading is not None)
        handed_out = self._sources.handed_out(None)
        early = self._outstanding.seqs | self._sources.ahead
        waiting = (seq for seq, channel in lost.items() if channel is None and seq not in early)
        self._backlog.went(sum(seq > handed_out for seq in waiting))
        self._intake.drop(lambda envelope: envelope.seq in lost)
        self._outstanding.discard(lost)
