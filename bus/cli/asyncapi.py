"""The AsyncAPI document of a bot: what it receives, on which channels, and what it replies.

Owns its form, version 3.0. The schemas are those of the types that handlers take and return.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from ..bot import Bot
from ..client.draft import Reply
from ..client.serving import Handling
from ..model.exact import is_model

__all__ = ["asyncapi_document"]

_VERSION = "3.0.0"
_ANY = "any"
_REPLIES = "replies"
_SCHEMAS = "#/components/schemas/{name}"
_MODELS = "#/components/schemas/{model}"


def asyncapi_document(bot: Bot) -> dict[str, Any]:
    """Return the document of a bot, which need not be connected."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    replies: dict[str, Any] = {}
    schemas = _Schemas()
    for key, handling in bot.handlers.items():
        place = bot.name if key.channel is None else key.channel
        name = key.message_type or _ANY
        kind = "a direct message" if key.channel is None else "a message on a channel"
        channel = channels.setdefault(place, {"address": place, "messages": {}})
        channel["messages"][name] = _message(key.message_type, kind, handling, schemas.of(handling.body))
        operation: dict[str, Any] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{_escaped(place)}"},
            "messages": [{"$ref": f"#/channels/{_escaped(place)}/messages/{_escaped(name)}"}],
        }
        operation_id = f"{place}.{name}"
        returned = _returned(handling.function)
        if returned is not None:
            replies[operation_id] = {"contentType": "application/json", "payload": schemas.of(returned)}
            operation["reply"] = {
                "channel": {"$ref": f"#/channels/{_REPLIES}"},
                "messages": [{"$ref": f"#/channels/{_REPLIES}/messages/{_escaped(operation_id)}"}],
            }
        operations[operation_id] = operation
    if replies:
        channels[_REPLIES] = {
            "address": None,
            "description": "Direct messages to the sender, with the id of its message in `reply_to`.",
            "messages": replies,
        }
    document: dict[str, Any] = {
        "asyncapi": _VERSION,
        "info": {"title": bot.name, "version": "1.0.0"},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
    }
    return document | ({"components": {"schemas": schemas.found}} if schemas.found else {})


def _message(message_type: str | None, kind: str, handling: Handling, payload: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": message_type or _ANY,
        "title": f"{kind}, message_type {message_type!r}" if message_type else f"{kind} of any other type",
        "contentType": "application/json",
        "payload": payload,
    }
    if description := inspect.getdoc(handling.function):
        message["description"] = description
    return message


class _Schemas:
    """The schemas of types, those with names as components."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<_Schemas {sorted(self.found)}>"

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type; of any value for None."""
        if kind is None:
            return {}
        [schema], components = msgspec.json.schema_components(
            [kind], schema_hook=self._of_model, ref_template=_SCHEMAS
        )
        self.found |= components
        return schema

    def _of_model(self, kind: type) -> dict[str, Any]:
        if not is_model(kind):
            raise NotImplementedError
        schema: dict[str, Any] = kind.model_json_schema(ref_template=_MODELS)  # type: ignore[attr-defined]
        self.found |= schema.pop("$defs", {})
        self.found[kind.__name__] = schema
        return {"$ref": _SCHEMAS.format(name=kind.__name__)}


def _returned(function: Callable[..., Any]) -> Any:
    """Return the type that a handler says it returns, and that has a schema; None if it says none, or any."""
    try:
        kind = inspect.signature(function, eval_str=True).return_annotation
        if kind in (inspect.Signature.empty, None, Any, Reply):
            return None
        msgspec.json.schema(kind, schema_hook=lambda custom: {} if is_model(custom) else _unknown())
    except (NameError, TypeError, NotImplementedError):
        return None
    return kind


def _unknown() -> Any:
    raise NotImplementedError


def _escaped(name: str) -> str:
    """Return a name as it is written in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
