"""What the broker and the log exchange: changes, answers, and mailbox states.

Owns these values, and no behavior. Times are text in the stored form (`records.timestamp`).

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import RecordDamaged, Refused
from .erasing import Erase
from .keyed import KeyedWrite, SweepKeyed
from .keys import Key
from .lineage import EarlierLog
from .lots import LogMessage, Lot, Outcome
from .records import BotRecord, Channel, NewSignal, RunStatus, WorkflowRun, WorkflowStepLog
from .removing import Remove
from .run_changes import RecoverRuns, RemoveRuns, StartScheduled
from .security import AddSecurityEvents, RemoveSecurityEvents, SecuritySpan
from .subscriptions import (
    AddPattern,
    AddSubscription,
    Group,
    PatternSubscription,
    RemovePattern,
    RemoveSubscription,
    Subscribed,
    Subscription,
    group_mailbox_id,
)
from .workflows import CommitRights

__all__ = [
    "AddBot",
    "AddChannel",
    "AddDeadLetters",
    "AddFirstMessages",
    "AddKey",
    "AddMessages",
    "AddPattern",
    "AddSubscription",
    "Applied",
    "Change",
    "CommitWork",
    "Committed",
    "DeadLetter",
    "DelayedRequest",
    "FindRequest",
    "Group",
    "HistoryRequest",
    "LogState",
    "MailboxState",
    "NotCommitted",
    "NoteKeyUse",
    "PatternSubscription",
    "ReleaseDue",
    "Released",
    "RemoveDeadLetters",
    "RemoveMessages",
    "RemovePattern",
    "RemoveSubscription",
    "RevokeKeys",
    "SaveMailbox",
    "SeenBot",
    "Subscribed",
    "Subscription",
    "UnsettledState",
    "group_mailbox_id",
    "timestamp_of",
]


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


class AddMessages(msgspec.Struct, frozen=True):
    """Append messages with one timestamp; schedule those not due yet. Answered with an `Outcome` for each lot."""

    lots: Sequence[Lot]
    timestamp: str


class AddFirstMessages(msgspec.Struct, frozen=True):
    """Add messages like `AddMessages`, and create those of these channels on which one of them is stored.

    `subscriptions` are what patterns bring to the channels. Those to a channel that exists already change nothing.
    """

    lots: Sequence[Lot]
    timestamp: str
    channels: Sequence[Channel]
    subscriptions: Sequence[AddSubscription] = ()


class ReleaseDue(msgspec.Struct, frozen=True):
    """Append the scheduled messages that are due, the earliest first. Answered `Released`.

    At most `messages_max` at once, and not many more than `bytes_max` bytes of bodies. Their timestamp is
    `timestamp`, which may be ahead of the clock. They are due if they are at `until`; None means `timestamp`.
    """

    timestamp: str
    messages_max: int
    bytes_max: int = 8 * 1024 * 1024
    until: str | None = None


class RemoveMessages(msgspec.Struct, frozen=True):
    """Remove messages from the log for good, by seq. The last one stays, because new seqs follow it.

    Answered with the number of messages removed.
    """

    seqs: tuple[int, ...]


class CommitWork(msgspec.Struct, frozen=True):
    """Carry out a commit as a whole or not at all: fence, steps, context, status, and messages.

    Each step is a record as it is to be afterwards. Answered `Committed` or `NotCommitted`. Repeating an id with
    the same `digest` of its contents returns the first answer. With `known_only` it is only looked up for that, and
    answered None if it is not known. One that nobody repeats has no id, and leaves no record. `number` is assigned
    by the broker; `SaveMailbox` refers to it.
    """

    id: str | None
    bot_id: str
    digest: str
    run_id: str | None
    fence: int | None
    steps: Sequence[WorkflowStepLog]
    status: RunStatus | None
    error: str | None
    context: Any
    lots: Sequence[Lot]
    channels: Sequence[Channel]
    known_only: bool
    timestamp: str
    number: int
    as_holder: bool = False
    """Whether the fence must be that of the bot, and what waits for an approval is not to be answered."""
    result: Any = None
    runs: Sequence[WorkflowRun] = ()
    """Runs to create, for the run of the commit."""
    signals: Sequence[NewSignal] = ()
    sender: str = ""
    """The name of the bot, for signals."""
    rights: CommitRights | None = None
    """What the bot may do to other runs; None: everything."""
    values: Sequence[KeyedWrite] = ()
    subscriptions: Sequence[AddSubscription] = ()
    """What patterns bring to its `channels`. Those to a channel that exists already change nothing."""


class UnsettledState(msgspec.Struct, frozen=True, array_like=True):
    """An unsettled message, usually at or below the mailbox's position.

    `due_at` is when it is redelivered, by the wall clock, if it rests for `delay` seconds; None if it is due.
    `retried` says that it was a dead letter, and is delivered even if its channel was left. `vanished` lists the
    clients that failed it by vanishing, one per failure. `priority` is that of the message.
    """

    seq: int
    attempt: int
    failures: int
    due_at: str | None = None
    delay: float = 0.0
    retried: bool = False
    vanished: tuple[str, ...] = ()
    priority: int = 0


class MailboxState(msgspec.Struct, frozen=True):
    """What a mailbox keeps on disk.

    Of the mailbox's messages above `position` none was delivered in order. Of those at or below it, `unsettled` has
    the ones that are not settled. `floors` has a seq for each source (a channel, or "" for direct messages) whose
    messages up to there were delivered although they may lie above `position`. `ahead` has the seqs above it that
    were delivered ahead of their turn and are settled: awaited replies, and what was in flight when the position
    went back. In `floors`, "!" and a channel's name stand for a paused channel, and the seq up to which it was
    delivered; "^high" and "^low" stand for the bot's messages of that priority, of which those up to the seq were
    delivered, whatever the position. `gap` is the range in which it lost messages, both ends included, until a
    session has been notified.

    A mailbox's id is that of its bot, or `channel/group`, which is no bot's id.
    """

    mailbox_id: str
    position: int
    unsettled: tuple[UnsettledState, ...] = ()
    floors: dict[str, int] = {}
    ahead: tuple[int, ...] = ()
    gap: tuple[int, int] | None = None

    def without(self, seqs: Collection[int]) -> MailboxState:
        """Return the state with these settled as well; a seq above the position goes into `ahead`."""
        owed = {item.seq for item in self.unsettled}
        ahead = {*self.ahead, *(seq for seq in seqs if seq in owed and seq > self.position)}
        unsettled = tuple(item for item in self.unsettled if item.seq not in seqs)
        return msgspec.structs.replace(self, unsettled=unsettled, ahead=tuple(sorted(ahead)))


class SaveMailbox(msgspec.Struct, frozen=True):
    """Replace a mailbox's state.

    `settled_by` has, by the number of a commit, what that commit settles if it is answered `Committed` in the same
    transaction.
    """

    state: MailboxState
    settled_by: Mapping[int, Collection[int]] = {}


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that a mailbox gave up on. The `channel` that it came by, if that is known, is not stored."""

    mailbox_id: str
    seq: int
    reason: str
    attempts: int
    at: str
    channel: str | None = None


