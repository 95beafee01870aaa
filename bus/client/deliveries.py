"""The messages that a bot holds, and those that it settled.

Owns what a redelivery means. A message that is held is not delivered to the program twice; one that was settled is
silently acked again. The id is kept beside each seq, because a log restored from a copy assigns seqs a second time.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from ..errors import NotInFlight
from ..wire.frames import Code, Extend, StoredMessage
from ..wire.limits import HELD_MAX

__all__ = ["Deliveries", "of_another_log"]

_SETTLED_REMEMBERED_MAX = 20_000
"""Settled seqs that are remembered to drop repeats: many times the largest credit."""


class Deliveries:
    """See the module."""

    def __init__(self) -> None:
        self.held: dict[int, StoredMessage] = {}
        """Messages that were delivered and are not settled, by seq."""
        self._settled: OrderedDict[int, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Deliveries held={len(self.held)} settled={len(self._settled)}>"

    def take(self, messages: Sequence[StoredMessage]) -> tuple[list[StoredMessage], list[int]]:
        """Note delivered messages; return those that are new, and the seqs of those that were settled before."""
        new: list[StoredMessage] = []
        settled: list[int] = []
        for message in messages:
            seq = message.seq
            if self._settled.get(seq) == message.id:
                settled.append(seq)
                continue
            held = self.held.get(seq)
            if held is None or held.id != message.id:
                self.held[seq] = message
                new.append(message)
        return new, settled

    def holds(self, message: StoredMessage) -> bool:
        """Return True if a message is still held, and its seq does not name another one by now."""
        return self.held.get(message.seq) is message

    def holding(self, settling: Iterable[StoredMessage]) -> list[int]:
        """Return the seqs of the messages that are held, and of those whose settling was not answered."""
        return sorted({*self.held, *(message.seq for message in settling)})[:HELD_MAX]

    def upkeep(self) -> list[Extend]:
        """Return what says that the messages are still held, to be sent from time to time."""
        return [Extend(seqs=list(self.held))] if self.held else []

    def progress(self, message_id: str) -> Extend | None:
        """Return what says that work on a message was recorded, if it is held and was delivered before."""
        seqs = [each.seq for each in self.held.values() if each.id == message_id and each.attempt > 1]
        return Extend(seqs=seqs, progress=True) if seqs else None

    def settle(self, message: StoredMessage) -> None:
        """Note that a message is settled: repeats of it are dropped from now on."""
        self.held.pop(message.seq, None)
        self._settled[message.seq] = message.id
        if len(self._settled) > _SETTLED_REMEMBERED_MAX:
            self._settled.popitem(last=False)

    def release(self, message: StoredMessage) -> None:
        """Note that a message was returned or given up: it may be redelivered."""
        if self.holds(message):
            del self.held[message.seq]

    def want_again(self) -> None:
        """Forget what was settled: the bot is about to ask for messages that it may have had."""
        self._settled.clear()

    def forget(self) -> None:
        """Forget what is held: those seqs belong to another log.

        Settled ids stay known, because the new log may be an older copy, which delivers those messages again.
        """
        self.held.clear()


def of_another_log() -> NotInFlight:
    """Return the error for settling a message after the log was replaced: its seq may be another message's now."""
    return NotInFlight.received(
        Code.CONFLICT, "the message is from another log than the worker's: it cannot be settled"
    )
