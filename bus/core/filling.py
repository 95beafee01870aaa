"""Bots' mailboxes that run full: operators are told before messages to them are refused.

Owns which mailboxes are filling. One is from the time when it is nearly full until it is half empty. How many
messages wait is known only where that mattered (`mailbox.backlog`).

Pure.
"""

from __future__ import annotations

from ..mailbox.mailbox import Mailbox
from .directory import Directory
from .effects import Turn

__all__ = ["Filling"]

_FULL_SHARE, _ROOM_SHARE = 0.8, 0.5
"""A mailbox begins to fill above the first, and has room again at the second, of what may wait."""


class Filling:
    """See the module. A mailbox with more than `limit` waiting messages is to be looked at."""

    def __init__(self, directory: Directory, turn: Turn, messages_max: int) -> None:
        self.limit = int(messages_max * _FULL_SHARE)
        self._messages_max = messages_max
        self._directory = directory
        self._turn = turn
        self._filling: dict[Mailbox, None] = {}

    def __repr__(self) -> str:
        return f"<Filling {len(self._filling)}>"

    def look(self, mailbox: Mailbox) -> None:
        """Note that a mailbox is nearly full."""
        if mailbox.backlog.known and mailbox not in self._filling:
            self._filling[mailbox] = None
            self._note("mailbox_filling", mailbox)

    def tick(self) -> None:
        """Note which mailboxes have room again."""
        for mailbox in list(self._filling):
            if mailbox.removed:
                del self._filling[mailbox]
            elif mailbox.backlog.known and mailbox.backlog.waiting <= self._messages_max * _ROOM_SHARE:
                del self._filling[mailbox]
                self._note("mailbox_drained", mailbox)

    def _note(self, event: str, mailbox: Mailbox) -> None:
        name, waiting = self._directory.name_of(mailbox), mailbox.backlog.waiting
        self._turn.note(event, bot=name, waiting=waiting, messages_max=self._messages_max)
