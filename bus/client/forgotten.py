"""Why a program may get no messages, or not all: it forgot to settle some, or shares its bot's name.

Owns detecting both. A message that the client holds and that nothing else refers to cannot be settled any more.
Reference counts show that, and cost nothing per message, unlike weak references or finalisers.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from sys import getrefcount

from ..errors.words import amount
from ..wire.codec import encode
from ..wire.frames import StoredMessage, Welcome

__all__ = ["Forgotten", "shared"]

_LOOK_SECONDS = 1.0
"""How often to check a bot whose credit is used up, however many messages it receives."""

_BYTES_MAX = 8_388_608
"""The worker's default for the bytes in flight to a session: large messages use it up before the credit."""


def shared(welcome: Welcome) -> str | None:
    """Return the warning for a bot that has other sessions, or None if it has not."""
    others = welcome.sessions - 1
    if others < 1 or welcome.max_in_flight == 0:
        return None
    sessions = amount(others, "other session")
    return f"bot {welcome.bot!r} has {sessions}: they share its mailbox, and each message goes to one of them"


class Forgotten:
    """Reports once that a bot's credit is used up by forgotten messages, and again after it has recovered."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._reported = False

    def is_due(self, now: float) -> bool:
        """Return True if the last check is long enough ago."""
        return now - self._looked_at >= _LOOK_SECONDS

    def look(self, held: Collection[StoredMessage], now: float, *, messages_max: int) -> str | None:
        """Return a warning for the bot's author, or None if there is nothing new.

        `held` are the messages that were delivered and are not settled. Those not received yet are also referred
        to.
        """
        self._looked_at = now
        forgotten = _unreferenced(held)
        self._reported = self._reported and bool(forgotten)
        if self._reported or not forgotten:
            return None
        if len(held) < messages_max and _size_bytes(held) < _BYTES_MAX:
            return None
        self._reported = True
        return (
            f"no more messages are delivered, because {len(forgotten)} of the {len(held)} that may be unsettled at"
            f" a time were received and dropped without being settled (the last one is message {forgotten[-1]}):"
            " settle each one, with 'async with message:' or 'await message.ack()'"
        )


def _unreferenced(held: Collection[StoredMessage]) -> list[int]:
    """Return the seqs of the messages that only their collection refers to."""
    [alone] = _counts([object()])
    return [message.seq for message, count in zip(held, _counts(held), strict=True) if count <= alone]


def _size_bytes(held: Collection[StoredMessage]) -> int:
    return sum(len(encode(message)) for message in held)


def _counts(values: Collection[object]) -> list[int]:
    return [getrefcount(value) for value in values]
