"""The dead letters of one mailbox: stored, on their way to the disk, and retried.

Its rules:

- A dead letter is stored together with the state that no longer contains the message, or neither is stored.
- A retried dead letter is *reviving* until that is on disk, and is then returned. A channel that was left and is
  subscribed to from the past may have brought it again meanwhile: if it dies anew, the retry stands.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model.repository import DeadLetter
from .outstanding import Outstanding
from .unsettled import Abandoned

__all__ = ["DeadLetterBox"]


class DeadLetterBox:
    """See the module. `dead` has the seqs of dead letters, stored or not; `reviving` those of retried ones."""

    def __init__(self, outstanding: Outstanding) -> None:
        self.dead: set[int] = set()
        self.reviving: set[int] = set()
        self._outstanding = outstanding
        self._unsaved: list[DeadLetter] = []
        self._saving = 0

    def __repr__(self) -> str:
        return f"<DeadLetterBox dead={len(self.dead)} unsaved={len(self._unsaved)} reviving={len(self.reviving)}>"

    def __contains__(self, seq: int) -> bool:
        """Return True if a message is dead or reviving."""
        return seq in self.dead or seq in self.reviving

    @property
    def unsaved(self) -> bool:
        """Whether there are dead letters that are not stored yet."""
        return bool(self._unsaved)

    @property
    def unstored(self) -> int:
        """How many dead letters are on their way to the disk: nobody finds them there yet."""
        return len(self._unsaved) + self._saving

    def restore(self, seq: int) -> None:
        """Add a stored dead letter."""
        self.dead.add(seq)

    def add(self, seq: int, reason: str, attempts: int, channel: str | None) -> Abandoned | None:
        """Note that a message is dead; return it as the mailbox gave it up.

        None if it is a dead letter already whose retry is on its way to the disk: it is returned all the same.
        """
        if seq in self.reviving:
            return None
        self.dead.add(seq)
        return Abandoned(seq, reason, attempts, channel)

    def bury(self, dead_letter: DeadLetter) -> None:
        """Keep a dead letter for the next transaction with the mailbox's state."""
        self._unsaved.append(dead_letter)

    def take_unsaved(self) -> list[DeadLetter]:
        """Return the dead letters that are not stored yet, to be stored now: `stored` or `not_saved` follows."""
        unsaved, self._unsaved = self._unsaved, []
        self._saving = len(unsaved)
        return unsaved

    def stored(self) -> None:
        """Note that the dead letters that were taken are on disk."""
        self._saving = 0

    def not_saved(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters that were not stored for the next transaction."""
        self._unsaved[:0] = dead_letters
        self._saving = 0

    def put_back(self, seqs: Iterable[int]) -> list[int]:
        """Prepare to retry dead letters; return the seqs that are some. Call `revive` once that is on disk."""
        there = sorted(self.dead.intersection(seqs))
        self.dead.difference_update(there)
        self.reviving.update(there)
        return there

    def take_out(self, seqs: Iterable[int]) -> list[int]:
        """Remove dead letters for good, and return those that are some. If that is not stored, call `stay_dead`."""
        there = sorted(self.dead.intersection(seqs))
        self.dead.difference_update(there)
        return there

    def revive(self, seqs: Iterable[int]) -> None:
        """Return dead letters to the mailbox, as if they had never been delivered."""
        for seq in seqs:
            self.reviving.discard(seq)
            self._outstanding.revive(seq)

    def stay_dead(self, seqs: Iterable[int]) -> None:
        """Leave dead letters as they are: their retry, or their removal, was not stored."""
        self.reviving.difference_update(seqs)
        self.dead.update(seqs)
