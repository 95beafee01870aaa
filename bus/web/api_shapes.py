"""Requests to `/v1/` and their answers, as in its OpenAPI document.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..model.priorities import Priority
from ..wire.frames import StoredMessage

__all__ = [
    "ErrorAnswer",
    "MessagePage",
    "Problem",
    "PublishOrder",
    "ReadMessage",
    "Replaced",
    "Replied",
    "RequestOrder",
    "SendOrder",
    "Stored",
    "as_read",
    "encoded",
]

_Id = Annotated[str, Meta(description="A UUID; the same message sent again with its id is stored once.")]
_Seconds = Annotated[float, Meta(description="Seconds.")]


class _Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of every message. The body may be any JSON value."""

    body: msgspec.Raw
    message_type: str = "message"
    headers: dict[str, str] = {}
    id: _Id | None = None


class SendOrder(_Order, frozen=True, kw_only=True):
    """A direct message to a bot, by its name."""

    to: str
    reply_to: str | None = None
    ttl: _Seconds | None = None
    delay: _Seconds | None = None
    priority: Priority = "normal"
    hops: int | None = None
    deadline: _Seconds | None = None


class PublishOrder(_Order, frozen=True, kw_only=True):
    """A message on a channel, which is created if it does not exist."""

    channel: str
    reply_to: str | None = None
    ttl: _Seconds | None = None
    delay: _Seconds | None = None
    hops: int | None = None
    deadline: _Seconds | None = None


class RequestOrder(_Order, frozen=True, kw_only=True):
    """A direct message to a bot, answered with the first reply, for which it waits at most `timeout` seconds."""

    to: str
    priority: Priority = "normal"
    timeout: Annotated[float, Meta(gt=0, le=300)] = 30.0
    hops: int | None = None
    deadline: _Seconds | None = None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The message is on the worker's disk. A delayed one has no seq yet; a duplicate was stored before."""

    id: str
    seq: int | None
    duplicate: bool
    scheduled: bool


class ReadMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message. The body of one that was erased is null."""

    seq: int
    id: str
    sender: str
    channel: str | None
    message_type: str
    body: Any
    reply_to: str | None
    headers: dict[str, str]
    timestamp: str
    tainted: bool
    erased: bool
    priority: Priority


class Replied(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to a request, and the id of the request."""

    id: str
    reply: ReadMessage


class MessagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of a channel, newest first; with `after`, oldest first. Continue at the last one, if it is full.

    `epoch` is the id of the log: `EPOCH/SEQ` names a message for good, also if an earlier copy is restored.
    """

    epoch: str
    messages: list[ReadMessage]


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """The log is another one than that of the seq after which was to be read: a restored copy of it, for instance.

    Up to `after`, the log `epoch` has the same messages as the log `before`, which is null if no epoch was named.
    Reading goes on from there. What was read of later seqs is not in this log, which gives them to other messages.
    """

    before: str | None
    epoch: str
    seq: int
    after: int
    message: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was not carried out: a code of the protocol, or one of this server.

    With `retry`, the same request may succeed later, after `retry_after` seconds if that is known. `state` is what
    became of the message `id`: of a request without a reply, or "unknown" if no worker said whether it is stored.
    Sent again with this `id`, it is stored once. With the code `log_replaced`, `after` is where to go on.
    """

    code: str
    message: str
    retry: bool = False
    retry_after: float | None = None
    id: str | None = None
    state: str | None = None
    after: str | None = None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """An error as an answer."""

    error: Problem


def encoded(problem: Problem) -> bytes:
    """Return the body of an error's answer."""
    return msgspec.json.encode(ErrorAnswer(problem))


def as_read(message: StoredMessage) -> ReadMessage:
    """Return a message as programs see it."""
    return ReadMessage(
        seq=message.seq,
        id=message.id,
        sender=message.sender_bot_name,
        channel=message.channel,
        message_type=message.message_type,
        body=message.body,
        reply_to=message.reply_to,
        headers=message.headers,
        timestamp=message.timestamp,
        tainted=message.tainted,
        erased=message.erased,
        priority=message.priority,
    )
