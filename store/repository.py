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
    "HistoryRequest",
    "LogMessage",
    "LogState",
    "MailboxState",
    "MessageLog",
    "MessageRepository",
    "NewMessage",
    "Page",
    "PageRequest",
    "RemoveDeadLetters",
    "RemoveSubscription",
    "SaveMailbox",
    "SeenBot",
    "Store",
    "Subscribed",
    "Subscription",
    "UnsettledState",
    "WorkflowRepository",
    "WorkflowRules",
    "WorkflowStore",
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

    From `expires_at` on it is not delivered any more.
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
    """Subscribe a bot to an existing channel; `start_seq=None` is the log's end. Answered `Subscribed`."""

    bot_id: str
    channel: str
    subscribed_at: str
    start_seq: int | None = None
    echo: bool = False


class RemoveSubscription(msgspec.Struct, frozen=True):
    """End a subscription. Answered with a bool: whether there was one."""

    bot_id: str
    channel: str


class AddMessages(msgspec.Struct, frozen=True):
    """Append messages at one time. Answered with an `Added` a message, in order."""

    messages: Sequence[NewMessage]
    timestamp: str


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
    were handed out before their turn and are settled: replies that somebody waited for.
    """

    bot_id: str
    position: int
    unsettled: tuple[UnsettledState, ...] = ()
    floors: dict[str, int] = {}
    ahead: tuple[int, ...] = ()


class SaveMailbox(msgspec.Struct, frozen=True):
    """Replace a mailbox's state."""

    state: MailboxState


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that a mailbox gave up on."""

    bot_id: str
    seq: int
    reason: str
    attempts: int
    at: str


class AddDeadLetters(msgspec.Struct, frozen=True):
    """Keep messages that a mailbox gave up on."""

    dead_letters: tuple[DeadLetter, ...]


class RemoveDeadLetters(msgspec.Struct, frozen=True):
    """Take dead letters out, to be delivered again. Answered with the seqs that there were."""

    bot_id: str
    seqs: tuple[int, ...]


Change = (
    AddBot
    | SeenBot
    | AddChannel
    | AddSubscription
    | RemoveSubscription
    | AddMessages
    | SaveMailbox
    | AddDeadLetters
    | RemoveDeadLetters
)


class Added(msgspec.Struct, frozen=True, gc=False):
    """What became of one message of `AddMessages`.

    `seq` is its place, or the place of the one that this sender had sent with its id before (`duplicate`).
    It is None where the id belongs to another sender's message.
    """

    seq: int | None
    duplicate: bool = False


class Subscribed(msgspec.Struct, frozen=True):
    """A subscription as it stands; `created` is False where it stood before."""

    start_seq: int
    created: bool


class Subscription(msgspec.Struct, frozen=True):
    """A subscription with what delivery needs to know of it."""

    bot_id: str
    channel: str
    subscribed_at: str
    start_seq: int
    echo: bool


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
    """The mailbox's bot id and the seq of each dead letter."""


class PageRequest(msgspec.Struct, frozen=True):
    """Which messages a mailbox wants: some by seq, and what follows in its sources.

    A source is a channel (or "" for direct messages), the seq after which it counts, and whether the bot's own
    messages are left out. The page has messages up to `through_seq`, in seq order, at most `messages_max` of
    them, and ends early when their bodies pass `bytes_max`.
    """

    bot_id: str
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

    async def channel_summaries(self) -> list[ChannelSummary]:
        """List all channels by name."""

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        """Count, for each request, the messages that a page without a limit would have."""

    async def dead_letters(self, bot_id: str | None, limit: int) -> list[tuple[DeadLetter, LogMessage | None]]:
        """List dead letters, newest first, of one bot or of all."""

    async def sizes(self) -> dict[str, int]:
        """Give the number of messages and the bytes that the database and its WAL take on disk."""


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
