"""Values of answers: messages, bots, channels, dead letters, the worker's status, the results of requests.

Owns the structure of the values in docs/protocol.md. The worker encodes them and a client decodes them, so each
field is named once for both ends. Unlike a client's frames they may grow: a client ignores unknown fields.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from ..model.erasing import Removal

__all__ = [
    "BotList",
    "ChannelList",
    "CommitAnswer",
    "DeadLetterAnswer",
    "DeadLetterList",
    "Enrolled",
    "Fate",
    "FoundMessage",
    "HistoryPage",
    "KeptMessage",
    "KeyAdded",
    "KeyList",
    "KeysRevoked",
    "Leads",
    "ListedBot",
    "ListedChannel",
    "ListedDeadLetter",
    "ListedGroup",
    "ListedKey",
    "ListedSecurityEvent",
    "ListedSubscription",
    "MayAnswer",
    "MessageAnswer",
    "RateLimited",
    "Reloaded",
    "RemovalList",
    "Retried",
    "Scrubbed",
    "SecurityEventList",
    "SubscriptionEnd",
    "SubscriptionList",
    "SubscriptionStart",
    "WorkerStatus",
]

M = TypeVar("M")
"""A message: JSON when the worker writes it, a struct when a client reads it."""
D = TypeVar("D")
"""A dead letter, likewise."""


class _Answer(msgspec.Struct, frozen=True):
    """What all answers have in common: a field can also be read by its name, as in `status["last_seq"]`."""

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


class KeptMessage(_Answer, frozen=True, kw_only=True, omit_defaults=True):
    """A message as the worker stores it. A delayed one that is not due yet has neither seq nor timestamp."""

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
    tainted: bool = False
    """Whether it comes from outside, or answers a message that does."""
    erased: bool = False
    """Whether its body and headers were erased: they are null and empty."""


class HistoryPage(_Answer, Generic[M], frozen=True):
    """Part of a conversation, newest first; `more` says that there are older messages."""

    messages: list[M]
    more: bool


class Fate(_Answer, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a message in one mailbox: a bot's, or a group's, which has no `bot`.

    `state` is "waiting", "in_flight", "returned", "settled", "dead" or "expired".
    """

    bot_id: str | None
    bot: str | None
    group: str | None = None
    state: str


class MessageAnswer(_Answer, Generic[M], frozen=True, omit_defaults=True):
    """A message, its state in each mailbox it went to, and when it is due if it is delayed."""

    message: M
    mailboxes: list[Fate]
    due_at: str | None = None


class FoundMessage(MessageAnswer[KeptMessage], frozen=True, omit_defaults=True):
    """A requested message, as a client reads it."""


class DeadLetterAnswer(_Answer, Generic[M], frozen=True):
    """A message that a mailbox gave up on; `message` is None if it is no longer in the log."""

    seq: int
    reason: str
    attempts: int
    at: str
    message: M | None


class ListedDeadLetter(DeadLetterAnswer[KeptMessage], frozen=True):
    """A dead letter as a client reads it."""


class DeadLetterList(_Answer, Generic[D], frozen=True, omit_defaults=True):
    """Dead letters of a mailbox, newest first; `more` says that there are older ones."""

    dead_letters: list[D]
    more: bool = False


class Retried(_Answer, frozen=True):
    """How many dead letters were put back into the mailbox."""

    retried: int


# ── Bots and channels ────────────────────────────────────────────────────────────────────────────────────


class ListedBot(_Answer, frozen=True):
    """A bot: how many sessions it has, how many messages wait for it, and when it was last heard.

    `backlog` and `in_flight` are None if who asks may not read its mail.
    """

    id: str
    name: str
    online: bool
    sessions: int
    created_at: str
    last_seen_at: str
    backlog: int | None
    in_flight: int | None


class BotList(_Answer, frozen=True, omit_defaults=True):
    """Bots, by name; `more` says that others follow."""

    bots: list[ListedBot]
    more: bool = False


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


class ChannelList(_Answer, frozen=True, omit_defaults=True):
    """Channels, by name; `more` says that others follow."""

    channels: list[ListedChannel]
    more: bool = False


class ListedSubscription(_Answer, frozen=True):
    """A bot's subscription to a channel, individual or in a group; it begins after `start_seq`."""

    bot_id: str
    bot: str
    channel_name: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None


