"""What is stored of a mailbox, and the checksum that seals a row: the same in every backend.

Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bus.model.keys import Key, Purpose
from bus.model.repository import (
    Erase,
    Erased,
    MailboxState,
    PatternSubscription,
    Removal,
    Remove,
    Removed,
    Subscription,
    UnsettledState,
)

__all__ = [
    "erased_before",
    "is_sealed",
    "key_of",
    "key_row",
    "mailbox_of",
    "mailbox_row",
    "pattern_of",
    "pattern_row",
    "removal_of",
    "removal_row",
    "removed_before",
    "removed_names",
    "seal",
    "subscription_of",
    "subscription_row",
]

_encode = msgspec.msgpack.Encoder().encode


def seal(*values: Any) -> int:
    """Return the CRC-32 over the values of a row, in the order in which it is read."""
    return zlib.crc32(_encode(values))


def is_sealed(row: Sequence[Any]) -> bool:
    """Return True if a row, which ends with its checksum, is as it was stored."""
    *values, checksum = row
    try:
        return checksum is None or seal(*values) == checksum
    except (TypeError, ValueError):
        return False


def mailbox_row(state: MailboxState) -> tuple[Any, ...]:
    """Return id, position, unsettled, floors, ahead, gap_from, gap_to and checksum of a mailbox."""
    values = (
        state.mailbox_id,
        state.position,
        msgspec.json.encode([_written(item) for item in state.unsettled]).decode(),
        msgspec.json.encode(state.floors).decode(),
        msgspec.json.encode(state.ahead).decode(),
        *(state.gap or (None, None)),
    )
    return (*values, seal(*values))


def _written(item: UnsettledState) -> tuple[Any, ...]:
    """Return what is stored of an unsettled message: usually only the first fields differ from the defaults."""
    if item.due_at is None and not item.retried and not item.vanished and not item.priority:
        return (item.seq, item.attempt, item.failures)
    return msgspec.structs.astuple(item)


def mailbox_of(row: Sequence[Any]) -> MailboxState:
    """Read such a row. Raises ValueError if its contents are invalid."""
    return MailboxState(
        mailbox_id=row[0],
        position=row[1],
        unsettled=msgspec.json.decode(row[2], type=tuple[UnsettledState, ...]),
        floors=msgspec.json.decode(row[3], type=dict[str, int]),
        ahead=msgspec.json.decode(row[4], type=tuple[int, ...]),
        gap=None if row[5] is None else (row[5], row[6]),
    )


def subscription_row(subscription: Subscription) -> tuple[Any, ...]:
    """Return the fields of a subscription in their order, and its checksum.

    That is as it was before there were patterns, if the subscription did not come by one.
    """
    *values, pattern = _numbers(subscription)
    return (*values, pattern, seal(*values) if pattern is None else seal(*values, pattern))


def subscription_of(row: Sequence[Any]) -> Subscription:
    """Read what such a checksum covers, and the checksum."""
    bot_id, channel, subscribed_at, start_seq, echo, group, *patterns, _ = row
    return Subscription(bot_id, channel, subscribed_at, start_seq, bool(echo), group, *patterns)


def pattern_row(subscription: PatternSubscription) -> tuple[Any, ...]:
    """Return the fields of a subscription to a pattern in their order, and its checksum."""
    values = _numbers(subscription)
    return (*values, seal(*values))


def pattern_of(row: Sequence[Any]) -> PatternSubscription:
    """Read such a row."""
    bot_id, pattern, subscribed_at, start_seq, echo, group, _ = row
    return PatternSubscription(bot_id, pattern, subscribed_at, start_seq, bool(echo), group)


def _numbers(subscription: Subscription | PatternSubscription) -> tuple[Any, ...]:
    """Return the fields with `echo` as a number, as the first backend stores it."""
    values = msgspec.structs.astuple(subscription)
    return tuple(int(value) if isinstance(value, bool) else value for value in values)


def key_row(key: Key) -> tuple[Any, ...]:
    """Return the fields of a key in their order, and its checksum."""
    values = (
        key.public_key,
        key.bot_id,
        key.purpose.value,
        msgspec.json.encode(key.roles).decode(),
        key.label,
        key.created_at,
        key.created_by,
        key.expires_at,
        key.revoked_at,
        key.replaced_by,
        key.last_used_at,
    )
    return (*values, seal(*values))


def key_of(row: Sequence[Any]) -> Key:
    """Read such a row. Raises ValueError if its contents are invalid."""
    return Key(
        public_key=row[0],
        bot_id=row[1],
        purpose=Purpose(row[2]),
        roles=msgspec.json.decode(row[3], type=tuple[str, ...]),
        label=row[4],
        created_at=row[5],
        created_by=row[6],
        expires_at=row[7],
        revoked_at=row[8],
        replaced_by=row[9],
        last_used_at=row[10],
    )


def removal_row(change: Erase | Remove, what: Erased | Removed) -> tuple[Any, ...]:
    """Return id, at, bot_id, bot_name, reference, what, scrubbed_at and checksum of the record of a removal."""
    recorded = msgspec.to_builtins(what if isinstance(what, Erased) else _Recorded(what))
    if change.part_of is not None:
        recorded["part_of"] = change.part_of
    text = msgspec.json.encode(recorded).decode()
    values = (change.id, change.at, change.bot_id, change.bot_name, change.reference, text, None)
    return (*values, seal(*values))


def removal_of(row: Sequence[Any]) -> Removal:
    """Read the number of a record, and then such a row."""
    number, *values, checksum = row
    id, at, bot_id, bot_name, reference, what, scrubbed_at = values
    known = (number, id, at, bot_id, bot_name, reference)
    if seal(*values) != checksum:
        return Removal(*known, Erased(), scrubbed_at, damaged=True)
    of_it = msgspec.json.decode(what, type=_Recorded)
    return Removal(*known, erased_before(what), scrubbed_at, removed=of_it.removed, part_of=of_it.part_of)


def erased_before(what: str) -> Erased:
    """Return what an erasure did, as it was recorded."""
    return msgspec.structs.replace(msgspec.json.decode(what, type=Erased), again=True)


def removed_before(what: str, change: Remove) -> Removed:
    """Return what a removal did, as it was recorded; nothing if the record is that of an erasure."""
    return msgspec.structs.replace(_recorded(what) or Removed(change.kind, change.name), again=True)


def removed_names(recorded: Iterable[str]) -> tuple[set[str], set[str]]:
    """Return the ids of bots and the names of channels that were removed, of which messages may be left."""
    bots, channels = set[str](), set[str]()
    for what in recorded:
        try:
            removed = _recorded(what)
        except msgspec.DecodeError:
            continue  # its checksum differs, too: that is told elsewhere
        if removed is not None and removed.kind == "bot":
            bots.update(removed.ids)
        elif removed is not None and removed.kind == "channel":
            channels.add(removed.name)
    return bots, channels


class _Recorded(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is recorded of a removal, and of which command it is a part. Of an erasure it is its own fields."""

    removed: Removed | None = None
    part_of: str | None = None


def _recorded(what: str) -> Removed | None:
    return msgspec.json.decode(what, type=_Recorded).removed