class AddDeadLetters(msgspec.Struct, frozen=True):
    """Store messages that a mailbox gave up on."""

    dead_letters: tuple[DeadLetter, ...]


class RemoveDeadLetters(msgspec.Struct, frozen=True):
    """Remove dead letters, to be redelivered. Answered with the seqs of those that existed."""

    mailbox_id: str
    seqs: tuple[int, ...]


class AddKey(msgspec.Struct, frozen=True):
    """Add a key, which must not be known. Answered None.

    The key that it `replaces` gets its `replaced_by`, and expires at `replaced_until`. The keys to `forget`, which
    ended long ago, are removed.
    """

    key: Key
    replaces: str | None = None
    replaced_until: str | None = None
    forget: tuple[str, ...] = ()


class RevokeKeys(msgspec.Struct, frozen=True):
    """Revoke keys for good; those revoked before stay as they are. Answered None."""

    public_keys: tuple[str, ...]
    at: str


class NoteKeyUse(msgspec.Struct, frozen=True):
    """Note when keys were last used."""

    used_at: Mapping[str, str]


Change = (
    AddBot
    | SeenBot
    | AddChannel
    | AddSubscription
    | RemoveSubscription
    | AddPattern
    | RemovePattern
    | AddMessages
    | AddFirstMessages
    | ReleaseDue
    | RemoveMessages
    | Erase
    | Remove
    | RemoveRuns
    | CommitWork
    | RecoverRuns
    | StartScheduled
    | SaveMailbox
    | AddDeadLetters
    | RemoveDeadLetters
    | AddKey
    | RevokeKeys
    | NoteKeyUse
    | AddSecurityEvents
    | RemoveSecurityEvents
    | SweepKeyed
)


