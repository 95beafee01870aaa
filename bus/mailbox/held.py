"""Messages that a returning client says it holds.

A part of `Mailbox`. Because state is saved only now and then, after a restart of the worker the mailbox may not
know that it delivered these messages, or by which channel. The log is asked, its answer is noted here, and then
they are kept in flight (`outstanding`).

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model.repository import Surveyed
from .leaving import Leaving
from .sources import DIRECT
from .unsettled import Unsettled

__all__ = ["Held"]


class Held(Leaving):
    """See the module."""

    def unknown_sources(self, seqs: Iterable[int]) -> set[int]:
        """Return those restored after a restart whose channel is not known."""
        items = ((seq, self._unsettled.get(seq)) for seq in seqs)
        return {seq for seq, item in items if item is not None and item.envelope is None and item.source is None}

    def note_source(self, message: Surveyed) -> None:
        """Note by which channel a message came."""
        item = self._unsettled.get(message.seq)
        if item is not None:
            item.source = message.recipient_channel or DIRECT

    def may_wait(self, seqs: Iterable[int]) -> set[int]:
        """Return those, of unknown sources, that may still be waiting for their first delivery here."""
        if self.intake.level and not self.intake:
            return set()
        through = self.sources.through
        elsewhere = (self._unsettled, self._ahead, self.dead, self._reviving)
        return {seq for seq in seqs if seq > through and not any(seq in known for known in elsewhere)}

    def remember(self, message: Surveyed) -> bool:
        """Count as delivered a message that a client holds and the mailbox, after a restart, does not know.

        Return False if the message is not wanted, or was settled.
        """
        seq, channel = message.seq, message.recipient_channel
        settled = seq <= self.sources.handed_out(channel) or seq in self._ahead
        elsewhere = seq in self.dead or seq in self._reviving or seq in self.losses.losing
        if settled or elsewhere or not self.sources.wants(seq, message.sender_bot_id, channel):
            return False
        self._unsettled[seq] = Unsettled(1, 0, None)
        if channel is None:
            self.backlog.went()
        self.dirty = True
        return True
