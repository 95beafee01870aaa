"""What a bot was delivered: the messages that it holds, and those that it settled.

Owns what a later delivery of the same message means. One that is held is not handed out twice; one that was settled
is acked once more, in silence. The id is kept beside each seq, because a log that was restored from a copy gives
seqs a second time.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict

from ..errors import NotInFlight
from ..wire.frames import Code, StoredMessage

__all__ = ["Deliveries", "of_another_log"]

_SETTLED_REMEMBERED_MAX = 20_000
"""Settled seqs that are remembered to drop repeats: many times the largest credit."""


class Deliveries:
    """See the module."""

    def __init__(self) -> None:
        self.held: dict[int, StoredMessage] = {}
        """What was delivered and is not settled, by its seqs."""
        self._settled: OrderedDict[int, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Deliveries held={len(self.held)} settled={len(self._settled)}>"

    def take(self, message: StoredMessage) -> bool:
        """Note that a message was delivered; return True if it is held from now on, and was not before."""
        held = self.held.get(message.seq)
        if held is not None and held.id == message.id:
            return False
        self.held[message.seq] = message
        return True

    def was_settled(self, message: StoredMessage) -> bool:
        """Return True if this bot settled a message before."""
        return self._settled.get(message.seq) == message.id

    def holds(self, message: StoredMessage) -> bool:
        """Return True if a message is still this bot's to settle, and its seq names no other one by now."""
        return self.held.get(message.seq) is message

    def settle(self, message: StoredMessage) -> None:
        """Note that a message is done with: repeats of it are dropped from now on."""
        self.held.pop(message.seq, None)
        self._settled[message.seq] = message.id
        if len(self._settled) > _SETTLED_REMEMBERED_MAX:
            self._settled.popitem(last=False)

    def release(self, message: StoredMessage) -> None:
        """Note that a message was given back or given up: it may come again."""
        if self.holds(message):
            del self.held[message.seq]

    def want_again(self) -> None:
        """Forget what was settled: the bot is about to ask for messages that it may have had."""
        self._settled.clear()

    def forget(self) -> None:
        """Forget what is held: the seqs are those of another log.

        What was settled stays known by its id, for that log may be an older copy, which delivers it again.
        """
        self.held.clear()


def of_another_log() -> NotInFlight:
    """Return the error for settling a message after the log was replaced: its seq may be another one's there."""
    return NotInFlight.received(
        Code.CONFLICT, "the worker has another log than this message is of: it cannot be settled"
    )