class Applied(msgspec.Struct, frozen=True):
    """A batch of changes is on disk: the answer to each of them, and the timestamp of its messages."""

    answers: list[Any]
    at: str


def timestamp_of(changes: Iterable[Change]) -> str:
    """Return the timestamp that changes ask for; all that add messages ask for the same. "" if none does."""
    dated = AddMessages | AddFirstMessages | ReleaseDue | CommitWork | RecoverRuns | StartScheduled
    return next((change.timestamp for change in changes if isinstance(change, dated)), "")


class Committed(msgspec.Struct, frozen=True):
    """A commit was carried out. `seqs` has the place of each message, None for one that waits until it is due.

    `added` has the outcomes of the lots, and `revisions` those of the keyed values, 0 for a deletion that found
    nothing. If the commit had been carried out before, `added` is None and `revisions` is empty.
    """

    seqs: list[int | None]
    added: list[Outcome] | None = None
    revisions: Sequence[int] = ()


class NotCommitted(msgspec.Struct, frozen=True):
    """A commit was refused, or what it changes is damaged; nothing of it was stored.

    `error` is None if a message of it is tainted that must not be.
    """

    error: Refused | RecordDamaged | None


class Released(msgspec.Struct, frozen=True):
    """The messages that were due, as they are in the log now, and when the next one is due.

    `damaged` has the ids of those that did not match their checksums: they stay where they are, and never become
    due.
    """

    messages: list[LogMessage]
    next_due_at: str | None
    damaged: tuple[str, ...] = ()


class LogState(msgspec.Struct, frozen=True):
    """The state from which the broker resumes. `channels` pairs each with its last seq (0: none)."""

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
    patterns: list[PatternSubscription] = []
    prioritized: Sequence[tuple[str, int, int]] = ()
    """The last seq of each bot's messages of a priority that is not normal: the bot's id, the priority, the seq."""
    scheduled: Mapping[str, int] = {}
    """How many messages wait until they are due, by their senders."""
    next_due_at: str | None = None
    """When the first of them is due."""
    keys: list[Key] = []
    security: SecuritySpan = SecuritySpan()
    """The security events that are stored."""
    earlier: tuple[EarlierLog, ...] = ()
    """The logs that this one goes on from, the earliest first."""


class HistoryRequest(msgspec.Struct, frozen=True):
    """Which part of the log to return: either `between` or `channel`, newest first, or oldest first after a seq."""

    limit: int
    between: tuple[str, str] | None = None
    channel: str | None = None
    before_seq: int | None = None
    after_seq: int | None = None
    """If it is given, only later messages, oldest first."""


class DelayedRequest(msgspec.Struct, frozen=True):
    """Which delayed messages to return: of one sender or all, after one by its `due_at`, id and sender.

    If that one does not wait any more, they begin with the first that is due at its time.
    """

    limit: int
    sender_bot_id: str | None = None
    after: tuple[str, str, str] | None = None


class FindRequest(msgspec.Struct, frozen=True):
    """Which message to return, by its id; with `sender_bot_id`, that sender's.

    Several senders may have used the id. Then it is the asker's own, or else the first in the log that was sent to
    the asker or to a channel of `asker_channels`, or else the first in the log, or else the first that is delayed.
    """

    id: str
    sender_bot_id: str | None = None
    asker_bot_id: str | None = None
    asker_channels: Collection[str] = ()
