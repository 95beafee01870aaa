"""What a mailbox consists of, and what happens to several parts at once.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from .backlog import Backlog
from .dead_letters import DeadLetterBox
from .intake import Intake
from .losses import Losses
from .outstanding import Outstanding
from .sources import Sources
from .unsettled import Abandoned

__all__ = ["Parts"]


class Parts(NamedTuple):
    """The parts of one mailbox. Each owns what its module says, and none knows the mailbox."""

    sources: Sources
    intake: Intake
    backlog: Backlog
    outstanding: Outstanding
    dead_letters: DeadLetterBox
    losses: Losses

    def early(self, seq: int) -> tuple[int, ...]:
        """Return what was delivered before its turn and lies above a seq."""
        known = (self.outstanding.seqs, self.sources.ahead, self.sources.lanes.early)
        return tuple({each for seqs in known for each in seqs if each > seq})  # few of many: no set is made of all

    def pass_over(self, seqs: Collection[int]) -> None:
        """Note that messages are settled or dead, so that they are not delivered when their turn comes, or again.

        They come again if their channel was left, and subscribed to from the past while they were in flight.
        """
        sources = self.sources
        if max(seqs, default=0) <= sources.position:
            return
        for seq in seqs:
            if self.intake.idle:  # nothing waits below it: it is its turn after all
                sources.advance(seq)
            elif seq > sources.position and seq not in sources.lanes.delivered:
                sources.settle_ahead(seq)

    @property
    def is_reading(self) -> bool:
        """Whether a page is being read."""
        return self.intake.reading is not None or self.sources.lanes.reading is not None

    def drop(self, seqs: Collection[int]) -> None:
        """Drop messages that wait in memory for their first delivery."""
        self.intake.drop(seqs)
        self.sources.lanes.drop(seqs)

    def abandon(self, seq: int, reason: str, attempts: int, channel: str | None) -> Abandoned | None:
        """Make a message that is no longer unsettled a dead letter; return None if it is being retried."""
        self.pass_over((seq,))
        return self.dead_letters.add(seq, reason, attempts, channel)
