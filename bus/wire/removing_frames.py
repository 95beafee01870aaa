"""The frames that find and remove what is stored, documented in `docs/protocol.md`.

Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .fields import ClientFrame, Id, Name, NameOrPattern, QueryLimit, RequestId, Revision, Seq, ValueKey
from .limits import ANSWER_ITEMS_MAX, NAME_CHARACTERS_MAX, REASON_CHARACTERS_MAX

__all__ = [
    "AtPath",
    "BotOf",
    "ChannelOf",
    "Compact",
    "DeadLettersOf",
    "DelayedMessage",
    "DelayedOf",
    "EraseFrame",
    "GroupOf",
    "MailboxOf",
    "Removable",
    "Removals",
    "RemoveFrame",
    "Scrub",
    "Search",
    "SubscriptionOf",
    "ValueToErase",
]

_Text = Annotated[str, Meta(min_length=1, max_length=REASON_CHARACTERS_MAX)]


_AnyId = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
"""Of a run, too, or of the worker."""


class AtPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value in a body, by the names that lead to it."""

    path: Annotated[list[str], Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
    value: _Text


class Search(ClientFrame, frozen=True, tag="search"):
    """Asks for what contains something: exactly one of id, text, header and body. `after` continues."""

    request: RequestId
    id: _AnyId | None = None
    sender: str | None = None
    """Whose message it is, by name or id, if several bots used the id."""
    text: _Text | None = None
    header: tuple[_Text, _Text] | None = None
    body: AtPath | None = None
    after: Annotated[str, Meta(max_length=2 * NAME_CHARACTERS_MAX)] = ""


class DelayedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message that is not due yet."""

    id: Id
    sender_bot_id: _AnyId


class ValueToErase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A keyed value, as a search found it. Its store may be one that no call can name."""

    store: _AnyId = msgspec.field(name="kv")
    key: ValueKey
    revision: Revision


class EraseFrame(ClientFrame, frozen=True, tag="erase"):
    """Erases messages, and removes delayed ones, runs and keyed values; the record has the `id` and `reference`."""

    request: RequestId
    id: Id
    seqs: Annotated[list[Seq], Meta(max_length=ANSWER_ITEMS_MAX)] = []
    delayed: Annotated[list[DelayedMessage], Meta(max_length=ANSWER_ITEMS_MAX)] = []
    runs: Annotated[list[_AnyId], Meta(max_length=ANSWER_ITEMS_MAX)] = []
    reference: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    values: Annotated[list[ValueToErase], Meta(max_length=ANSWER_ITEMS_MAX)] = []
    part_of: Id | None = None
    """An id of the command of which this is a part. Its parts are one removal to people."""


class Removals(ClientFrame, frozen=True, tag="removals"):
    """Asks for the records of removals, in their order: those after a number, or all."""

    request: RequestId
    after: Seq = 0
    limit: QueryLimit = 50


class Scrub(ClientFrame, frozen=True, tag="scrub"):
    """Asks that nothing of what was removed is left in the files of the database."""

    request: RequestId


class Compact(ClientFrame, frozen=True, tag="compact"):
    """Asks that a portion of the free room is given back to the system. A `dry_run` only says how much it is."""

    request: RequestId
    dry_run: bool = False


_AnyMailbox = Annotated[str, Meta(min_length=1, max_length=2 * NAME_CHARACTERS_MAX + 1)]
"""A bot, by name or id, or `channel/group`."""


class _Removable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What may be removed."""


class DeadLettersOf(_Removable, frozen=True, tag="dead_letters"):
    """Dead letters of a mailbox."""

    mailbox: _AnyMailbox
    seqs: Annotated[list[Seq], Meta(max_length=ANSWER_ITEMS_MAX)]


class MailboxOf(_Removable, frozen=True, tag="backlog"):
    """What waits in a mailbox."""

    mailbox: _AnyMailbox


class DelayedOf(_Removable, frozen=True, tag="delayed"):
    """Messages of a bot, by default the one that asks, that are not due yet."""

    ids: Annotated[list[Id], Meta(max_length=ANSWER_ITEMS_MAX)]
    bot: _AnyId | None = None


class SubscriptionOf(_Removable, frozen=True, tag="subscription"):
    """A bot's subscription, in a group or not, to a channel or a pattern."""

    bot: _AnyId
    channel: NameOrPattern


class BotOf(_Removable, frozen=True, tag="bot"):
    """A bot, with its mailbox, subscriptions and keys."""

    bot: _AnyId


class ChannelOf(_Removable, frozen=True, tag="channel"):
    """A channel, with its subscriptions and groups."""

    channel: Name


class GroupOf(_Removable, frozen=True, tag="group"):
    """A group, with its mailbox."""

    channel: Name
    group: Name


Removable = DeadLettersOf | MailboxOf | DelayedOf | SubscriptionOf | GroupOf | ChannelOf | BotOf


class RemoveFrame(ClientFrame, frozen=True, tag="remove"):
    """Removes something; the record of it has the `id` and the `reference`. A `dry_run` only counts.

    With `force`, what would be in the way is removed as well.
    """

    request: RequestId
    id: Id
    what: Removable
    reference: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    dry_run: bool = False
    force: bool = False
    part_of: Id | None = None
    """An id of the command of which this is a part. Its parts are one removal to people."""
