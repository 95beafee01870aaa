"""The values that were put last, of which the next ones are mostly made.

Owns what need not be done again for a value that has grown: of a list of messages, those that were in it before are
not serialized, and pieces that are as before get no new digest. Nothing is taken over because it is the same
object: messages may be changed in place, so everything that is serialized of them is compared.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from .rows import Cut, KeptChannel, RowParts, Typed

__all__ = ["LastValues"]

_BYTES_MAX = 16 * 1024 * 1024

_MESSAGES = frozenset({AIMessage, HumanMessage, SystemMessage, ToolMessage})
"""Those of which the fields are all that is serialized. Of a subclass, that is not known."""

_MESSAGES_MIN = 16
"""Of a list that is remembered: shorter ones are serialized as fast."""

_MARSHAL_VERSION = 2
"""The last one in which a value's bytes do not depend on what else refers to it."""

_LIST_HEAD_BYTES = 5
"""Of what marshal writes: the bytes of the elements follow."""


class _Messages(NamedTuple):
    """What is serialized of messages: their types, and their fields, by marshal."""

    types: Sequence[type]
    fields: bytes


class _Last(NamedTuple):
    cut: Cut
    messages: _Messages | None

    @property
    def size_bytes(self) -> int:
        return len(self.cut.data) + (0 if self.messages is None else len(self.messages.fields))


class LastValues:
    """As many of the last values as fit, by their threads, namespaces and channels."""

    def __init__(self) -> None:
        self._values: OrderedDict[tuple[str, str, str], _Last] = OrderedDict()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<LastValues {len(self._values)} with {self._bytes} bytes>"

    def keep(
        self, place: tuple[str, str, str], value: Any, parts: RowParts, *, serde: SerializerProtocol, version: Any
    ) -> KeptChannel:
        """Serialize a value, and return how it is kept."""
        last = self._values.pop(place, None)
        if last is not None:
            self._bytes -= last.size_bytes
        messages = _messages(value) if type(serde) is JsonPlusSerializer else None
        typed = _grown(last, value, messages, serde) or serde.dumps_typed(value)
        kept = parts.add(typed, version=version, last=None if last is None else last.cut)
        if kept.pieces:
            last = _Last(Cut(typed[1], kept.pieces), messages if typed[0] == "msgpack" else None)
            self._values[place] = last
            self._bytes += last.size_bytes
            while self._bytes > _BYTES_MAX:
                self._bytes -= self._values.popitem(last=False)[1].size_bytes
        return kept


def _messages(value: Any) -> _Messages | None:
    """Return what is serialized of a list of messages; None for everything else, and if that cannot be told."""
    if type(value) is not list or len(value) < _MESSAGES_MIN:
        return None
    types = [*map(type, value)]
    if not _MESSAGES.issuperset(types):
        return None
    if any(each.__pydantic_extra__ or each.__dict__.get("artifact") is not None for each in value):
        return None
    try:
        return _Messages(types, marshal.dumps([each.__dict__ for each in value], _MARSHAL_VERSION))
    except ValueError:  # other objects than those of Python itself
        return None


def _grown(last: _Last | None, value: Any, messages: _Messages | None, serde: SerializerProtocol) -> Typed | None:
    """Return a list of messages as the serializer would write it, if it begins with all that it had before."""
    if last is None or last.messages is None or messages is None:
        return None
    count, before = len(last.messages.types), memoryview(last.messages.fields)[_LIST_HEAD_BYTES:]
    if messages.types[:count] != last.messages.types or not messages.fields.startswith(before, _LIST_HEAD_BYTES):
        return None
    kind, added = serde.dumps_typed(value[count:])
    if kind != "msgpack":
        return None
    old = memoryview(last.cut.data)[len(_array_head(count)) :]
    new = memoryview(added)[len(_array_head(len(value) - count)) :]
    return kind, b"".join((_array_head(len(value)), old, new))


def _array_head(length: int) -> bytes:
    """Return what MessagePack writes before the elements of an array."""
    if length < 1 << 4:
        return bytes([0x90 | length])
    return b"\xdc" + length.to_bytes(2) if length < 1 << 16 else b"\xdd" + length.to_bytes(4)