class SubscriptionList(_Answer, frozen=True, omit_defaults=True):
    """Subscriptions of a bot by channel, or to a channel by bot; `more` says that others follow."""

    subscriptions: list[ListedSubscription]
    more: bool = False


class SubscriptionStart(_Answer, frozen=True, omit_defaults=True):
    """A bot's subscription after it subscribed; `created` says whether it is new."""

    channel: str
    start_seq: int
    created: bool
    group: str | None = None


class SubscriptionEnd(_Answer, frozen=True):
    """Whether there was a subscription to end."""

    removed: bool


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────


class ListedKey(_Answer, frozen=True, kw_only=True):
    """A key, and how many sessions it has. `created_by` is the key that added it, if one did."""

    public_key: str
    bot_id: str
    bot_name: str
    purpose: str
    roles: list[str]
    label: str
    created_at: str
    created_by: str | None
    expires_at: str | None
    revoked_at: str | None
    replaced_by: str | None
    last_used_at: str | None
    sessions: int


class KeyList(_Answer, frozen=True, omit_defaults=True):
    """Keys, by their text; `more` says that others follow. On the wire the `entries` are called `keys`."""

    entries: list[ListedKey] = msgspec.field(name="keys")
    more: bool = False


class KeyAdded(_Answer, frozen=True, kw_only=True):
    """A key that was added, its bot, and until when it and the one that it replaces are valid."""

    public_key: str
    bot_id: str
    bot_name: str
    expires_at: str | None
    replaced_until: str | None


class KeysRevoked(_Answer, frozen=True):
    """How many keys were revoked, and how many sessions have ended."""

    revoked: int
    sessions: int


class Enrolled(_Answer, frozen=True):
    """The bot whose key was added by an invitation."""

    bot_id: str
    bot_name: str


# ── Rights ───────────────────────────────────────────────────────────────────────────────────────────────


class MayAnswer(_Answer, frozen=True):
    """Whether a bot may do something, and the rule of the configuration that decides, or why none allows it."""

    allowed: bool
    rule: str


class Reloaded(_Answer, frozen=True):
    """What a worker took over from its configuration, and the changed keys that need a restart."""

    changed: list[str]
    restart: list[str]


# ── Commits ──────────────────────────────────────────────────────────────────────────────────────────────


class CommitAnswer(_Answer, frozen=True):
    """The seqs of a commit's messages; None for a delayed one."""

    seqs: list[int | None]


# ── The worker ───────────────────────────────────────────────────────────────────────────────────────────


class ListedSecurityEvent(_Answer, frozen=True):
    """What happened `times` times within about a minute, the first time at `at`.

    `bot_id`, `bot` and `key` are whose it is, and `address` where a connection came from, as far as they are known.
    `object` is what it was about. `damaged` says that the record is not as it was stored.
    """

    id: int
    at: str
    event: str
    bot_id: str | None
    bot: str | None
    key: str | None
    address: str | None
    object: str | None
    detail: str | None
    times: int
    damaged: bool = False


class SecurityEventList(_Answer, frozen=True, omit_defaults=True):
    """Security events in the order of their ids; `more` says that others follow."""

    events: list[ListedSecurityEvent]
    more: bool = False


class RemovalList(_Answer, frozen=True, omit_defaults=True):
    """Records of removals in their order; `more` says that others follow."""

    removals: list[Removal]
    more: bool = False


class Scrubbed(_Answer, frozen=True):
    """Nothing of what was removed before is left in the files of the database."""


class RateLimited(_Answer, frozen=True):
    """Who was refused by a rate recently: a sender, to one recipient or, if that is None, to anybody."""

    sender: str
    recipient: str | None
    times: int
    last_at: str


class Leads(_Answer, frozen=True):
    """The worker of a house that leads: which one, since when, and how many workers stand by."""

    worker_id: str
    fence: int
    """Higher than that of every leader before."""
    since: str
    standing_by: int
    url: str | None
    """Where the other workers send bots; None if they name no address."""


class WorkerStatus(_Answer, frozen=True, omit_defaults=True):
    """The worker's status. `counters` count since its start, and `rates` are theirs, per second."""

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
    leads: Leads | None = None
    """About this worker, if its house may have several."""
