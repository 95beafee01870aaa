"""A message before it is sent.

Owns what an author can set on a message, and its bytes in a publish frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, Unpack

import msgspec

from ..errors import InvalidBody, TooLarge
from ..model.priorities import PRIORITIES, Priority
from ..wire.bodies import write_body
from ..wire.codec import encode
from ..wire.frames import Publication, ToBot, ToChannel, is_id
from ..wire.limits import HOPS_MAX, PUBLISH_ROOM_BYTES, WAIT_SECONDS_MAX

__all__ = [
    "Draft",
    "PublishOptions",
    "Reply",
    "ReplyOptions",
    "SendOptions",
    "check_delay",
    "payload",
    "publication",
]


class _Options(TypedDict, total=False):
    """The options of every message, beside its body."""

    message_type: str
    """The kind of message; "message" by default."""
    headers: Mapping[str, str] | None
    """Notes beside the body: at most 32 names of 128 characters, with values of 1 KiB."""
    ttl: float | None
    """The message expires after this many seconds."""
    delay: float | None
    """The message enters the log this many seconds later, by the worker's clock, even if it was down then."""
    id: str | None
    """Its id, a UUID: a message sent twice with the same id is stored once."""
    hops: int | None
    """How many messages may follow, each an answer to the one before; what answers another inherits one less."""
    deadline: float | None
    """After this many seconds its thread ends: nothing is delivered any more, and no answer is accepted."""


class ReplyOptions(_Options, total=False):
    """The options of a reply, beside its body."""

    priority: Priority
    """What is "high" is delivered before all else that waits for the bot, and what is "low" after all else."""


class SendOptions(ReplyOptions, total=False):
    """The options of a message to a bot, beside its body."""

    reply_to: str | None
    """The id of the message that it answers."""


class PublishOptions(_Options, total=False):
    """The options of a message on a channel, beside its body."""

    reply_to: str | None
    """The id of the message that it answers."""
    retain: bool
    """It becomes the last value of the channel, for those who subscribe later; a body of None clears that."""


class Reply:
    """What a handler returns if its reply is more than a body: `return bus.Reply(plan, message_type="plan")`."""

    def __init__(self, body: Any, **options: Unpack[ReplyOptions]) -> None:
        self.body = body
        self.options = options

    def __repr__(self) -> str:
        return f"<Reply {self.options}>"


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message to publish, to a bot (name or id) or on a channel, with a body that can be written as JSON."""

    body: Any
    to: str | None = None
    channel: str | None = None
    message_type: str = "message"
    reply_to: str | None = None
    headers: Mapping[str, str] | None = {}
    ttl: float | None = None
    delay: float | None = None
    id: str | None = None
    expects_reply: bool = False
    retain: bool = False
    priority: Priority = "normal"
    hops: int | None = None
    deadline: float | None = None


def publication(draft: Draft, message_id: str) -> Publication:
    """Return a draft as on the wire. Raise InvalidBody, or ValueError or TypeError for an invalid message."""
    if (draft.to is None) == (draft.channel is None):
        raise ValueError("a message needs either a bot or a channel")
    _check_times(draft)
    if draft.retain and (draft.channel is None or draft.delay):
        raise ValueError("only what is published on a channel, without a delay, can be retained")
    _check_priority(draft)
    recipient: ToBot | ToChannel
    if draft.to is None:
        recipient = ToChannel(_text("channel", draft.channel))
    else:
        to = _text("to", draft.to)
        recipient = ToBot(bot_id=to) if is_id(to) else ToBot(bot=to)
    try:
        body = write_body(draft.body)
    except ValueError as error:
        raise InvalidBody.received("invalid_body", str(error)) from None
    return Publication(
        id=_text("id", message_id),
        recipient=recipient,
        body=msgspec.Raw(body),
        message_type=_text("message_type", draft.message_type),
        reply_to=None if draft.reply_to is None else _text("reply_to", draft.reply_to),
        headers=_headers(draft.headers) if draft.headers else {},
        ttl=draft.ttl,
        delay=draft.delay,
        expects_reply=draft.expects_reply,
        retain=draft.retain,
        priority=draft.priority,
        hops=draft.hops,
        deadline=draft.deadline,
    )


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {_text("a header's name", name): _text(f"header {name!r}", value) for name, value in headers.items()}


def _text(what: str, value: Any) -> str:
    """Return a str, or the text of an enum member that is a str; raise TypeError for anything else.

    The worker could not tell which message of a frame it cannot decode.
    """
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {value!r}; convert it with str(…)")
    return str.__str__(value)


def _check_priority(draft: Draft) -> None:
    if draft.priority not in PRIORITIES:
        raise ValueError(f"priority must be one of {', '.join(map(repr, PRIORITIES))}, not {draft.priority!r}")
    if draft.priority != "normal" and draft.to is None:
        raise ValueError("only a message to a bot has a priority: those of a channel are delivered in their order")


def _check_times(draft: Draft) -> None:
    """Raise ValueError for a time that the worker would refuse.

    It would not even see NaN or infinity: they are written as null, which means no time at all.
    """
    ttl = draft.ttl
    if ttl is not None and not (_is_number(ttl) and 0 < ttl <= WAIT_SECONDS_MAX):
        raise ValueError(f"ttl must be a number of seconds above 0 and at most {WAIT_SECONDS_MAX:,}, not {ttl!r}")
    check_delay(draft.delay)
    if draft.hops is not None or draft.deadline is not None:
        _check_budget(draft)


def check_delay(delay: float | None) -> None:
    """Raise ValueError for a delay that the worker would refuse, or take for none."""
    if delay is not None and not (_is_number(delay) and 0 <= delay <= WAIT_SECONDS_MAX):
        raise ValueError(f"delay must be a number of seconds from 0 to {WAIT_SECONDS_MAX:,}, not {delay!r}")


def _check_budget(draft: Draft) -> None:
    hops, deadline = draft.hops, draft.deadline
    if hops is not None and not (type(hops) is int and 0 <= hops <= HOPS_MAX):
        raise ValueError(f"hops must be a number of messages from 0 to {HOPS_MAX:,}, not {hops!r}")
    if deadline is not None and not (_is_number(deadline) and 0 < deadline <= WAIT_SECONDS_MAX):
        text = f"a number of seconds above 0 and at most {WAIT_SECONDS_MAX:,}, not {deadline!r}"
        raise ValueError(f"deadline must be {text}")
    if deadline is not None and (draft.delay or 0.0) >= deadline:
        raise ValueError("the delay must be shorter than the deadline of the thread")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def payload(draft: Draft, message_id: str, frame_bytes_max: int | None) -> bytes:
    """Return a draft as it is in a publish frame. Raise InvalidBody, TooLarge or ValueError."""
    written = encode(publication(draft, message_id))
    if frame_bytes_max is not None and len(written) > frame_bytes_max - PUBLISH_ROOM_BYTES:
        most = f"the message has {len(written)} bytes; a frame has at most {frame_bytes_max}"
        sizes = {"what": "the message", "size_bytes": len(written), "bytes_max": frame_bytes_max}
        raise TooLarge.received("too_large", most, details=sizes)  # the same error as the worker's
    return written
