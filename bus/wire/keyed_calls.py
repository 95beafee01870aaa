"""Calls about the keyed store, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..model.keyed import KEY_CHARACTERS_MAX, ChangePage, StoredValue, ValuePage
from .call import Call
from .fields import Name, Revision, Ttl, ValueKey
from .limits import ANSWER_ITEMS_MAX, NAME_CHARACTERS_MAX
from .message_answers import KeptMessage

__all__ = [
    "KEYED_CALLS",
    "DeleteValue",
    "GetRetained",
    "GetValue",
    "KeyedCall",
    "KeyedWritten",
    "ListChanges",
    "ListStores",
    "ListValues",
    "PutValue",
    "StoreCall",
    "StoreNames",
]

Prefix = Annotated[str, Meta(max_length=KEY_CHARACTERS_MAX, pattern=r"^[^\x00]*\Z")]
WriteId = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX, pattern=r"^[^\x00]*\Z")]
Limit = Annotated[int, Meta(ge=1, le=ANSWER_ITEMS_MAX)]


class KeyedWritten(msgspec.Struct, frozen=True):
    """The revision of a write; 0 if a deletion found no value."""

    revision: int


class KeyedCall(Call, frozen=True, kw_only=True):
    """What all of them have in common."""


class StoreCall(KeyedCall, frozen=True, kw_only=True):
    """What is about one store. On the wire the store is called `kv`."""

    store: Name = msgspec.field(name="kv")


class PutValue(StoreCall, frozen=True, kw_only=True):
    """Puts a value under a key; one of the kind `bytes` is a string of base64."""

    method = "kv_put"
    answer = KeyedWritten
    writes = True
    key: ValueKey
    value: msgspec.Raw
    kind: Literal["json", "bytes"] = "json"
    id: WriteId
    expected: Revision | None = None
    ttl: Ttl | None = None


class DeleteValue(StoreCall, frozen=True, kw_only=True):
    """Deletes a key."""

    method = "kv_delete"
    answer = KeyedWritten
    writes = True
    key: ValueKey
    id: WriteId
    expected: Revision | None = None


class GetValue(StoreCall, frozen=True, kw_only=True):
    """Asks for a value."""

    method = "kv_get"
    answer = StoredValue | None
    key: ValueKey


class ListValues(StoreCall, frozen=True, kw_only=True):
    """Asks for values by the prefix of their keys, after a key, as many as fit into a frame, at least one."""

    method = "kv_list"
    answer = ValuePage
    prefix: Prefix = ""
    after: ValueKey | None = None
    limit: Limit = ANSWER_ITEMS_MAX


class ListChanges(StoreCall, frozen=True, kw_only=True):
    """Asks for what was written after a revision, likewise; and, with `wake`, to be told when there is more."""

    method = "kv_changes"
    answer = ChangePage
    prefix: Prefix = ""
    after: Revision
    limit: Limit = ANSWER_ITEMS_MAX
    wake: bool = False


class StoreNames(msgspec.Struct, frozen=True):
    """Names of stores in their order; `more` says that others follow."""

    stores: list[str]
    more: bool = False


class ListStores(KeyedCall, frozen=True, kw_only=True):
    """Asks for the names of stores that have values, after a name."""

    method = "kv_stores"
    answer = StoreNames
    after: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX, pattern=r"^[^\x00]*\Z")] = ""
    limit: Limit = ANSWER_ITEMS_MAX


class GetRetained(KeyedCall, frozen=True, kw_only=True):
    """Asks for the last value of a channel: the message that was published with `retain` last."""

    method = "retained"
    answer = KeptMessage | None
    channel: Name


KEYED_CALLS: tuple[type[Call], ...] = (
    PutValue,
    DeleteValue,
    GetValue,
    ListValues,
    ListChanges,
    ListStores,
    GetRetained,
)
