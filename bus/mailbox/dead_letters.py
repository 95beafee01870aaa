"""A mailbox's dead letters: on their way to the disk, on disk, and on their way back into the mailbox.

A part of `Mailbox`. Its rules:

- A dead letter is saved together with the state that no longer contains the message, or neither is saved.
- A dead letter that is put back is *reviving* until that is on disk, and then waits for delivery.

Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from ..model.repository import DeadLetter, MailboxState
from ..settings import Delivery
from .outstanding import Outstanding
from .unsettled import Abandoned, Unsettled

__all__ = ["Buried"]


class Buried(Outstanding):
    """See the module."""

    def __init__(self, state: MailboxState, delivery: Delivery, *, group: str | None) -> None:
        super().__init__(state, delivery, group=group)
        self.dead: set[int] = set()
        self.buried: list[DeadLetter] = []
        """Those that are not on disk yet."""
        self._reviving: set[int] = set()

    def restore_dead(self, seq: int) -> None:
        """Add a dead letter that is on disk."""
        self.dead.add(seq)

    def bury(self, dead_letter: DeadLetter) -> None:
        """Keep a dead letter to be saved together with the state that no longer contains the message."""
        self.buried.append(dead_letter)
        self.dirty = True

    def take_buried(self) -> list[DeadLetter]:
        """Return the dead letters that are not on disk yet, and clear them."""
        buried, self.buried = self.buried, []
        return buried

    def not_saved(self, buried: Sequence[DeadLetter]) -> None:
        """Keep these dead letters for the next try: neither they nor the state were saved."""
        self.buried[:0] = buried
        self.dirty = True

    def put_back(self, seqs: Iterable[int]) -> list[int]:
        """Prepare to redeliver dead letters; return the seqs that are some. Call `revive` once that is on disk."""
        there = sorted(self.dead.intersection(seqs))
        self.dead.difference_update(there)
        self._reviving.update(there)
        return there

    def revive(self, seqs: Iterable[int]) -> None:
        """Make dead letters wait again, as if they had never been delivered."""
        for seq in seqs:
            self._reviving.discard(seq)  # it may have died and been put back again before this was on disk
            if seq not in self._unsettled:  # a subscription that started in the past may have brought it again
                self._unsettled[seq] = Unsettled(0, 0, None)
                heapq.heappush(self._returned, seq)
            self._unsettled[seq].retried = True
            self.dirty = True

    def stay_dead(self, seqs: Iterable[int]) -> None:
        """Leave dead letters as they are: the change was not saved."""
        self._reviving.difference_update(seqs)
        self.dead.update(seqs)

    def _give_up(self, seq: int, item: Unsettled, failure: str) -> Abandoned:
        return self._abandon(seq, f"{failure}; failed {item.failures} times", item)

    def _abandon(self, seq: int, reason: str, item: Unsettled) -> Abandoned:
        self.dead.add(seq)
        return Abandoned(seq, reason, item.attempt)
