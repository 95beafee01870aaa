"""What the broker and the log say to each other: changes, answers, mailbox states, pages.

Owns these values, and nothing that is done with them. Times are text in the one stored form (`records.timestamp`).

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import RecordDamaged, Refused
from .records import BotRecord, Channel, RecoveredRun, RunStatus, WorkflowStepLog

__all__ = [
    "AddBot",
    "AddChannel",
    "AddDeadLetters",
    "AddMessages",
    "AddSubscription",
    "Added",
    "Change",
    "ChannelSummary",
    "CommitWork",
    "Committed",
    "DeadLetter",
    "Group",
    "HistoryRequest",
    "LogMessage",
    "LogState",
    "MailboxState",
    "NewMessage",
    "NotCommitted",
    "Page",
    "PageRequest",
    "RecoverRuns",
    "Recovered",
    "ReleaseDue",
    "Released",
    "RemoveDeadLetters",
    "RemoveMessages",
    "RemoveSubscription",
    "SaveMailbox",
    "SeenBot",
    "Subscribed",
    "Subscription",
    "SurveyRequest",
    "Surveyed",
    "UnsettledState",
    "group_mailbox_id",
]


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

    bot: BotRecord


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
    """Append those of the scheduled messages that are due, the earliest first. Answered `Released`.

    At most `messages_max` at once, and no more than some `bytes_max` of bodies. They are stamped with `timestamp`,
    which may be ahead of the clock; due is what is due at `until`, and None means that same time.
    """

    timestamp: str
    messages_max: int
    bytes_max: int = 8 * 1024 * 1024
    until: str | None = None


class RemoveMessages(msgspec.Struct, frozen=True):
    """Remove messages from the log for good, by seq. The last one stays, because seqs go on from it.

    Answered with the number of those that there were.
    """

    seqs: tuple[int, ...]


class CommitWork(msgspec.Struct, frozen=True):
    """Carry out what a bot did for a run, whole or not at all: fence, steps, context, status, and messages.

    Each step is a record as it is to be afterwards. Answered `Committed` or `NotCommitted`. The same id again, with
    the same `digest` of its contents, is answered as the first time; one that is `known_only` is looked up for
    that, and answered None where it is not known. `number` is the broker's own, by which `SaveMailbox` names it.
    """

    id: str
    bot_id: str
    digest: str
    run_id: str | None
    fence: int | None
    steps: Sequence[WorkflowStepLog]
    status: RunStatus | None
    error: str | None
    context: Any
    messages: Sequence[NewMessage]
    channels: Sequence[Channel]
    known_only: bool
    timestamp: str
    number: int


class RecoverRuns(msgspec.Struct, frozen=True):
    """End the holds of runs whose lease ran out, and notify each last holder by a message from `sender_name`.

    Answered `Recovered`.
    """

    runs_max: int
    sender_id: str
    sender_name: str
    timestamp: str


class UnsettledState(msgspec.Struct, frozen=True, array_like=True):
    """A message at or below a mailbox's position that is not settled.

    `due_at` is when it comes again, by the wall clock, where it rests for `delay` seconds; None where it is due.
    `retried` says that it was a dead letter, and is owed whether its channel was left or not. `vanished` has the
    clients that failed it by vanishing, one a failure.
    """

    seq: int
    attempt: int
    failures: int
    due_at: str | None = None
    delay: float = 0.0
    retried: bool = False
    vanished: tuple[str, ...] = ()


class MailboxState(msgspec.Struct, frozen=True):
    """What a mailbox keeps on disk.

    Of the mailbox's messages above `position` none was handed out, and of those at or below it, `unsettled`
    has the ones still owed. `floors` has a seq for each source (a channel, or "" for direct messages) whose
    messages up to there were handed out although they may lie above `position`. `ahead` has the seqs above it that
    were handed out before their turn and are settled: replies that somebody waited for, and what was in flight when
    the position went back. `gap` is the range in which it lost messages, both ends included, and nobody was told
    yet.

    A mailbox's id is that of its bot, or `channel/group`, which no bot's is.
    """

    mailbox_id: str
    position: int
    unsettled: tuple[UnsettledState, ...] = ()
    floors: dict[str, int] = {}
    ahead: tuple[int, ...] = ()
    gap: tuple[int, int] | None = None

    def without(self, seqs: Collection[int]) -> MailboxState:
        """Return the state in which these are settled as well; what is above the position has yet to come."""
        owed = {item.seq for item in self.unsettled}
        ahead = {*self.ahead, *(seq for seq in seqs if seq in owed and seq > self.position)}
        unsettled = tuple(item for item in self.unsettled if item.seq not in seqs)
        return msgspec.structs.replace(self, unsettled=unsettled, ahead=tuple(sorted(ahead)))


class SaveMailbox(msgspec.Struct, frozen=True):
    """Replace a mailbox's state.

    `settled_by` has, by the number of a commit, what that one settles: where it is answered `Committed` in the same
    transaction.
    """

    state: MailboxState
    settled_by: Mapping[int, Collection[int]] = {}


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
    """Remove dead letters, to be delivered again. The answer is the seqs of those that existed."""

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
    | CommitWork
    | RecoverRuns
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


class Committed(msgspec.Struct, frozen=True):
    """A commit was carried out. `seqs` has the place of each message, None for one that waits until it is due.

    `added` says what became of the messages; None where all this had happened before.
    """

    seqs: list[int | None]
    added: list[Added] | None = None


class NotCommitted(msgspec.Struct, frozen=True):
    """A commit was refused, or what it changes is damaged; nothing of it was stored."""

    error: Refused | RecordDamaged


class Recovered(msgspec.Struct, frozen=True):
    """Runs were given up, and these messages say so to their last holders."""

    runs: list[RecoveredRun]
    messages: list[LogMessage]


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
    """Return the id of a group's mailbox: no bot has one with a slash."""
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
    bots: list[BotRecord]
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
    """A message without its contents; `size_bytes` is that of its body and headers."""

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
