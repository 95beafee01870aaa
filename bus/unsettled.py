"""What a mailbox keeps of a message that was handed out, or came back, and is not settled.

Pure.
"""

from __future__ import annotations

import msgspec

from .intake import Envelope
from .sessions import Session

__all__ = ["Abandoned", "Unsettled"]


class Abandoned(msgspec.Struct, frozen=True):
    """A message that the mailbox gave up on."""

    seq: int
    reason: str
    attempts: int


class Unsettled:
    """A message that was handed out, or came back, and is not settled."""

    __slots__ = ("attempt", "deadline", "envelope", "failures", "session")

    def __init__(self, attempt: int, failures: int, envelope: Envelope | None) -> None:
        self.attempt = attempt
        self.failures = failures
        self.envelope = envelope
        self.session: Session | None = None
        self.deadline = 0.0
