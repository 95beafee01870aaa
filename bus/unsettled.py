"""What a mailbox keeps of a message that was handed out, or came back, and is not settled.

Pure.
"""

from __future__ import annotations

import msgspec

from .envelope import Envelope
from .sessions import Session

__all__ = ["Abandoned", "Unsettled"]


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
