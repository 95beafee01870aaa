"""What a store can do, whatever it is made of.

Owns the protocols that a backend implements (those of workflows are in `store.workflows`, and can be had from
here), and the values that the broker and the log exchange. All methods may wait; all raise `store.errors` and
nothing else. Nothing here knows SQL.

Pure: no clock, no randomness, no I/O. Times come in as text in the one stored form (`records.timestamp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from .records import Bot, BotMessage, BotSubscription, Channel
from .workflows import WorkflowRepository, WorkflowRules, WorkflowStore

__all__ = [
    "AddBot",
    "AddChannel",
    "AddDeadLetters",
    "AddMessages",
    "AddSubscription",
    "Added",
    "Change",
    "ChannelSummary",
    "DeadLetter",
    "Group",
    "HistoryRequest",
    "LogMessage",
    "LogState",
    "MailboxState",
    "MessageLog",
    "MessageRepository",
    "NewMessage",
    "Page",
    "PageRequest",
    "ReleaseDue",
    "Released",
    "RemoveDeadLetters",
    "RemoveMessages",
    "RemoveSubscription",
    "SaveMailbox",
    "SeenBot",
    "Store",
    "Subscribed",
    "Subscription",
    "SurveyRequest",
    "Surveyed",
    "UnsettledState",
    "WorkflowRepository",
    "WorkflowRules",
    "WorkflowStore",
    "group_mailbox_id",
]


# ── The repository of messages ───────────────────────────────────────────────────────────────────────────


class MessageRepository(Protocol):
    """Messages as an audit trail, channels and subscriptions: as an audit trail asks for.

    Every write is on disk when its call returns. A running worker's log is written through its bus, not here:
    what is saved here reaches a mailbox only when that one next reads from the store.
    """

    async def save_message(self, message: BotMessage) -> None:
        """Append a message. The same message again changes nothing; its id with other contents: Conflict."""

    async def get_messages_between(self, bot_a: str, bot_b: str, limit: int = 50) -> list[BotMessage]:
        """Give the direct messages between two bots (ids), both ways, newest first by seq."""

    async def get_channel_messages(self, channel: str, limit: int = 50) -> list[BotMessage]:
        """Give a channel's messages, newest first by seq."""

    async def list_channels(self) -> list[Channel]:
        """List all channels by name."""

    async def create_channel(self, channel: Channel) -> None:
        """Create a channel; one that exists stays as it is."""

    async def subscribe(self, subscription: BotSubscription) -> None:
        """Subscribe a bot to a channel from now on. NotFound where the channel does not exist."""

    async def unsubscribe(self, bot_id: str, channel_name: str) -> bool:
        """End a subscription; False where there was none."""

    async def get_subscriptions(self, bot_id: str) -> list[BotSubscription]:
        """List a bot's subscriptions by channel."""

    async def get_channel_subscribers(self, channel_name: str) -> list[str]:
        """List the ids of the bots that are subscribed to a channel."""


# ── The log, which the broker uses ───────────────────────────────────────────────────────────────────────


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A checked message that is not in the log yet. `body` and `headers` are JSON as it was sent.

    From `expires_at` on it is not delivered any more. One with a `due_at` waits beside the log until then. One that
    is `known_only` is looked up by its id and not stored: where it is known, its sender is told so all the same.
    """

    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient_bot_id: str | None
    recipient_channel: str | None
    message_type: str
    body: bytes
    reply_to: str | None
    headers: bytes
    expires_at: str | None = None
    due_at: str | None = None
    known_only: bool = False


class LogMessage(NewMessage, frozen=True, gc=False, kw_only=True):
    """A message in the log. `seq` is its place, `timestamp` the time when it got there."""

    seq: int
    timestamp: str


class AddBot(msgspec.Struct, frozen=True):
    """Register a bot and open its mailbox at the log's end."""

    bot: Bot


class SeenBot(msgspec.Struct, frozen=True):
    """Note when a bot was last heard."""

    bot_id: str
    at: str


class AddChannel(msgspec.Struct, frozen=True):
    """Create a channel unless it exists."""

    channel: Channel


class AddSubscription(msgspec.Struct, frozen=True):
    """Subscribe a bot to an existing channel; `start_seq=None` is the log's end. Answered `Subscribed`.

    With a `group` the bot shares that group's mailbox, which is opened at the start by the first who names it.
    """

    bot_id: str
    channel: str
    subscribed_at: str
    start_seq: int | None = None
    echo: bool = False
    group: str | None = None


