"""The last value of a channel: the message that was published with `retain` last, as a keyed value.

Owns the store that has them, by the names of their channels, and the form of a value. A backend writes `retained`
in the transaction in which the messages enter the log, so that there is never one without the other. A body of null
clears the value. No client can name this store: names of stores begin with a letter or a digit.

Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import msgspec

from .budgeting import budgeted
from .keyed import KeyedWrite, StoredValue, ValueState
from .lots import Added, LogMessage, Lot, NewMessage, Outcome, each
from .records import parse_timestamp

__all__ = ["RETAINED", "forgotten", "retained", "retained_message"]

RETAINED = "$retained"

_CLEARED = b"null"


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message, without what the row says: the channel is the key."""

    seq: int
    id: str
    sender_bot_id: str
    sender_bot_name: str
    message_type: str
    body: msgspec.Raw
    headers: msgspec.Raw
    timestamp: str
    reply_to: str | None = None
    expires_at: str | None = None
    tainted: bool = False


def retained(lots: Iterable[Lot], outcomes: Iterable[Outcome], timestamp: str) -> list[KeyedWrite]:
    """Return what is to be written after lots were added to the log: the last value of each channel.

    A repeat of a message retains nothing: it was retained the first time, and there may be a later one since.
    """
    last: dict[str, tuple[NewMessage, Added]] = {}
    for lot, outcome in zip(lots, outcomes, strict=True):
        if lot.retain and lot.recipient_channel is not None:
            for message, added in zip(lot.messages(), each(lot, outcome), strict=True):
                if added.seq is not None and not added.duplicate:
                    last[lot.recipient_channel] = message, added
    return [_write(channel, message, added, timestamp) for channel, (message, added) in last.items()]


def _write(channel: str, message: NewMessage, added: Added, timestamp: str) -> KeyedWrite:
    message = budgeted(message, added.budget)
    if message.body == _CLEARED:
        return msgspec.structs.replace(forgotten(channel), bot_id=message.sender_bot_id)
    value = _Value(
        seq=added.seq or 0,
        id=message.id,
        sender_bot_id=message.sender_bot_id,
        sender_bot_name=message.sender_bot_name,
        message_type=message.message_type,
        body=msgspec.Raw(message.body),
        headers=msgspec.Raw(message.headers),
        timestamp=timestamp,
        reply_to=message.reply_to,
        expires_at=message.expires_at,
        tainted=added.tainted,
    )
    ttl = None
    if message.expires_at is not None:
        ttl = (parse_timestamp(message.expires_at) - parse_timestamp(timestamp)).total_seconds()
    return msgspec.structs.replace(
        forgotten(channel),
        state=ValueState.JSON,
        value=msgspec.json.encode(value).decode(),
        bot_id=message.sender_bot_id,
        ttl_seconds=ttl,
    )


def forgotten(channel: str) -> KeyedWrite:
    """Return what removes the last value of a channel."""
    return KeyedWrite(
        store=RETAINED,
        key=channel,
        state=ValueState.DELETED,
        value=None,
        id=None,
        bot_id=None,
        keys_max=sys.maxsize,  # there are no more than channels
    )


def retained_message(stored: StoredValue) -> LogMessage:
    """Return the message that is the last value of its channel."""
    value = msgspec.json.decode(stored.value, type=_Value)
    return LogMessage(
        value.id,
        value.sender_bot_id,
        value.sender_bot_name,
        None,
        stored.key,
        value.message_type,
        bytes(value.body),
        value.reply_to,
        bytes(value.headers),
        value.expires_at,
        tainted=value.tainted,
        seq=value.seq,
        timestamp=value.timestamp,
    )
