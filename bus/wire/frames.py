"""The frames of the wire, documented in `docs/protocol.md`.

Owns the frames of both sides, their names and error codes, and the checks that do not depend on the session.
Unknown fields in a client's frame are refused; unknown fields in a worker's frame are ignored.

Pure: bytes in, values out, and the other way round.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from ..model.budgets import Budget, budget_in
from ..model.priorities import Priority
from ..model.values import STEP_VALUE_BYTES_MAX
from .codes import RETRY, Code, Refusal
from .fields import ClientFrame, Credits, Id, Name, NameOrPattern, RequestId, Seq, Seqs, are_ids, is_id, is_name
from .key_frames import AddKeyFrame, Enrol, Keys, RevokeKeyFrame
from .limits import (
    ANSWER_ITEMS_MAX,
    AWAITED_MAX,
    HELD_MAX,
    NAK_SECONDS_MAX,
    NAME_CHARACTERS_MAX,
    PARKED_MAX,
    PUBLISH_MESSAGES_MAX,
    REASON_CHARACTERS_MAX,
    TOKEN_CHARACTERS_MIN,
)
from .parts_frames import InParts, PartFrame, ReadPart, WholeFrame
from .query_frames import (
    Audit,
    Bots,
    Channels,
    DeadLetters,
    DelayedQuery,
    EventsQuery,
    History,
    MailboxQuery,
    MessageQuery,
    SessionsQuery,
    Status,
    Subscriptions,
)
from .removing_frames import Compact, EraseFrame, Removals, RemoveFrame, Scrub, Search
from .rights_frames import May, Reload
from .sending_frames import Commit, Publication, Publish, ToBot, ToChannel, WillFrame

__all__ = [
    "PROTOCOL_VERSION",
    "RETRY",
    "Ack",
    "AddKeyFrame",
    "Audit",
    "Bots",
    "Channels",
    "Closing",
    "Code",
    "Commit",
    "Compact",
    "Credit",
    "DeadLetters",
    "DelayedQuery",
    "Deliver",
    "Enrol",
    "EraseFrame",
    "ErrorFrame",
    "EventsQuery",
    "Extend",
    "Gap",
    "Goodbye",
    "Hello",
    "Hint",
    "History",
    "ItemError",
    "KeyFrame",
    "KeyedChanged",
    "Keys",
    "MailboxQuery",
    "May",
    "MessageQuery",
    "Nak",
    "Ok",
    "Park",
    "PassedOver",
    "Ping",
    "Pong",
    "Publication",
    "Publish",
    "Published",
    "Query",
    "Refusal",
    "Reload",
    "Removals",
    "RemoveFrame",
    "RequestFrame",
    "RetryDeadLetters",
    "RevokeKeyFrame",
    "Scrub",
    "Search",
    "SessionsQuery",
    "Settled",
    "StartAt",
    "Status",
    "StoredMessage",
    "Subscribe",
    "SubscriptionEnded",
    "Subscriptions",
    "Term",
    "ToBot",
    "ToChannel",
    "Unsubscribe",
    "Wake",
    "Welcome",
    "WillFrame",
    "WorkerFrame",
    "Workflow",
    "are_ids",
    "begins_a_wait",
    "is_id",
    "is_name",
]

PROTOCOL_VERSION = 1

# ── From a client ────────────────────────────────────────────────────────────────────────────────────────


class Hello(ClientFrame, frozen=True, tag="hello"):
    """Opens a session, and registers a new bot."""

    request: RequestId
    protocol: int
    bot: Name | None = None
    """Its bot; it may be left out where the connection's key says which bot it is."""
    bot_id: Id | None = None
    max_in_flight: Credits | None = None
    client: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    token: Annotated[str, Meta(min_length=TOKEN_CHARACTERS_MIN, max_length=NAME_CHARACTERS_MAX)] | None = None
    """A secret of the client, the same in all its hellos: it proves that an earlier session was its own."""
    epoch: str | None = None
    holds: Annotated[list[Seq], Meta(max_length=HELD_MAX)] = []
    """The messages delivered to it before and not settled, in the log of that `epoch`."""
    parked: Annotated[list[Seq], Meta(max_length=PARKED_MAX)] = []
    """Further ones, which are parked."""
    held_groups: Annotated[dict[Name, list[Seq]], Meta(max_length=HELD_MAX)] | None = None
    """By the name of a group, which of these were delivered by it. None: the client does not say, and a message is
    taken for one of the mailbox by which it would come now."""
    awaits: Annotated[list[Id], Meta(max_length=AWAITED_MAX)] = []
    """Its messages whose first replies it still awaits."""
    wakes: bool = False
    """Whether it is to be told of runs to which something happens."""
    parts: bool = False
    """Whether it reads answers in parts that are larger than a frame."""
    read_only: bool = False
    """Whether the session only asks: it registers no bot, and takes part in nothing."""

    @property
    def name(self) -> str:
        """The name of its bot, once that is known."""
        assert self.bot is not None, "a hello without a name is refused, or completed by its key"
        return self.bot