class RemoveSubscription(msgspec.Struct, frozen=True):
    """End a subscription. Answered with a bool: whether there was one."""

    bot_id: str
    channel: str


class AddMessages(msgspec.Struct, frozen=True):
    """Append messages at one time, or put aside those not due yet. Answered with an `Added` each, in order."""

    messages: Sequence[NewMessage]
    timestamp: str


class ReleaseDue(msgspec.Struct, frozen=True):
    """Append those of the scheduled messages that are due, the earliest first. Answered `Released`."""

    timestamp: str
    messages_max: int


class RemoveMessages(msgspec.Struct, frozen=True):
    """Take messages out of the log for good, by seq. The last one stays, because seqs go on from it.

    Answered with the number of those that there were.
    """

    seqs: tuple[int, ...]


class UnsettledState(msgspec.Struct, frozen=True, array_like=True):
    """A message at or below a mailbox's position that is not settled."""

    seq: int
    attempt: int
    failures: int


class MailboxState(msgspec.Struct, frozen=True):
    """What a mailbox keeps on disk.

    Of the mailbox's messages above `position` none was handed out, and of those at or below it, `unsettled`
    has the ones still owed. `floors` has a seq for each source (a channel, or "" for direct messages) whose
    messages up to there were handed out although they may lie above `position`. `ahead` has the seqs above it that
    were handed out before their turn and are settled: replies that somebody waited for. `gap` is the range in which
    it lost messages, both ends included, and nobody was told yet.

    A mailbox's id is that of its bot, or `channel/group`, which no bot's is.
    """

    mailbox_id: str
    position: int
    unsettled: tuple[UnsettledState, ...] = ()
    floors: dict[str, int] = {}
    ahead: tuple[int, ...] = ()
    gap: tuple[int, int] | None = None


class SaveMailbox(msgspec.Struct, frozen=True):
    """Replace a mailbox's state."""

    state: MailboxState


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that a mailbox gave up on."""

    mailbox_id: str
    seq: int
    reason: str
    attempts: int
    at: str


class AddDeadLetters(msgspec.Struct, frozen=True):
    """Keep messages that a mailbox gave up on."""

    dead_letters: tuple[DeadLetter, ...]


class RemoveDeadLetters(msgspec.Struct, frozen=True):
    """Take dead letters out, to be delivered again. Answered with the seqs that there were."""

    mailbox_id: str
    seqs: tuple[int, ...]


Change = (
    AddBot
    | SeenBot
    | AddChannel
    | AddSubscription
    | RemoveSubscription
    | AddMessages
    | ReleaseDue
    | RemoveMessages
    | SaveMailbox
    | AddDeadLetters
    | RemoveDeadLetters
)


class Added(msgspec.Struct, frozen=True, gc=False):
    """What became of one message of `AddMessages`.

    `seq` is its place, or the place of the one that this sender had sent with its id before (`duplicate`).
    It is None where that waits until it is due (`scheduled`), where the id belongs to another sender's message
    (`conflict`), and where a message that was only to be looked up is not known.
    """

    seq: int | None
    duplicate: bool = False
    scheduled: bool = False
    conflict: bool = False


class Released(msgspec.Struct, frozen=True):
    """The messages that were due, as they are in the log now, and when the next one is.

    `damaged` has the ids of those that did not match their checksums: they stay where they are, and never come due.
    """

    messages: list[LogMessage]
    next_due_at: str | None
    damaged: tuple[str, ...] = ()


class Subscribed(msgspec.Struct, frozen=True):
    """A subscription as it stands; `created` is False where it stood before, perhaps in another `group`.

    The start of a group's member is that of the group.
    """

    start_seq: int
    created: bool
    group: str | None = None


class Subscription(msgspec.Struct, frozen=True):
    """A subscription with what delivery needs to know of it."""

    bot_id: str
    channel: str
    subscribed_at: str
    start_seq: int
    echo: bool
    group: str | None = None


def group_mailbox_id(channel: str, group: str) -> str:
    """Give the id of a group's mailbox: no bot has one with a slash."""
    return f"{channel}/{group}"


class Group(msgspec.Struct, frozen=True):
    """A channel's competing group, which outlives its members."""

    channel: str
    name: str
    start_seq: int


