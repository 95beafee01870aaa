"""Last wills: messages that bots leave with the worker, which sends them if they vanish.

Owns the store of them, by the ids of their bots, and the form of a value. A will is sent by a commit that deletes
it. No client can name this store: names of stores begin with a letter or a digit.

Pure.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import msgspec

from .keyed import KeyedWrite, StoredValue, ValueState

__all__ = ["WILLS", "StoredWill", "Will", "stored_will", "will_write"]

WILLS = "$wills"


class Will(msgspec.Struct, frozen=True):
    """What a bot left: its message as it was sent to the worker, and for how long the bot may be away."""

    bot_id: str
    message: msgspec.Raw
    delay_ms: int


class StoredWill(NamedTuple):
    """A will on disk, and the revision of its value, by which it differs from every other one of its bot."""

    will: Will
    revision: int


_decode = msgspec.json.Decoder(Will).decode


def stored_will(value: StoredValue) -> StoredWill:
    """Return a will from its value."""
    return StoredWill(_decode(bytes(value.value)), value.revision)


def will_write(bot_id: str, will: Will | None, expected: int | None = None) -> KeyedWrite:
    """Return the write that stores a bot's will instead of its earlier one, or deletes it.

    With `expected`, it fails unless the earlier one has this revision.
    """
    state, value = ValueState.DELETED, None
    if will is not None:
        state, value = ValueState.JSON, msgspec.json.encode(will).decode()
    # Nobody can have more of them than there are bots, whose number is limited.
    return KeyedWrite(
        store=WILLS,
        key=bot_id,
        state=state,
        value=value,
        id=None,
        bot_id=bot_id,
        expected=expected,
        keys_max=sys.maxsize,
    )
