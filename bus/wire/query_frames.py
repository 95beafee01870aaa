"""The frames that ask something about bots and messages, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from .fields import ClientFrame, Id, Name, QueryLimit, RequestId, Seq
from .limits import ANSWER_ITEMS_MAX, NAME_CHARACTERS_MAX, NUMBER_MAX

__all__ = [
    "Audit",
    "Bots",
    "Channels",
    "DeadLetters",
    "DelayedQuery",
    "EventsQuery",
    "History",
    "MailboxQuery",
    "MessageQuery",
    "SessionsQuery",
    "Status",
    "Subscriptions",
]


_Text = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]


class History(ClientFrame, frozen=True, tag="history"):
    """Reads a conversation: exactly one of between, channel and thread."""

    request: RequestId
    between: tuple[str, str] | None = None
    channel: Name | None = None
    thread: Id | None = None
    sender: str | None = None
    """Whose message the thread's is, by name or id, if several bots used the id."""
    before_seq: Seq | None = None
    after_seq: Seq | None = None
    """If it is given, only later messages, oldest first."""
    limit: QueryLimit = 50


class MessageQuery(ClientFrame, frozen=True, tag="message"):
    """Asks for a message by its id or seq, and its state; with `sender`, a name or id, for that bot's."""

    request: RequestId
    id: Id | None = None
    seq: Seq | None = None
    sender: str | None = None


class Bots(ClientFrame, frozen=True, tag="bots"):
    """Asks for bots, by name: all, or those that fulfil everything that is given."""

    request: RequestId
    after: Name | None = None
    only: Annotated[list[_Text], Meta(max_length=ANSWER_ITEMS_MAX)] | None = None
    """Those with these names or ids."""
    part: _Text | None = None
    """Those with this in their names."""
    limit: QueryLimit | None = None
    online: bool = False
    """Those that are connected."""


class Channels(ClientFrame, frozen=True, tag="channels"):
    """Asks for channels, by name, as for bots."""

    request: RequestId
    after: Name | None = None
    only: Annotated[list[_Text], Meta(max_length=ANSWER_ITEMS_MAX)] | None = None
    part: _Text | None = None
    limit: QueryLimit | None = None


class Subscriptions(ClientFrame, frozen=True, tag="subscriptions"):
    """Asks for a bot's subscriptions, or a channel's subscribers; those after a channel, or after a bot's name."""

    request: RequestId
    bot: str | None = None
    channel: Name | None = None
    after: Name | None = None
    follow: bool = False
    """Whether the session is told when its bot loses one: once, until it asks again. Only for its own."""


class DeadLetters(ClientFrame, frozen=True, tag="dead_letters"):
    """Asks for a mailbox's dead letters, without the newest `offset` ones."""

    request: RequestId
    bot: str | None = None
    limit: QueryLimit = 50
    offset: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] = 0


class DelayedQuery(ClientFrame, frozen=True, tag="delayed"):
    """Asks for messages that are not due yet, by when they are: of a sender or all, from one on or all.

    `after` is the `due_at`, the id and the sender's id of the last one.
    """

    request: RequestId
    sender: str | None = None
    after: tuple[_Text, _Text, _Text] | None = None
    limit: QueryLimit = 50


class MailboxQuery(ClientFrame, frozen=True, tag="mailbox"):
    """Asks what a mailbox has not settled, oldest first: those after a seq, or all."""

    request: RequestId
    bot: str | None = None
    after_seq: Seq = 0
    limit: QueryLimit = 50


class SessionsQuery(ClientFrame, frozen=True, tag="sessions"):
    """Asks for sessions, by id: those of a bot or all, after an id or from the first."""

    request: RequestId
    bot: str | None = None
    after: Id | None = None
    limit: QueryLimit = 50


class Audit(ClientFrame, frozen=True, tag="audit"):
    """Asks for security events, in their order: those after an id, or all."""

    request: RequestId
    bot: str | None = None
    event: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    since: str | None = None
    after: Seq = 0
    limit: QueryLimit = 50


class EventsQuery(ClientFrame, frozen=True, tag="events"):
    """Asks for what happened lately, as far as the worker remembers, in its order: after a number, or all."""

    request: RequestId
    after: Seq = 0
    limit: QueryLimit = 50


class Status(ClientFrame, frozen=True, tag="status"):
    """Asks for the worker's status."""

    request: RequestId