class Ping(ClientFrame, frozen=True, tag="ping"):
    """Keeps a session alive when there is nothing else to send."""


class Goodbye(ClientFrame, frozen=True, tag="goodbye"):
    """Ends a session gracefully."""

    request: RequestId


class StartAt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a subscription starts: at a seq, perhaps of the log with an epoch, or at a time."""

    seq: Seq | None = None
    time: str | None = None
    epoch: str | None = None


class Subscribe(ClientFrame, frozen=True, tag="subscribe"):
    """Subscribes to a channel, or to all that match a pattern."""

    request: RequestId
    channel: NameOrPattern
    start: Literal["new", "all"] | StartAt = "new"
    echo: bool = False
    group: Name | None = None
    retained: bool = False
    """Whether the last value of the channel is to be in the answer."""


class Unsubscribe(ClientFrame, frozen=True, tag="unsubscribe"):
    """Ends a subscription to a channel or a pattern."""

    request: RequestId
    channel: NameOrPattern


class Ack(ClientFrame, frozen=True, tag="ack"):
    """These messages are done."""

    seqs: Seqs
    request: RequestId | None = None


class Nak(ClientFrame, frozen=True, tag="nak"):
    """Redeliver these messages after a while; with `release` this counts as no failure."""

    seqs: Seqs
    delay: Annotated[float, Meta(ge=0, le=NAK_SECONDS_MAX)] | None = None
    release: bool = False
    request: RequestId | None = None


class Term(ClientFrame, frozen=True, tag="term"):
    """Never redeliver these messages."""

    seqs: Seqs
    reason: Annotated[str, Meta(max_length=REASON_CHARACTERS_MAX)] | None = None
    request: RequestId | None = None


class Extend(ClientFrame, frozen=True, tag="extend"):
    """These messages are still being worked on; `progress`: some of their work was recorded."""

    seqs: Seqs
    progress: bool = False
    request: RequestId | None = None


class Park(ClientFrame, frozen=True, tag="park"):
    """Nobody is at work on these messages: they wait without a deadline and outside the credit, until an extend."""

    seqs: Seqs


class Credit(ClientFrame, frozen=True, tag="credit"):
    """Changes how many messages may be in flight."""

    max_in_flight: Credits
    request: RequestId | None = None


class RetryDeadLetters(ClientFrame, frozen=True, tag="retry_dead_letters"):
    """Puts dead letters back into a bot's mailbox."""

    request: RequestId
    bot: str
    seqs: Annotated[list[Seq], Meta(max_length=ANSWER_ITEMS_MAX)]


class Workflow(ClientFrame, frozen=True, tag="workflow"):
    """Calls a method of the workflow repository; `arguments` are the method's parameters by name.

    Without `echo`, the values that the arguments have are left out of the answer.
    """

    request: RequestId
    call: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
    arguments: Raw = Raw(b"{}")
    echo: bool = True


Query = (
    History | MessageQuery | MailboxQuery | Bots | Channels | Subscriptions | SessionsQuery | DeadLetters | Keys
    | DelayedQuery | Audit | EventsQuery | Status | Search | Removals | Scrub | Compact
)  # fmt: skip
Settle = Ack | Nak | Term | Extend | Park | Credit
OfSession = Hello | Ping | Goodbye
KeyFrame = AddKeyFrame | RevokeKeyFrame | Enrol | May | Reload | EraseFrame | RemoveFrame
RequestFrame = (
    OfSession | Publish | Commit | Subscribe | Unsubscribe | Settle | RetryDeadLetters | KeyFrame | Query | Workflow
    | PartFrame | WholeFrame | ReadPart | WillFrame
)  # fmt: skip


# ── From the worker ──────────────────────────────────────────────────────────────────────────────────────


class _WorkerFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    """What every frame of the worker has in common."""


