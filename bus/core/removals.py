"""What can be removed: how each kind is found, prepared and taken out of memory.

Owns what a removal means for the mailboxes and the directory. `clearing` decides who may, and when.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

from ..mailbox.mailbox import Mailbox
from ..model.records import BotRecord
from ..model.repository import CancelDelayed, DiscardDeadLetters, Removed, What
from .dispatch import Dispatch
from .scheduling import Scheduling

__all__ = ["BacklogTarget", "DeadLettersTarget", "DelayedTarget", "Target"]


class Target:
    """Something to be removed. `mailboxes` are those whose state is saved with the removal."""

    kind: ClassVar[str]

    def __init__(self, name: str, mailboxes: Sequence[Mailbox]) -> None:
        self.name = name
        self.mailboxes = mailboxes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def look(self) -> What:
        """Return what would be removed now."""
        raise NotImplementedError

    def prepare(self) -> What:
        """Return what is removed: it is about to be written. `done` or `keep` follows."""
        raise NotImplementedError

    def done(self, removed: Removed) -> None:
        """Take out of memory what is removed on disk."""
        raise NotImplementedError

    def keep(self) -> None:
        """Undo `prepare`: nothing was removed."""
        raise NotImplementedError


class DeadLettersTarget(Target):
    """Dead letters of a mailbox."""

    kind = "dead_letters"

    def __init__(self, name: str, mailbox: Mailbox, seqs: Sequence[int]) -> None:
        super().__init__(name, [mailbox])  # those that are not stored yet are stored before they are removed
        self._mailbox = mailbox
        self._seqs = seqs
        self._taken: list[int] = []

    def look(self) -> DiscardDeadLetters:
        """Return what is asked for: the log knows which of them are dead letters."""
        return DiscardDeadLetters(self._mailbox.id, tuple(self._seqs))

    def prepare(self) -> DiscardDeadLetters:
        """Take them out, so that nobody retries them meanwhile."""
        self._taken = self._mailbox.dead_letters.take_out(self._seqs)
        return DiscardDeadLetters(self._mailbox.id, tuple(self._taken))

    def done(self, removed: Removed) -> None:
        """Do nothing: they are taken out."""

    def keep(self) -> None:
        """Leave them dead."""
        self._mailbox.dead_letters.stay_dead(self._taken)


class DelayedTarget(Target):
    """Messages of a bot that are not due yet."""

    kind = "delayed"

    def __init__(self, bot: BotRecord, ids: Sequence[str], scheduling: Scheduling) -> None:
        super().__init__(bot.name, [])
        self._change = CancelDelayed(bot.id, tuple(ids))
        self._scheduling = scheduling

    def look(self) -> CancelDelayed:
        """Return what is asked for: the log knows what waits."""
        return self._change

    prepare = look

    def done(self, removed: Removed) -> None:
        """Count them no more."""
        self._scheduling.cancelled(Counter({self._change.sender_bot_id: len(removed.ids)}))

    def keep(self) -> None:
        """Do nothing: nothing was prepared."""


class BacklogTarget(Target):
    """What waits in a mailbox."""

    kind = "backlog"

    def __init__(self, name: str, mailbox: Mailbox, dispatch: Dispatch) -> None:
        super().__init__(name, [mailbox])
        self._mailbox = mailbox
        self._dispatch = dispatch

    def look(self) -> What:
        """Return what waits now."""
        return self._mailbox.purging.look(self._dispatch.last_seq)

    def prepare(self) -> What:
        """Pass over what waits now, in the state that is stored."""
        return self._mailbox.purging.prepare(self._dispatch.last_seq)

    def done(self, removed: Removed) -> None:
        """Pass over it, and tell the sessions."""
        told = removed.counts["waiting"] > 0
        self._mailbox.purging.purge(told=told)
        if told:
            self._dispatch.send_gap(self._mailbox, self._mailbox.sessions)
        self._dispatch.touch(self._mailbox)

    def keep(self) -> None:
        """Go on to deliver it."""
        self._mailbox.purging.keep()
        self._dispatch.touch(self._mailbox)
