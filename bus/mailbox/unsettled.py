"""What a mailbox keeps of a message that was handed out, or came back, and is not settled.

Pure.
"""

from __future__ import annotations

import msgspec

from ..model.repository import UnsettledState
from .envelope import Envelope
from .sessions import Session
from .sources import DIRECT

__all__ = ["Abandoned", "Unsettled", "restored"]


class Abandoned(msgspec.Struct, frozen=True):
    """A message that the mailbox gave up on."""

    seq: int
    reason: str
    attempts: int


class Unsettled(msgspec.Struct, gc=False, eq=False):
    """A message that was handed out, or came back, and is not settled."""

    attempt: int
    failures: int
    envelope: Envelope | None
    session: Session | None = None
    deadline: float = 0.0
    due_at: str | None = None
    """When it comes again, by the wall clock, where it rests for `delay` seconds."""
    delay: float = 0.0
    source: str | None = None
    """The channel that it came by, "" for a direct message, while `envelope` does not say so; None if unknown."""
    retried: bool = False
    """Whether it was a dead letter: then it is owed whether its channel was left or not."""
    vanished: tuple[str, ...] = ()
    """The clients that failed it by vanishing, one a failure: it is taken back when that client returns."""

    def is_of(self, channel: str) -> bool:
        """Return whether it is here for the sake of a channel, as far as memory knows."""
        source = self.source if self.envelope is None else self.envelope.channel
        return not self.retried and source == channel

    def unload(self) -> None:
        """Keep no more of the message than where it came by."""
        if self.envelope is not None:
            self.source = self.envelope.channel or DIRECT
            self.envelope = None

    def saved(self, seq: int) -> UnsettledState:
        """Return what is kept of it on disk."""
        return UnsettledState(
            seq, self.attempt, self.failures, self.due_at, self.delay, self.retried, self.vanished
        )


def restored(item: UnsettledState) -> Unsettled:
    """Return what was kept on disk, without its message."""
    return Unsettled(
        item.attempt,
        item.failures,
        None,
        due_at=item.due_at,
        delay=item.delay,
        retried=item.retried,
        vanished=item.vanished,
    )
