"""Which mailboxes still need a message: those that hold it, and those that may have to deliver it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from ..mailbox.mailbox import Mailbox
from ..model.repository import Surveyed
from .directory import Directory

__all__ = ["holders", "wanting"]


def holders(directory: Directory, seqs: Set[int]) -> dict[int, list[Mailbox]]:
    """Return, by seq, the mailboxes that have it in flight, returned or dead, even of a channel they left."""
    found: dict[int, list[Mailbox]] = {}
    for mailbox in directory.mailboxes.values() if seqs else ():
        for seq in mailbox.leaving.holds(seqs):
            found.setdefault(seq, []).append(mailbox)
    return found


def wanting(directory: Directory, row: Surveyed) -> Iterable[Mailbox]:
    """Return the mailboxes for which a message is."""
    if row.recipient_channel is None:
        mailbox = directory.mailboxes.get(row.recipient_bot_id or "")
        return () if mailbox is None else (mailbox,)
    entry = directory.channels.get(row.recipient_channel)
    return () if entry is None else entry.mailboxes.values()
