"""Messages that a returning client says it holds.

Because state is saved only now and then, after a restart the worker may not know that it delivered these messages,
or by which channel. The log is asked, its answer is noted here, and then they are kept in flight.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model.repository import Surveyed
from .parts import Parts
from .sessions import Session
from .sources import DIRECT

__all__ = ["Claims"]


class Claims:
    """The claims of returning clients on one mailbox, whose parts it uses."""

    def __init__(self, parts: Parts) -> None:
        self._sources, self._intake, self._backlog, self._outstanding, self._dead_letters, self._losses = parts
        self._drop = parts.drop

    def __repr__(self) -> str:
        return f"<Claims on {self._outstanding}>"

    def unknown_sources(self, seqs: Iterable[int]) -> set[int]:
        """Return those restored after a restart whose channel is not known."""
        items = ((seq, self._outstanding.get(seq)) for seq in seqs)
        return {seq for seq, item in items if item is not None and item.envelope is None and item.source is None}

    def note_source(self, message: Surveyed) -> None:
        """Note by which channel a message came."""
        item = self._outstanding.get(message.seq)
        if item is not None:
            item.source, item.priority = message.recipient_channel or DIRECT, message.priority

    def may_wait(self, seqs: Iterable[int]) -> set[int]:
        """Return those, of unknown channels, that may still be waiting for their first delivery here."""
        if self._intake.idle and not any(lane.waits for lane in self._sources.lanes):
            return set()
        through = self._sources.through
        elsewhere = (self._outstanding, self._sources.ahead, self._sources.lanes.delivered, self._dead_letters)
        return {seq for seq in seqs if seq > through and not any(seq in known for known in elsewhere)}

    def remember(self, messages: Iterable[Surveyed]) -> None:
        """Count as delivered what a client holds and the mailbox, after a restart, does not know.

        What is not wanted, or was settled, is passed over.
        """
        remembered = [message for message in messages if self._can_remember(message)]
        for message in remembered:
            self._outstanding.remember(message.seq)
            self._sources.lanes.put_early(message.priority, [message.seq])
            if message.recipient_channel is None:
                self._backlog.went(message.sender_bot_id)
        self._drop({message.seq for message in remembered})  # another session of a group may have read them

    def _can_remember(self, message: Surveyed) -> bool:
        seq, source = message.seq, message.source
        settled = self._sources.has_delivered(seq, source)
        elsewhere = seq in self._dead_letters or seq in self._losses.losing
        return not settled and not elsewhere and self._sources.wants(seq, message.sender_bot_id, source)

    def keep(self, session: Session, seqs: Iterable[int], now: float, *, earlier: Session | None) -> list[int]:
        """Put in flight for a client's new session what it holds since `earlier`; return the seqs that were.

        Not kept: what another session has by now, or has nak'ed with a delay that holds, what is being removed from
        the log, and dead letters that were put back, which are delivered anew.
        """
        seqs = [seq for seq in seqs if seq not in self._losses.losing]
        return self._outstanding.keep(session, seqs, now, earlier=earlier)
