"""Values of answers: who is there, what was said, what was given up, how the worker is, what a request did.

Owns the shape of the values in docs/protocol.md. The worker encodes them and a client decodes them, so both
ends name each field once. Unlike a client's frames they may grow: a client ignores fields that it does not know.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

__all__ = [
    "BotList",
    "ChannelList",
    "CommitAnswer",
    "DeadLetterAnswer",
    "DeadLetterList",
    "Fate",
    "FoundMessage",
    "HistoryPage",
    "KeptMessage",
    "ListedBot",
    "ListedChannel",
    "ListedDeadLetter",
    "ListedGroup",
    "ListedSubscription",
    "MessageAnswer",
    "RateLimited",
    "Retried",
    "SubscriptionEnd",
    "SubscriptionList",
    "SubscriptionStart",
    "WorkerStatus",
]

M = TypeVar("M")
"""A message: JSON where the worker writes it, a struct where a client reads it."""
D = TypeVar("D")
"""A dead letter, likewise."""


class _Answer(msgspec.Struct, frozen=True):
    """What every answer has in common: a field can also be read by its name, as in `status["last_seq"]`."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__struct_fields__)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field of that name, or the default if there is no such field."""
        return self[name] if name in self.__struct_fields__ else default

    def keys(self) -> tuple[str, ...]:
        """Return the names of all fields, so that `dict(answer)` works."""
        return self.__struct_fields__


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────


class KeptMessage(_Answer, frozen=True, kw_only=True):
    """A message as the worker keeps it. One that waits until it is due has neither seq nor timestamp yet."""

    seq: int | None
    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient: dict[str, str]
    message_type: str
    body: Any
    reply_to: str | None
    headers: dict[str, str]
    timestamp: str | None


class HistoryPage(_Answer, Generic[M], frozen=True):
    """Part of a conversation, newest first; `more` says that there are older messages."""

    messages: list[M]
    more: bool


class Fate(_Answer, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a message in one mailbox: a bot's, or a group's, which has no `bot`.

    `state` is "waiting", "in_flight", "returned", "settled", "dead" or "expired".
    """

    bot_id: str | None
    bot: str | None
    group: str | None = None
    state: str


class MessageAnswer(_Answer, Generic[M], frozen=True, omit_defaults=True):
    """A message, what became of it in each mailbox it went to, and when it is due if that is still to come."""

    message: M
    mailboxes: list[Fate]
    due_at: str | None = None


class FoundMessage(MessageAnswer[KeptMessage], frozen=True, omit_defaults=True):
    """A message that was asked for, as a client reads it."""


class DeadLetterAnswer(_Answer, Generic[M], frozen=True):
    """A message that a mailbox gave up on; `message` is None if it is not in the log any more."""

    seq: int
    reason: str
    attempts: int
    at: str
    message: M | None


class ListedDeadLetter(DeadLetterAnswer[KeptMessage], frozen=True):
    """A dead letter as a client reads it."""


class DeadLetterList(_Answer, Generic[D], frozen=True):
    """Dead letters of a mailbox, newest first."""

    dead_letters: list[D]


class Retried(_Answer, frozen=True):
    """How many dead letters went back into the mailbox."""

    retried: int


# ── Bots and channels ────────────────────────────────────────────────────────────────────────────────────


class ListedBot(_Answer, frozen=True):
    """A bot: how many sessions it has, how many messages wait for it, and when it was last heard."""

    id: str
    name: str
    online: bool
    sessions: int
    created_at: str
    last_seen_at: str
    backlog: int
    in_flight: int


class BotList(_Answer, frozen=True):
    """All bots, by name."""

    bots: list[ListedBot]


class ListedGroup(_Answer, frozen=True):
    """A group of a channel: how many members it has, and how many messages wait for them."""

    group: str
    members: int
    backlog: int


class ListedChannel(_Answer, frozen=True):
    """A channel: how many subscribers and messages it has, and its groups."""

    name: str
    created_at: str
    created_by_bot_id: str
    subscribers: int
    messages: int
    groups: list[ListedGroup]


class ChannelList(_Answer, frozen=True):
    """All channels."""

    channels: list[ListedChannel]


class ListedSubscription(_Answer, frozen=True):
    """A bot's subscription to a channel, by itself or in a group; it begins after `start_seq`."""

    bot_id: str
    bot: str
    channel_name: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None


class SubscriptionList(_Answer, frozen=True):
    """Subscriptions of a bot, or to a channel."""

    subscriptions: list[ListedSubscription]


class SubscriptionStart(_Answer, frozen=True, omit_defaults=True):
    """The subscription that stands after a bot subscribed; `created` says whether that is new."""

    channel: str
    start_seq: int
    created: bool
    group: str | None = None


class SubscriptionEnd(_Answer, frozen=True):
    """Whether there was a subscription to end."""

    removed: bool


# ── Commits ──────────────────────────────────────────────────────────────────────────────────────────────


class CommitAnswer(_Answer, frozen=True):
    """The places of a commit's messages; None for one with a delay."""

    seqs: list[int | None]


# ── The worker ───────────────────────────────────────────────────────────────────────────────────────────


class RateLimited(_Answer, frozen=True):
    """Who was too fast lately: a sender, to one recipient or, where that is None, to anybody."""

    sender: str
    recipient: str | None
    times: int
    last_at: str


class WorkerStatus(_Answer, frozen=True):
    """How the worker is. `counters` count since its start, and `rates` are theirs, a second."""

    started_at: str
    uptime_seconds: float
    epoch: str
    last_seq: int
    log_ahead_seconds: float
    sessions: int
    bots: int
    channels: int
    counters: dict[str, int]
    rates: dict[str, float]
    rate_limited: list[RateLimited]
    sizes: dict[str, int]
    versions: dict[str, str]
