"""What a mailbox gave up on: its dead letters, on their way to the disk and there, and those that are tried again.

A part of `Mailbox`. Its rules:

- A dead letter goes to the disk with the state that no longer has the message, or neither does.
- One that is put back is *reviving* until the disk has that, and waits to be delivered from then on.

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
        """Keep a dead letter for the disk: it goes there with the state that no longer has it, or neither does."""
        self.buried.append(dead_letter)
        self.dirty = True

    def take_buried(self) -> list[DeadLetter]:
        """Return the dead letters that are not on disk yet, and forget them."""
        buried, self.buried = self.buried, []
        return buried

    def not_saved(self, buried: Sequence[DeadLetter]) -> None:
        """Note that the disk took neither the state nor these dead letters."""
        self.buried[:0] = buried
        self.dirty = True

    def put_back(self, seqs: Iterable[int]) -> list[int]:
        """Prepare to deliver dead letters again; return those that are. `revive` follows once that is on disk."""
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
        """Leave dead letters as they are: the disk would not take that they come back."""
        self._reviving.difference_update(seqs)
        self.dead.update(seqs)

    def _give_up(self, seq: int, item: Unsettled, failure: str) -> Abandoned:
        return self._abandon(seq, f"{failure}; failed {item.failures} times", item)

    def _abandon(self, seq: int, reason: str, item: Unsettled) -> Abandoned:
        self.dead.add(seq)
        return Abandoned(seq, reason, item.attempt)