class Welcome(_WorkerFrame, frozen=True, tag="welcome", omit_defaults=True):
    """A session is open, under these terms. Durations are in seconds."""

    request: int
    protocol: int
    worker: str
    session: str
    epoch: str
    bot: str
    bot_id: str
    max_in_flight: int
    max_publish_in_flight: int
    heartbeat: float
    session_timeout: float
    ack_wait: float
    max_deliver: int
    max_frame_bytes: int
    max_body_bytes: int
    last_seq: int
    max_publish_messages: int = PUBLISH_MESSAGES_MAX
    """The maximum number of messages in a publish frame."""
    sessions: int = 1
    """How many sessions share the bot's mailbox, including this one; those without credit do not count."""
    not_held: list[int] = []
    """Those of the hello's `holds` that are not in flight for this session."""
    max_parked: int = 0
    """How many messages the session may park."""
    wakes: bool = False
    """Whether the session is told of runs to which something happens."""
    max_parts_bytes: int = 0
    """The maximum of a frame in parts; 0 if the worker takes none."""
    max_output_bytes: int = STEP_VALUE_BYTES_MAX
    """The maximum of a step's output."""
    opens_runs: bool = False
    """Whether the worker knows the call `open_run`."""
    joins_removals: bool = False
    """Whether the worker knows `part_of` of `erase` and `remove`."""
    follows_subscriptions: bool = False
    """Whether the worker knows `follow` of `subscriptions`."""
    tap: str | None = None
    """Where the tap is. If it listens at all addresses of its machine, the client takes the one that it uses."""


class Pong(_WorkerFrame, frozen=True, tag="pong"):
    """Answers a ping."""

    last_seq: int


class ItemError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one message of a publish frame was refused, and the seconds after which it may be sent again.

    `details` are for programs, as in `ErrorFrame`.
    """

    index: int
    code: str
    message: str
    retry_after: float | None = None
    details: dict[str, Any] | None = None


class Published(_WorkerFrame, frozen=True, tag="published", omit_defaults=True):
    """The messages are on disk, except those in `errors`; those in `scheduled` have no seq yet."""

    request: int
    seqs: list[int | None]
    duplicates: list[int] = []
    errors: list[ItemError] = []
    scheduled: list[int] = []


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as a client reads it. `attempt` counts its deliveries to this bot or `group`, from 1."""

    seq: int
    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient: dict[str, str]
    message_type: str
    body: Any
    reply_to: str | None
    headers: dict[str, str]
    timestamp: str
    attempt: int = 1
    group: str | None = None
    prev_seq: int | None = None
    tainted: bool = False
    """Whether it comes from outside, or answers a message that does."""
    priority: Priority = "normal"
    erased: bool = False
    """Whether its body and headers were erased: they are null, and empty but for the budget of its thread."""

    @property
    def channel(self) -> str | None:
        """The channel that it was published on; None for a direct message."""
        return self.recipient.get("name")

    @property
    def budget(self) -> Budget:
        """What is left of its thread after it."""
        return budget_in(self.headers)


class Deliver(_WorkerFrame, frozen=True, tag="deliver"):
    """Messages for this session's bot."""

    messages: list[StoredMessage]


class Ok(_WorkerFrame, frozen=True, tag="ok", omit_defaults=True):
    """A request was carried out; what changed is on disk."""

    request: int
    value: Raw = Raw(b"{}")


class PassedOver(msgspec.Struct, frozen=True):
    """A message that a settle named and could not change, and its state in the bot's mailboxes."""

    seq: int
    state: str


class Settled(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of an `ok` that answers a settle."""

    passed_over: list[PassedOver] = []


class ErrorFrame(_WorkerFrame, frozen=True, tag="error", omit_defaults=True):
    """A frame was refused; `details` are for programs, if the code alone is not enough."""

    code: str
    message: str
    request: int | None = None
    retry: bool | None = None
    details: dict[str, Any] | None = None


class Closing(_WorkerFrame, frozen=True, tag="closing", omit_defaults=True):
    """The session has ended: the worker is shutting down, or another one serves, whose addresses may be known."""

    url: str | None = None
    tap: str | None = None


class Gap(_WorkerFrame, frozen=True, tag="gap"):
    """The mailbox lost messages between two seqs, both included."""

    from_seq: int
    to_seq: int
    reason: str


class Hint(_WorkerFrame, frozen=True):
    """Something may have happened: look again."""


class Wake(Hint, frozen=True, tag="wake"):
    """Something happened to these runs, or they may have a slot: look at them again."""

    runs: list[str]


class KeyedChanged(Hint, frozen=True, tag="kv_changed"):
    """These keyed stores were changed, whose changes the session asked for: ask for them again."""

    stores: list[str] = msgspec.field(name="kv")


class SubscriptionEnded(Hint, frozen=True, tag="subscription_ended"):
    """The bot lost a subscription, and the session asked to be told: ask for them again."""


WorkerFrame = (
    Welcome | Pong | Published | Deliver | Ok | ErrorFrame | Closing | Gap | Wake | KeyedChanged | SubscriptionEnded
    | InParts
)  # fmt: skip


def begins_a_wait(request: RequestFrame) -> bool:
    """Return True if a frame names a delay or a ttl, which must not begin before it was received."""
    match request:
        case Publish(messages=messages) | Commit(messages=messages):
            return any(
                message.delay is not None or message.ttl is not None or message.deadline is not None
                for message in messages
            )
        case Nak():
            return True
        case _:
            return False
