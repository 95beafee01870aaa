"""A purge: a mailbox passes over what waits in it.

Its rules:

- What is in flight stays so, and so does what a commit is about to settle, and what failed with a client that may
  still come back with it. If it is returned later, it is delivered again: it was not waiting when it was purged.
- The state that is stored with the purge has passed over it already. Until that is on disk, nothing is delivered.
- Messages that arrive after `prepare` are not purged.
- The sessions are told of a gap.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from ..model.repository import PageRequest, PurgeMailbox
from .parts import Parts
from .unsettled import WAITING, Unsettled

__all__ = ["Purging"]


class Purging:
    """Purges one mailbox, with whose parts it works."""

    def __init__(self, mailbox_id: str, parts: Parts) -> None:
        self.seqs: frozenset[int] = frozenset()
        """What was delivered before, and is being purged."""
        self._mailbox_id = mailbox_id
        self._sources, self._intake, self._backlog, self._outstanding, _, self._losses = parts
        self._early = parts.early

    def __repr__(self) -> str:
        return f"<Purging {self._mailbox_id} returned={len(self.seqs)}>"

    def look(self, through: int) -> PurgeMailbox:
        """Return what a purge up to a seq would pass over."""
        sources = self._sources.unread()
        early = self._early(min(after for _, after, _ in sources)) if sources else ()
        return PurgeMailbox(PageRequest(self._mailbox_id, early, sources, through, 1, 1), len(self._returned()))

    def look_at(self, channels: Collection[str], through: int) -> PurgeMailbox:
        """Return what waits of some channels, up to a seq."""
        whole = self.look(through)
        sources = tuple(source for source in whole.unread.sources if source[0] in channels)
        returned = sum(any(map(item.is_of, channels)) for _, item in self._waiting())
        return PurgeMailbox(msgspec.structs.replace(whole.unread, sources=sources), returned)

    def prepare(self, through: int) -> PurgeMailbox:
        """Store from now on the state in which everything up to a seq is passed over; return what that is."""
        self.seqs = frozenset(self._returned())
        lost = [*self.seqs, *((self._sources.through + 1, through) if self._sources.through < through else ())]
        self._losses.purging = (min(lost), max(lost)) if lost else None
        self._sources.prepare_to_purge(through)
        return self.look(through)

    def purge(self, *, told: bool) -> None:
        """Pass over what was prepared, and extend the gap by it if `told`."""
        purging, self._losses.purging = self._losses.purging, None
        if told and purging is not None:
            self._losses.miss(purging)
        # A client that came back meanwhile may have one of them in flight.
        self._outstanding.discard(self.seqs & self._returned())
        self.seqs = frozenset()
        self._sources.purge()
        self._backlog.forget()
        self._intake.reload(self._sources.position)
        self._outstanding.dirty = True

    def _returned(self) -> set[int]:
        """Return what waits to be delivered again."""
        return {seq for seq, _ in self._waiting()}

    def _waiting(self) -> Iterator[tuple[int, Unsettled]]:
        return ((seq, item) for seq, item in self._outstanding.items() if item.place in WAITING)

    def keep(self) -> None:
        """Undo `prepare`: nothing was purged."""
        self.seqs = frozenset()
        self._losses.purging = None
        self._sources.keep()
