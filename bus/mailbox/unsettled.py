"""What a mailbox keeps of an unsettled message.

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
    """A message that was delivered, or put back, and is not settled."""

    attempt: int
    failures: int
    envelope: Envelope | None
    session: Session | None = None
    deadline: float = 0.0
    due_at: str | None = None
    """When it is redelivered, by the wall clock, if it rests for `delay` seconds."""
    delay: float = 0.0
    source: str | None = None
    """The channel that it came by, "" for a direct message, if `envelope` is not loaded; None if unknown."""
    retried: bool = False
    """Whether it was a dead letter: then it is delivered even if its channel was left."""
    vanished: tuple[str, ...] = ()
    """The clients that failed it by vanishing, one per failure: a failure is undone when that client returns."""

    def is_of(self, channel: str) -> bool:
        """Return True if it came by a channel, as far as is known in memory."""
        source = self.source if self.envelope is None else self.envelope.channel
        return not self.retried and source == channel

    def unload(self) -> None:
        """Drop the message itself, and keep where it came by."""
        if self.envelope is not None:
            self.source = self.envelope.channel or DIRECT
            self.envelope = None

    def saved(self, seq: int) -> UnsettledState:
        """Return what is saved of it."""
        return UnsettledState(
            seq, self.attempt, self.failures, self.due_at, self.delay, self.retried, self.vanished
        )


def restored(item: UnsettledState) -> Unsettled:
    """Return an unsettled message as it was saved, without its contents."""
    return Unsettled(
        item.attempt,
        item.failures,
        None,
        due_at=item.due_at,
        delay=item.delay,
        retried=item.retried,
        vanished=item.vanished,
    )
