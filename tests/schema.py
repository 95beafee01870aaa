"""The JSON Schema of the wire, docs/wire.schema.json, from which clients in other languages take their types.

Made from the structs with which the worker and the Python client read and write, by `python -m tests.schema`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import msgspec.inspect as mi

from bus.model.compacting import Compacted
from bus.model.erasing import Erased, FoundContents
from bus.model.removing import Removed
from bus.wire import answers, limits
from bus.wire.calls import CALLS
from bus.wire.codes import RETRY, Code
from bus.wire.frames import PROTOCOL_VERSION, RequestFrame, Settled, WorkerFrame

__all__ = ["ANSWERS", "PATH", "WITHOUT_VALUE", "wire_schema", "written"]

PATH = Path(__file__).parents[1] / "docs" / "wire.schema.json"

ANSWERS: dict[str, Any] = {
    "ack": Settled,
    "add_key": answers.KeyAdded,
    "audit": answers.SecurityEventList,
    "bots": answers.BotList,
    "channels": answers.ChannelList,
    "commit": answers.CommitAnswer,
    "compact": Compacted,
    "dead_letters": answers.DeadLetterList[answers.ListedDeadLetter],
    "delayed": answers.DelayedList[answers.ListedDelayed],
    "enrol": answers.Enrolled,
    "erase": Erased,
    "events": answers.EventList,
    "extend": Settled,
    "history": answers.HistoryPage[answers.KeptMessage],
    "keys": answers.KeyList,
    "mailbox": answers.MailboxContents,
    "may": answers.MayAnswer,
    "message": answers.FoundMessage,
    "nak": Settled,
    "reload": answers.Reloaded,
    "removals": answers.RemovalList,
    "remove": Removed,
    "retry_dead_letters": answers.Retried,
    "revoke_key": answers.KeysRevoked,
    "scrub": answers.Scrubbed,
    "search": FoundContents,
    "sessions": answers.SessionList,
    "status": answers.WorkerStatus,
    "subscribe": answers.SubscriptionStart,
    "subscriptions": answers.SubscriptionList,
    "term": Settled,
    "unsubscribe": answers.SubscriptionEnd,
}
"""The type of the value with which a frame is answered by `ok`, by its op."""

WITHOUT_VALUE = {
    "credit",
    "goodbye",
    "hello",
    "park",
    "part",
    "ping",
    "publish",
    "read_part",
    "whole",
    "will",
    "workflow",
}
"""Other ops: they are answered by a frame of their own, or without a value of interest, or not at all."""

_HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": f"The wire of posthouse, protocol version {PROTOCOL_VERSION}",
    "description": (
        "What a client sends (ClientFrame), what the worker sends (WorkerFrame), the value in an ok (Answers, by "
        "the op of the request), and the arguments and values of calls (Calls). docs/protocol.md says what they "
        "mean. A client ignores properties and ops of the worker that it does not know."
    ),
}


def wire_schema() -> dict[str, Any]:
    """Return the schema; its definitions are in the order of their names."""
    made = _Definitions()
    frames = {"ClientFrame": made.of(RequestFrame), "WorkerFrame": made.of(WorkerFrame)}
    made.of(Code)
    values = {op: made.of(value) for op, value in ANSWERS.items()}
    calls = {
        name: _object({"arguments": made.of(call), "value": made.of(call.answer)})
        for name, call in sorted(CALLS.items())
    }
    own = {
        **frames,
        "Answers": _object(values),
        "Calls": _object(calls),
        "Limits": {"const": {name: getattr(limits, name) for name in limits.__all__}},
        "ProtocolVersion": {"const": PROTOCOL_VERSION},
        "RetryCode": {"description": "The codes after which the same may succeed later.", "enum": sorted(RETRY)},
    }
    assert not own.keys() & made.named.keys(), own.keys() & made.named.keys()
    return {**_HEAD, "$defs": dict(sorted({**made.named, **own}.items()))}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


class _Definitions:
    """The schemas of structs and enumerations, by their names, and those of types that refer to them.

    `msgspec.json.schema` does not know defaults that are JSON already, and its patterns and its order are Python's.
    """

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self._classes: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type."""
        return self._schema(mi.type_info(kind))

    def _schema(self, kind: mi.Type) -> dict[str, Any]:
        match kind:
            case mi.Metadata(type=inner):
                return self._schema(inner)
            case mi.StructType() | mi.EnumType():
                return self._reference(kind)
            case mi.UnionType(types=types):
                return self._union(types)
            case mi.LiteralType(values=values):
                return {"enum": sorted(values)}
            case mi.TupleType(item_types=items):
                return {"type": "array", "prefixItems": [self._schema(item) for item in items], "items": False}
            case mi.ListType(item_type=item) | mi.VarTupleType(item_type=item) | mi.CollectionType(item_type=item):
                return {"type": "array", "items": self._schema(item), **_bounds(kind)}
            case mi.DictType(value_type=value):
                return {"type": "object", "additionalProperties": self._schema(value)}
            case mi.BytesType():
                return {"type": "string", "contentEncoding": "base64"}
            case mi.AnyType() | mi.RawType():
                return {}
        return {"type": _NAMES[type(kind)], **_bounds(kind)}

    def _union(self, types: Sequence[mi.Type]) -> dict[str, Any]:
        schema: dict[str, Any] = {"anyOf": [self._schema(each) for each in types]}
        tagged = [each for each in types if isinstance(each, mi.StructType) and each.tag_field is not None]
        if len(tagged) > 1:
            mapping = {str(each.tag): self._schema(each)["$ref"] for each in tagged}
            schema["discriminator"] = {"propertyName": tagged[0].tag_field, "mapping": mapping}
        return schema

    def _reference(self, kind: mi.StructType | mi.EnumType) -> dict[str, Any]:
        name = _name(kind.cls)
        if name not in self._classes:
            self._classes[name] = kind.cls
            self.named[name] = self._struct(kind) if isinstance(kind, mi.StructType) else _enumeration(kind)
        assert self._classes[name] == kind.cls, f"two types are called {name}"
        return {"$ref": f"#/$defs/{name}"}

    def _struct(self, kind: mi.StructType) -> dict[str, Any]:
        tag = {} if kind.tag_field is None else {kind.tag_field: {"const": kind.tag}}
        schema = {
            "description": " ".join((getattr(kind.cls, "__doc__", None) or "").split()),
            **_object({**tag, **{field.encode_name: self._field(field) for field in kind.fields}}),
            "required": [*tag, *(field.encode_name for field in kind.fields if field.required)],
        }
        return schema | ({"additionalProperties": False} if kind.forbid_unknown_fields else {})

    def _field(self, field: mi.Field) -> dict[str, Any]:
        schema = self._schema(field.type)
        if field.default_factory is not msgspec.NODEFAULT:
            return {**schema, "default": field.default_factory()}
        if field.default is msgspec.NODEFAULT:
            return schema
        raw = isinstance(field.default, msgspec.Raw)
        return {
            **schema,
            "default": json.loads(bytes(field.default)) if raw else msgspec.to_builtins(field.default),
        }


_NAMES = {
    mi.NoneType: "null",
    mi.BoolType: "boolean",
    mi.IntType: "integer",
    mi.FloatType: "number",
    mi.StrType: "string",
}

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
}


def _bounds(kind: mi.Type) -> dict[str, Any]:
    """Return the bounds of a type. Python's `\\Z`, the end of a text, is `$` in JSON Schema."""
    found = {name: getattr(kind, own, None) for own, name in _BOUNDS.items()}
    if not isinstance(kind, mi.StrType):
        found = {name.replace("Length", "Items"): value for name, value in found.items()}
    return {
        name: value.replace("\\Z", "$") if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None
    }


def _enumeration(kind: mi.EnumType) -> dict[str, Any]:
    return {"description": kind.cls.__doc__, "enum": [member.value for member in kind.cls]}


def _name(kind: Any) -> str:
    """Return the name of a class, or of a generic one with what it is of."""
    own: str = getattr(kind, "__origin__", kind).__name__
    return "Of".join([own, *map(_name, getattr(kind, "__args__", ()))])


def written() -> str:
    """Return the schema as it is in its file."""
    return json.dumps(wire_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file; return the exit code."""
    PATH.write_text(written(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
