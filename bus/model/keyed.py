"""The keyed store: values under keys, in named stores, each write with a revision.

Owns its records, its limits, and the port that a backend implements. What a write does is in `keyed_unit`.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from ..errors import StoreError

__all__ = [
    "KEY_CHARACTERS_MAX",
    "MARKER_SECONDS",
    "REPEAT_SECONDS",
    "VALUE_BYTES_MAX",
    "ChangePage",
    "KeyedRepository",
    "KeyedSwept",
    "KeyedWrite",
    "StoredValue",
    "SweepKeyed",
    "ValuePage",
    "ValueState",
    "prefix_end",
]

KEY_CHARACTERS_MAX = 512
"""A key: a path, an address or some ids; it is a key of an index."""

VALUE_BYTES_MAX = 16 * 1024 * 1024
"""A value, unless the settings say otherwise: pictures, pages and answers of models are of that size."""

REPEAT_SECONDS = 900.0
"""How long the id of a write is remembered at least, while the worker runs: longer than any reconnection."""

MARKER_SECONDS = 86_400.0
"""How long a deletion can be seen by those who watch: who was away for longer reads the store anew."""


class ValueState(StrEnum):
    """What a row is: a value of a kind, a marker, or what is left of a write."""

    JSON = "json"
    BYTES = "bytes"
    """In base64, as a JSON string."""
    DELETED = "deleted"
    EXPIRED = "expired"
    REPLACED = "replaced"
    """A write after which there was another one of the same key."""
    SWEPT = "swept"
    """The newest marker that was swept."""

    @property
    def has_value(self) -> bool:
        """Whether it is a value."""
        return self in (ValueState.JSON, ValueState.BYTES)


class StoredValue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The last write of a key; a `deleted` or `expired` one has no value.

    `written_at` and `expires_at` are times of the store's clock, and `bot_id` is who wrote it.
    """

    key: str
    revision: int
    state: ValueState
    value: msgspec.Raw = msgspec.Raw(b"null")
    written_at: str
    expires_at: str | None = None
    bot_id: str | None = None


class ValuePage(msgspec.Struct, frozen=True):
    """Values in the order of their keys; `more` says that others follow the last one.

    All changes after `revision` follow from there.
    """

    values: list[StoredValue]
    revision: int
    more: bool = False


class ChangePage(msgspec.Struct, frozen=True):
    """The last writes of keys in the order of their revisions, all there are through `revision`.

    `more` says that there are others.
    """

    changes: list[StoredValue]
    revision: int
    more: bool = False


class KeyedWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A put or, with the state `deleted`, a deletion.

    `value` is JSON. `id` is chosen by the caller, once for each write; None if it is not to be repeated. `expected`
    is the revision that the key must have, 0 if it must not exist, None for any. At most `keys_max` keys may be in
    a store.
    """

    store: str
    key: str
    state: ValueState
    value: str | None
    id: str | None
    bot_id: str | None
    expected: int | None = None
    ttl_seconds: float | None = None
    keys_max: int

    @property
    def digest(self) -> str:
        """What distinguishes it from another write with its id."""
        told = msgspec.json.encode((self.store, self.key, self.state, self.value, self.expected, self.ttl_seconds))
        return hashlib.blake2b(told, digest_size=16).hexdigest()


class SweepKeyed(msgspec.Struct, frozen=True):
    """End values that expired, and remove old markers and ids. Answered KeyedSwept.

    Of each, at most `rows_max`. Ids are left alone if `repeat_seconds` is None.
    """

    rows_max: int
    repeat_seconds: float | None
    marker_seconds: float


class KeyedSwept(msgspec.Struct, frozen=True):
    """In which stores values have ended, whether there is `more` to do, and when the next value expires."""

    stores: tuple[str, ...] = ()
    more: bool = False
    next_seconds: float | None = None


class KeyedRepository(Protocol):
    """What a backend does for all stores of a house."""

    async def write(self, write: KeyedWrite) -> int:
        """Carry out a write and return its revision, once it is on disk; 0 for a deletion that found no value.

        Repeating it with the same id answers the same, and changes nothing. Raise RevisionConflict if the key has
        another revision than was expected, TooManyKeys, and Conflict if the id was used for another write.
        """

    async def write_all(self, writes: Sequence[KeyedWrite]) -> list[int | StoreError]:
        """Carry out writes together, in order, each with its own outcome."""

    async def get(self, store: str, key: str) -> StoredValue | None:
        """Return a value. Raise RecordDamaged if it is not as it was stored."""

    async def list_values(
        self, store: str, prefix: str, *, after: str | None, limit: int, bytes_max: int
    ) -> ValuePage:
        """Return values whose keys begin with a prefix and follow a key, in the order of their keys.

        At most `limit`, and about `bytes_max`, but at least one. Raise RecordDamaged.
        """

    async def list_changes(self, store: str, prefix: str, *, after: int, limit: int, bytes_max: int) -> ChangePage:
        """Return what was written after a revision, each key once, in the order of revisions.

        Raise ChangesForgotten if markers after that revision, other than 0, were swept, or if there never was such
        a revision, as in a store that goes on from a backup; and RecordDamaged.
        """

    async def list_stores(self, after: str, limit: int) -> list[str]:
        """Return the names of stores that have values and follow a name, in order: those that clients can name."""

    async def last_revision(self) -> int:
        """Return the revision of the last write."""


def prefix_end(prefix: str) -> str | None:
    """Return the first text that follows all texts with a prefix, by code points; None if there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[at])
        if point < 0x10FFFF:
            point += 1 if point != 0xD7FF else 0x801  # no text has surrogates
            return prefix[:at] + chr(point)
    return None
