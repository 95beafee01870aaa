"""Values of answers: messages, bots, channels, dead letters, the worker's status, the results of requests.

Owns the structure of the values in docs/protocol.md. The worker encodes them and a client decodes them, so each
field is named once for both ends. Unlike a client's frames they may grow: a client ignores unknown fields.

Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..model.erasing import Removal
from ..model.lineage import EarlierLog
from ..model.room import RoomLevel
from .message_answers import (
    AnswerValue,
    DeadLetterAnswer,
    DeadLetterList,
    DelayedAnswer,
    DelayedList,
    Fate,
    FoundMessage,
    HistoryPage,
    KeptMessage,
    ListedDeadLetter,
    ListedDelayed,
    ListedWill,
    MailboxAnswer,
    MailboxContents,
    MessageAnswer,
    MessageState,
    Retried,
    WaitingIn,
    WaitingMessage,
)

__all__ = [
    "BotList",
    "ChannelList",
    "CommitAnswer",
    "DeadLetterAnswer",
    "DeadLetterList",
    "DelayedAnswer",
    "DelayedList",
    "Enrolled",
    "EventList",
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
    "ListedDelayed",
    "ListedEvent",
    "ListedGroup",
    "ListedKey",
    "ListedPattern",
    "ListedSecurityEvent",
    "ListedSession",
    "ListedSubscription",
    "ListedWill",
    "MailboxAnswer",
    "MailboxContents",
    "MayAnswer",
    "MessageAnswer",
    "MessageState",
    "RateLimited",
    "Reloaded",
    "RemovalList",
    "Retried",
    "Scrubbed",
    "SecurityEventList",
    "SessionList",
    "SubscriptionEnd",
    "SubscriptionList",
    "SubscriptionStart",
    "WaitingIn",
    "WaitingMessage",
    "WorkerStatus",
]

# ── Bots and channels ────────────────────────────────────────────────────────────────────────────────────


class ListedBot(AnswerValue, frozen=True):
    """A bot: how many sessions it has, how many messages wait for it, and when it was last heard.

    `backlog`, `in_flight` and `dead` are None if who asks may not read its mail.
    """

    id: str
    name: str
    online: bool
    sessions: int
    created_at: str
    last_seen_at: str
    backlog: int | None
    in_flight: int | None
    dead: int | None = None
    """How many dead letters its mailbox has."""
    will: ListedWill | None = None
    """The last will that it has left; None if it has none, or if who asks may not read its mail."""


class BotList(AnswerValue, frozen=True, omit_defaults=True):
    """Bots, by name; `more` says that others follow."""

    bots: list[ListedBot]
    more: bool = False


class ListedGroup(AnswerValue, frozen=True):
    """A group of a channel: its members, its messages that wait or are in flight, and its dead letters."""

    group: str
    members: int
    backlog: int
    in_flight: int | None = None
    dead: int | None = None
    sessions: int | None = None
    """How many sessions take from it; a worker of an earlier version does not say so."""


class ListedChannel(AnswerValue, frozen=True):
    """A channel: how many subscribers and messages it has, and its groups."""

    name: str
    created_at: str
    created_by_bot_id: str
    subscribers: int
    messages: int
    groups: list[ListedGroup]


class ChannelList(AnswerValue, frozen=True, omit_defaults=True):
    """Channels, by name; `more` says that others follow."""

    channels: list[ListedChannel]
    more: bool = False


class ListedSubscription(AnswerValue, frozen=True):
    """A bot's subscription to a channel, individual or in a group; it begins after `start_seq`."""

    bot_id: str
    bot: str
    channel_name: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None
    pattern: str | None = None
    """The pattern that it came by, and ends with; None if the bot subscribed to the channel by name."""


class ListedPattern(AnswerValue, frozen=True):
    """A bot's subscription to all channels that match a pattern; `channels` is how many it has by it."""

    bot_id: str
    bot: str
    pattern: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None
    channels: int


class SubscriptionList(AnswerValue, frozen=True, omit_defaults=True):
    """Subscriptions of a bot by channel, or to a channel by bot; `more` says that others follow.

    With those of a bot, its patterns come first: where no `after` was asked for.
    """

    subscriptions: list[ListedSubscription]
    more: bool = False
    patterns: list[ListedPattern] = msgspec.field(default_factory=list)


class SubscriptionStart(AnswerValue, frozen=True, omit_defaults=True):
    """A bot's subscription after it subscribed; `created` says whether it is new.

    `retained` is the last value of the channel, if it was asked for and there is one.
    """

    channel: str
    start_seq: int
    created: bool
    group: str | None = None
    channels: int | None = None
    """How many channels the bot has by it now, if it is to a pattern."""
    retained: KeptMessage | None = None


