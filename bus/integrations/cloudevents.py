"""Messages as CloudEvents 1.0, and CloudEvents as messages. Needs nothing but `posthouse`.

Owns the mapping, in the JSON format. What a message has no field for travels in headers, named as in CloudEvents'
own bindings: `ce-source`, `ce-subject`. So an event that becomes a message is the same event again later.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from ..client.draft import Draft
from ..client.message import Message
from ..model.tracing import TRACED
from ..wire.frames import StoredMessage, is_id

__all__ = ["from_cloudevent", "to_cloudevent"]

_VERSION = "1.0"
_PREFIX = "ce-"
_JSON = "application/json"
_CONTENT_TYPE = "content-type"
_IDS = uuid.UUID("0b0e9c1e-6d0c-5c1a-9a3f-3b6f5d0a7c42")
_NAME_CHARACTERS_MAX = 20
"""Of an extension's name, as the specification advises."""

_NO_EXTENSIONS = ("data", "data_base64", "datacontenttype", "specversion")


def to_cloudevent(message: Message[Any] | StoredMessage) -> dict[str, Any]:
    """Return a message as a CloudEvent, a dictionary that can be written as JSON.

    The source is the sender, the type the `message_type`, the subject the channel or the bot that it was sent to,
    and `sequence` its seq. A message that was an event before is that event, with its own id, source, subject and
    time.
    """
    stored = message.stored if isinstance(message, Message) else message
    event: dict[str, Any] = {
        "specversion": _VERSION,
        "id": stored.id,
        "source": f"/posthouse/{stored.sender_bot_name}",
        "type": stored.message_type,
        "subject": stored.channel or stored.recipient.get("bot_id", ""),
        "time": stored.timestamp,
        "sequence": f"{stored.seq:020}",
    }
    if stored.reply_to is not None:
        event["replyto"] = stored.reply_to
    for name, value in stored.headers.items():
        extension = name.removeprefix(_PREFIX)
        if (name.startswith(_PREFIX) or name in TRACED) and _is_attribute(extension):
            event[extension] = value
    content_type = stored.headers.get(_CONTENT_TYPE, _JSON)
    event["datacontenttype"] = content_type
    is_binary = stored.headers.get(f"{_PREFIX}data") == "base64"
    event.pop("data", None)
    event["data_base64" if is_binary else "data"] = stored.body
    return event


def from_cloudevent(event: Mapping[str, Any], *, to: str | None = None, channel: str | None = None) -> Draft:
    """Return a CloudEvent as a message to a bot, or on a channel: `await bot.send_all([draft])`.

    Its id is the event's, or one that is made of its source and id, which together are unique: an event that is
    sent twice by the same bot is stored once. Raises ValueError for what is not a CloudEvent of version 1.
    """
    if (to is None) == (channel is None):
        raise ValueError("an event needs either a bot or a channel")
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event.get(name), str) or not event[name]:
            raise ValueError(f"a CloudEvent needs {name!r}, a text that is not empty")
    if event["specversion"] != _VERSION:
        raise ValueError(f"a CloudEvent of version {event['specversion']} cannot be read, only of {_VERSION}")
    if "data" in event and "data_base64" in event:
        raise ValueError("a CloudEvent has either 'data' or 'data_base64'")
    headers = {
        name if name in TRACED else f"{_PREFIX}{name}": value if isinstance(value, str) else _written(value)
        for name, value in event.items()
        if name not in _NO_EXTENSIONS and value is not None and _is_attribute(name)
    }
    if "data_base64" in event:
        headers[f"{_PREFIX}data"] = "base64"
    if event.get("datacontenttype") not in (None, _JSON):
        headers[_CONTENT_TYPE] = event["datacontenttype"]
    id = event["id"]
    return Draft(
        to=to,
        channel=channel,
        body=event.get("data", event.get("data_base64")),
        message_type=event["type"],
        id=id if is_id(id) else str(uuid.uuid5(_IDS, f"{event['source']}\0{id}")),
        headers=headers,
    )


def _is_attribute(name: str) -> bool:
    """Return True for what may be the name of an attribute: lower-case letters and digits."""
    return 1 <= len(name) <= _NAME_CHARACTERS_MAX and name.isascii() and name.isalnum() and name == name.lower()


def _written(value: Any) -> str:
    return msgspec.json.encode(value).decode()