class LogState(msgspec.Struct, frozen=True):
    """All that the broker needs to go on where it was. `channels` pairs each with its last seq (0: none)."""

    epoch: str
    last_seq: int
    last_timestamp: str
    bots: list[Bot]
    channels: list[tuple[Channel, int]]
    subscriptions: list[Subscription]
    mailboxes: list[MailboxState]
    dead_letters: list[tuple[str, int]]
    """The mailbox's id and the seq of each dead letter."""
    groups: list[Group] = []
    scheduled: int = 0
    """How many messages wait until they are due."""
    next_due_at: str | None = None
    """When the first of them is."""


class PageRequest(msgspec.Struct, frozen=True):
    """Which messages a mailbox wants: some by seq, and what follows in its sources.

    A source is a channel (or "" for direct messages), the seq after which it counts, and whether the messages of
    the mailbox's own bot are left out. The page has messages up to `through_seq`, in seq order, at most
    `messages_max` of them, and ends early when their bodies pass `bytes_max`.
    """

    mailbox_id: str
    seqs: tuple[int, ...]
    sources: tuple[tuple[str, int, bool], ...]
    through_seq: int
    messages_max: int
    bytes_max: int


class Page(msgspec.Struct, frozen=True):
    """What was found.

    `recalled` has the messages asked for by seq, `messages` those that follow in the sources. `complete` says
    that nothing more lies between them and `through_seq`. `damaged` has the seqs that did not match their
    checksums and are left out.
    """

    recalled: list[LogMessage]
    messages: list[LogMessage]
    complete: bool
    damaged: tuple[int, ...] = ()


class HistoryRequest(msgspec.Struct, frozen=True):
    """Which part of the log to read back, newest first: exactly one of `between`, `channel`, `thread`."""

    limit: int
    between: tuple[str, str] | None = None
    channel: str | None = None
    thread: str | None = None
    before_seq: int | None = None


class SurveyRequest(msgspec.Struct, frozen=True):
    """Which part of the log retention looks at: the messages after a seq, of one channel or (None) of all."""

    channel: str | None
    after_seq: int
    through_seq: int
    messages_max: int


class Surveyed(msgspec.Struct, frozen=True, gc=False):
    """What retention needs to know of a message; `size_bytes` is that of its body and headers."""

    seq: int
    sender_bot_id: str
    recipient_bot_id: str | None
    recipient_channel: str | None
    timestamp: str
    size_bytes: int


class ChannelSummary(msgspec.Struct, frozen=True):
    """A channel and how many messages it has."""

    channel: Channel
    messages: int


class MessageLog(Protocol):
    """The log of all messages in commit order, and the mailboxes' places in it."""

    async def load(self) -> LogState:
        """Give what the broker goes on from. Called once, before anything else."""

    async def apply(self, changes: Sequence[Change]) -> list[Any]:
        """Carry out changes in order, in one transaction, and answer each after it is synced to disk.

        StorageFull: nothing was stored, and the log goes on. StoreFailure: what was stored cannot be known.
        """

    async def read_page(self, request: PageRequest) -> Page:
        """Read part of a mailbox. Every message that was answered before the call is seen."""

    async def seq_before(self, at: str) -> int:
        """Give the last seq whose timestamp is before `at`; 0 where there is none."""

    async def history(self, request: HistoryRequest) -> list[LogMessage]:
        """Read back a conversation, newest first. RecordDamaged where a record is."""

    async def find(self, message_id: str) -> LogMessage | None:
        """Give a message by its id."""

    async def find_scheduled(self, message_id: str) -> NewMessage | None:
        """Give a message that waits until it is due, by its id. RecordDamaged where its record is."""

    async def survey(self, request: SurveyRequest) -> list[Surveyed]:
        """Look through a part of the log, in the order of seqs."""

    async def channel_summaries(self) -> list[ChannelSummary]:
        """List all channels by name."""

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        """Count, for each request, the messages that a page without a limit would have, but for its `seqs`."""

    async def dead_letters(self, mailbox_id: str | None, limit: int) -> list[tuple[DeadLetter, LogMessage | None]]:
        """List dead letters, newest first, of one mailbox or of all."""

    async def sizes(self) -> dict[str, int]:
        """Give the number of messages, in the log and scheduled, and the bytes of database and WAL on disk."""


class Store(Protocol):
    """An open store. Every attribute shares the one writer, and so one sync a group of writes."""

    log: MessageLog
    messages: MessageRepository
    workflows: WorkflowStore
    warnings: list[str]
    """What the people who run it should know, a sentence each."""

    @property
    def versions(self) -> dict[str, str]:
        """What the store runs on, by name, for people."""
