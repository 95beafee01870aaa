"""Stored messages on their way to their recipients: what is the same for all of them is written once.

Owns the JSON form of a message of the log (docs/protocol.md, "Message"). What differs between mailboxes, and the
closing brace, is appended at delivery.

Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from ..model.priorities import Priority, name_of
from ..model.repository import Lot, NewMessage, StoredLot
from ..wire.codec import encode
from ..wire.frames import ToBot, ToChannel

__all__ = ["Envelope", "Parcel", "WireDeliveries", "id_of", "parcel_of", "write_message"]


_ID_FIELD = b'"id":"'
"""What precedes a message's id in its JSON; the seq is before it, and nothing else."""


_ERASED = b',"erased":true'
"""What ends the JSON of an erased message."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What delivery must know of stored messages. From `expires_at` on, a wall time, they are not delivered."""

    sender_bot_id: str
    channel: str | None
    expires_at: str | None = None
    priority: int = 0

    def is_expired(self, wall: str) -> bool:
        """Return True if they have expired at a time of the wall clock."""
        return self.expires_at is not None and self.expires_at <= wall


class WireDeliveries(NamedTuple):
    """Messages as they go into a frame: the JSON of each is followed by the ending."""

    wires: Sequence[bytes]
    ending: bytes


class Parcel(msgspec.Struct, frozen=True, gc=False):
    """Stored messages with the same envelope, in seq order. `wires` has their JSON without the closing braces."""

    envelope: Envelope
    seqs: Sequence[int]
    wires: Sequence[bytes]
    size_bytes: int
    """The size of the wires."""

    def __len__(self) -> int:
        return len(self.seqs)

    def part(self, start: int, end: int) -> Parcel:
        """Return some of the messages, by their indexes."""
        if start == 0 and end >= len(self.seqs):
            return self
        wires = self.wires[start:end]
        return Parcel(self.envelope, self.seqs[start:end], wires, sum(map(len, wires)))

    def fitting(self, bytes_max: int) -> int:
        """Return how many of the messages fit into so many bytes; the last of them may exceed that."""
        if self.size_bytes <= bytes_max:
            return len(self.seqs)
        sizes = enumerate(accumulate(map(len, self.wires)), 1)
        return next(count for count, size in sizes if size >= bytes_max)

    def select(self, indexes: Iterable[int]) -> Parcel:
        """Return the messages with these indexes, at least one."""
        seqs, wires = zip(*((self.seqs[at], self.wires[at]) for at in indexes), strict=True)
        return Parcel(self.envelope, seqs, wires, sum(map(len, wires)))

    def after(self, seq: int) -> Parcel:
        """Return the messages above a seq."""
        if seq < self.seqs[0]:
            return self
        return self.part(bisect_right(self.seqs, seq), len(self.seqs))

    def without(self, *seqs: Collection[int]) -> Parcel:
        """Return the messages whose seqs are in none of these."""
        seqs = tuple(filter(None, seqs))
        if not seqs:  # as is the rule
            return self
        kept = [
            (seq, wire)
            for seq, wire in zip(self.seqs, self.wires, strict=True)
            if not any(seq in unwanted for unwanted in seqs)
        ]
        if len(kept) == len(self.seqs):
            return self
        wires = [wire for _, wire in kept]
        return Parcel(self.envelope, [seq for seq, _ in kept], wires, sum(map(len, wires)))


class _Before(msgspec.Struct, frozen=True, gc=False):
    """The fields of a stored message between its id and its body, in the wire's order."""

    sender_bot_id: str
    sender_bot_name: str
    recipient: ToBot | ToChannel
    message_type: str


class _After(msgspec.Struct, frozen=True, gc=False):
    """The fields of a stored message that follow its body, but for what it replies to."""

    headers: msgspec.Raw
    timestamp: str | None


class _AfterMarked(_After, frozen=True, gc=False, omit_defaults=True):
    """The same of a message that is tainted, or that has a priority."""

    tainted: bool = False
    priority: Priority = "normal"


def _frame(message: NewMessage | Lot, timestamp: str | None) -> tuple[bytes, bytes]:
    """Return what is before and after the bodies of messages of one lot; without the braces."""
    direct, channel = message.recipient_bot_id, message.recipient_channel
    before = _Before(
        message.sender_bot_id,
        message.sender_bot_name,
        ToBot(bot_id=direct) if channel is None else ToChannel(channel),
        message.message_type,
    )
    after = _After(msgspec.Raw(message.headers), timestamp)
    if message.tainted or message.priority:
        after = _AfterMarked(after.headers, timestamp, message.tainted, name_of(message.priority))
    return encode(before)[1:-1], encode(after)[1:-1]


def write_message(message: NewMessage, seq: int | None, timestamp: str | None) -> bytes:
    """Return a message as JSON. A delayed message that is not due yet has neither seq nor timestamp."""
    before, after = _frame(message, timestamp)
    body = message.body or b"null"  # it was erased
    own = (encode(seq), encode(message.id), before, body, encode(message.reply_to), after)
    return b'{"seq":%b,"id":%b,%b,"body":%b,"reply_to":%b,%b%b}' % (*own, b"" if message.body else _ERASED)


def parcel_of(stored: StoredLot) -> Parcel:
    """Return the messages of a lot as a parcel."""
    lot, seqs = stored.lot, list(stored.seqs)
    before, after = _frame(lot, stored.timestamp)
    if lot.reply_tos is None:
        wires = [
            b'{"seq":%d,"id":%b,%b,"body":%b,"reply_to":null,%b' % (seq, encode(id), before, body, after)
            for seq, id, body in zip(seqs, lot.ids, lot.bodies, strict=True)
        ]
    else:
        wires = [
            b'{"seq":%d,"id":%b,%b,"body":%b,"reply_to":%b,%b'
            % (seq, encode(id), before, body, encode(reply_to), after)
            for seq, id, body, reply_to in zip(seqs, lot.ids, lot.bodies, lot.reply_tos, strict=True)
        ]
    envelope = Envelope(lot.sender_bot_id, lot.recipient_channel, lot.expires_at, lot.priority)
    return Parcel(envelope, seqs, wires, sum(map(len, wires)))


def id_of(wire: bytes) -> str:
    """Return the id of a message from its JSON."""
    start = wire.index(_ID_FIELD) + len(_ID_FIELD)
    return wire[start : wire.index(b'"', start)].decode()