class SubscriptionEnd(AnswerValue, frozen=True):
    """Whether there was a subscription to end."""

    removed: bool


class ListedSession(AnswerValue, frozen=True, kw_only=True, omit_defaults=True):
    """A session: who is connected since when, and what it has in flight.

    `key` and `address`, where its connection comes from, are None if they are not known, or if who asks may not
    know them.
    """

    id: str
    bot_id: str
    bot: str
    since: str
    last_heard_at: str
    client: str | None = None
    """The name and version of its program."""
    credit: int
    in_flight: int
    parked: int
    """Those in flight that are parked, and do not count to the credit."""
    in_flight_bytes: int
    key: str | None = None
    address: str | None = None
    read_only: bool = False
    """Whether it only asks. Then its bot is the console, unless it has a key."""


class SessionList(AnswerValue, frozen=True, omit_defaults=True):
    """Sessions, by id; `more` says that others follow."""

    sessions: list[ListedSession]
    more: bool = False


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────


class ListedKey(AnswerValue, frozen=True, kw_only=True):
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


class KeyList(AnswerValue, frozen=True, omit_defaults=True):
    """Keys, by their text; `more` says that others follow. On the wire the `entries` are called `keys`."""

    entries: list[ListedKey] = msgspec.field(name="keys")
    more: bool = False


class KeyAdded(AnswerValue, frozen=True, kw_only=True):
    """A key that was added, its bot, and until when it and the one that it replaces are valid."""

    public_key: str
    bot_id: str
    bot_name: str
    expires_at: str | None
    replaced_until: str | None


class KeysRevoked(AnswerValue, frozen=True):
    """How many keys were revoked, and how many sessions have ended."""

    revoked: int
    sessions: int


class Enrolled(AnswerValue, frozen=True):
    """The bot whose key was added by an invitation."""

    bot_id: str
    bot_name: str


# ── Rights ───────────────────────────────────────────────────────────────────────────────────────────────


class MayAnswer(AnswerValue, frozen=True):
    """Whether a bot may do something, and the rule of the configuration that decides, or why none allows it."""

    allowed: bool
    rule: str


class Reloaded(AnswerValue, frozen=True):
    """What a worker took over from its configuration, and the changed keys that need a restart."""

    changed: list[str]
    restart: list[str]


# ── Commits ──────────────────────────────────────────────────────────────────────────────────────────────


class CommitAnswer(AnswerValue, frozen=True):
    """The seqs of a commit's messages; None for a delayed one."""

    seqs: list[int | None]


# ── The worker ───────────────────────────────────────────────────────────────────────────────────────────


class ListedSecurityEvent(AnswerValue, frozen=True):
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


class SecurityEventList(AnswerValue, frozen=True, omit_defaults=True):
    """Security events in the order of their ids; `more` says that others follow."""

    events: list[ListedSecurityEvent]
    more: bool = False


class ListedEvent(AnswerValue, frozen=True):
    """The last event of a kind about a subject, and how often there was one since the worker's start.

    `message_type` and `body` are those of a message on the channel of the worker's events (`bus.events`).
    """

    number: int
    at: str
    times: int
    message_type: str
    body: Any


class EventList(AnswerValue, frozen=True, omit_defaults=True):
    """What happened since the worker's start, in its order; `more` says that others follow."""

    since: str
    events: list[ListedEvent]
    more: bool = False


class RemovalList(AnswerValue, frozen=True, omit_defaults=True):
    """Records of removals in their order; `more` says that others follow."""

    removals: list[Removal]
    more: bool = False


class Scrubbed(AnswerValue, frozen=True):
    """Nothing of what was removed before is left in the files of the database."""


class RateLimited(AnswerValue, frozen=True):
    """Who was refused by a rate recently: a sender, to one recipient or, if that is None, to anybody."""

    sender: str
    recipient: str | None
    times: int
    last_at: str


class Leads(AnswerValue, frozen=True):
    """The worker of a house that leads: which one, since when, and how many workers stand by."""

    worker_id: str
    fence: int
    """Higher than that of every leader before."""
    since: str
    standing_by: int
    url: str | None
    """Where the other workers send bots; None if they name no address."""


class WorkerStatus(AnswerValue, frozen=True, omit_defaults=True):
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
    fault: str | None = None
    """The code for which the last transaction was refused, if nothing was stored since."""
    backlog_messages_max: int = 0
    """How many direct messages may wait for a bot; 0 if the worker does not say."""
    earlier: tuple[EarlierLog, ...] = ()
    """The logs that this one goes on from, the earliest first."""
    storage: RoomLevel = RoomLevel.ENOUGH
    """How much room is left for more."""
    undefined_roles: tuple[str, ...] = ()
    """Roles of keys that the configuration does not define: they allow nothing. Only whoever reads all is told."""
