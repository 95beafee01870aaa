"""The messages that a bot holds, and those that it settled.

Owns what a redelivery means. A message that is held is not delivered to the program twice; one that was settled is
silently acked again. The id is kept beside each seq, because a log restored from a copy assigns seqs a second time.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from ..errors import NotInFlight
from ..wire.frames import Code, Extend, Hello, Park, StoredMessage
from ..wire.limits import HELD_MAX, PARKED_MAX

__all__ = ["Deliveries", "of_another_log"]

_SEQ_BYTES = 17
"""A seq in a frame, with its comma: at most. Half of a hello's frame is for those of parked messages."""

_SETTLED_REMEMBERED_MAX = 20_000
"""Settled seqs that are remembered to drop repeats: many times the largest credit."""


class Deliveries:
    """See the module."""

    def __init__(self) -> None:
        self.held: dict[int, StoredMessage] = {}
        """Messages that were delivered and are not settled, by seq."""
        self.parked: set[int] = set()
        """The seqs of those among them that nobody is at work on, as the worker was told."""
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
                self.parked.discard(seq)
                new.append(message)
        return new, settled

    def holds(self, message: StoredMessage) -> bool:
        """Return True if a message is still held, and its seq does not name another one by now."""
        return self.held.get(message.seq) is message

    def returning(self, hello: Hello, settling: Iterable[StoredMessage], frame_bytes_max: int) -> Hello:
        """Return a hello that names the messages that are held, and those whose settling was not answered."""
        known = self.held | {message.seq: message for message in settling}
        holds = sorted(known.keys() - self.parked)[:HELD_MAX]
        parked = sorted(self.parked)[: min(PARKED_MAX, frame_bytes_max // (4 * _SEQ_BYTES))]
        groups: dict[str, list[int]] = {}
        for seq in [*holds, *parked]:
            if (group := known[seq].group) is not None:
                groups.setdefault(group, []).append(seq)
        return msgspec.structs.replace(hello, holds=holds, parked=parked, held_groups=groups)

    def upkeep(self) -> list[Extend]:
        """Return what says that messages are still being worked on, to be sent from time to time."""
        seqs = [seq for seq in self.held if seq not in self.parked] if self.parked else list(self.held)
        return [Extend(seqs=seqs)] if seqs else []

    def park(self, message: StoredMessage, most: int) -> Park | None:
        """Return what says that nobody is at work on a message; None if it is not held, or `most` are parked."""
        if not self.holds(message) or len(self.parked) >= most:
            return None
        self.parked.add(message.seq)
        return Park(seqs=[message.seq])

    def unpark(self, message: StoredMessage) -> Extend | None:
        """Return what says that work on a message goes on; None if it was not parked."""
        if message.seq not in self.parked:
            return None
        self.parked.remove(message.seq)
        return Extend(seqs=[message.seq])

    def settle(self, message: StoredMessage) -> None:
        """Note that a message is settled: repeats of it are dropped from now on."""
        self._drop(message)
        self._settled[message.seq] = message.id
        if len(self._settled) > _SETTLED_REMEMBERED_MAX:
            self._settled.popitem(last=False)

    def release(self, message: StoredMessage) -> None:
        """Note that a message was returned or given up: it may be redelivered."""
        if self.holds(message):
            self._drop(message)

    def _drop(self, message: StoredMessage) -> None:
        self.held.pop(message.seq, None)
        self.parked.discard(message.seq)

    def want_again(self) -> None:
        """Forget what was settled: the bot is about to ask for messages that it may have had."""
        self._settled.clear()

    def forget(self) -> None:
        """Forget what is held: those seqs belong to another log.

        Settled ids stay known, because the new log may be an older copy, which delivers those messages again.
        """
        self.held.clear()
        self.parked.clear()


def of_another_log() -> NotInFlight:
    """Return the error for settling a message after the log was replaced: its seq may be another message's now."""
    return NotInFlight.received(
        Code.CONFLICT, "the message is from another log than the worker's: it cannot be settled"
    )
