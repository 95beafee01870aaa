"""What a store can do, whatever its backend.

Owns the protocols that a backend implements. Those of workflows are in `workflows`, and the values that the broker
and the log exchange in `changes`; all can be imported from here. All methods may wait; all raise only `bus.errors`.
Nothing here knows SQL.

Pure: no clock, no randomness, no I/O. Times come in as text in the stored form (`records.timestamp`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from .changes import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    AddFirstMessages,
    AddKey,
    AddMessages,
    AddPattern,
    AddSubscription,
    Applied,
    Change,
    Committed,
    CommitWork,
    DeadLetter,
    DelayedRequest,
    FindRequest,
    Group,
    HistoryRequest,
    LogState,
    MailboxState,
    NotCommitted,
    NoteKeyUse,
    PatternSubscription,
    Released,
    ReleaseDue,
    RemoveDeadLetters,
    RemoveMessages,
    RemovePattern,
    RemoveSubscription,
    RevokeKeys,
    SaveMailbox,
    SeenBot,
    Subscribed,
    Subscription,
    UnsettledState,
    group_mailbox_id,
    timestamp_of,
)
from .compacting import Compacted
from .counting import Counted
from .erasing import (
    Delayed,
    Erase,
    Erased,
    ErasedValue,
    FoundContents,
    FoundRun,
    FoundValue,
    Removal,
    SearchRequest,
)
from .keyed import KeyedRepository, KeyedSwept, KeyedWrite, StoredValue, SweepKeyed
from .keys import Key
from .leadership import Tenure
from .lots import (
    DUE_AT_ONCE,
    Added,
    Appended,
    LogMessage,
    Lot,
    NewMessage,
    Outcome,
    StoredLot,
    each,
    joined,
    lots_of,
    outcome_of,
    outcomes_of,
    stored_lots,
)
from .pages import Page, PageRequest
from .records import BotMessage, BotSubscription, Channel
from .removing import (
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    DiscardDeadLetters,
    EndPattern,
    EndSubscription,
    Looked,
    PurgeMailbox,
    Remove,
    RemoveBot,
    Removed,
    What,
)
from .room import Room
from .run_changes import Recovered, RecoverRuns, RemoveRuns, Started, StartScheduled
from .security import AddSecurityEvents, RemoveSecurityEvents, SecurityEvent, SecurityRequest, SecuritySpan
from .surveys import EndedRun, RunSurvey, Surveyed, SurveyedRuns, SurveyRequest
from .workflows import (
    RunNews,
    RunOwners,
    StepCreation,
    StepMove,
    WorkflowRepository,
    WorkflowRules,
    WorkflowStore,
)

__all__ = [
    "DUE_AT_ONCE",
    "AddBot",
    "AddChannel",
    "AddDeadLetters",
    "AddFirstMessages",
    "AddKey",
    "AddMessages",
    "AddPattern",
    "AddSecurityEvents",
    "AddSubscription",
    "Added",
    "Appended",
    "Applied",
    "CancelDelayed",
    "Change",
    "CloseChannel",
    "CloseGroup",
    "CommitWork",
    "Committed",
    "Compacted",
    "Counted",
    "DeadLetter",
    "Delayed",
    "DelayedRequest",
    "DiscardDeadLetters",
    "EndPattern",
    "EndSubscription",
    "EndedRun",
    "Erase",
    "Erased",
    "ErasedValue",
    "FindRequest",
    "FoundContents",
    "FoundRun",
    "FoundValue",
    "Group",
    "HistoryRequest",
    "Key",
    "KeyedRepository",
    "KeyedSwept",
    "KeyedWrite",
    "LogMessage",
    "LogState",
    "Looked",
    "Lot",
    "MailboxState",
    "MessageLog",
    "MessageRepository",
    "NewMessage",
    "NotCommitted",
    "NoteKeyUse",
    "Outcome",
    "Page",
    "PageRequest",
    "PatternSubscription",
    "PurgeMailbox",
    "RecoverRuns",
    "Recovered",
    "ReleaseDue",
    "Released",
    "Removal",
    "Remove",
    "RemoveBot",
    "RemoveDeadLetters",
    "RemoveMessages",
    "RemovePattern",
    "RemoveRuns",
    "RemoveSecurityEvents",
    "RemoveSubscription",
    "Removed",
    "RevokeKeys",
    "RunNews",
    "RunOwners",
    "RunSurvey",
    "SaveMailbox",
    "SearchRequest",
    "SecurityEvent",
    "SecurityRequest",
    "SecuritySpan",
    "SeenBot",
    "StartScheduled",
    "Started",
    "StepCreation",
    "StepMove",
    "Store",
    "StoreCheck",
    "StoreWatch",
    "StoredLot",
    "StoredValue",
    "Subscribed",
    "Subscription",
    "SurveyRequest",
    "Surveyed",
    "SurveyedRuns",
    "SweepKeyed",
    "UnsettledState",
    "What",
    "WorkflowRepository",
    "WorkflowRules",
    "WorkflowStore",
    "each",
    "group_mailbox_id",
    "joined",
    "lots_of",
    "outcome_of",
    "outcomes_of",
    "stored_lots",
    "timestamp_of",
]


# ── The repository of messages ───────────────────────────────────────────────────────────────────────────


class MessageRepository(Protocol):
    """Messages, channels and subscriptions, as an audit trail needs them.

    Every write is on disk when its call returns. A running worker's log is written through its bus, not here: a
    message saved here reaches a mailbox only when that mailbox next reads from the store.
    """

    async def save_message(self, message: BotMessage) -> None:
        """Append a message. Repeating it changes nothing; its id with other contents raises Conflict.

        An id is its sender's: another sender's message with that id is another message.
        """

    async def get_messages_between(self, bot_a: str, bot_b: str, limit: int = 50) -> list[BotMessage]:
        """Return the direct messages between two bots (ids), both ways, newest first by seq."""

    async def get_channel_messages(self, channel: str, limit: int = 50) -> list[BotMessage]:
        """Return a channel's messages, newest first by seq."""

    async def list_channels(self) -> list[Channel]:
        """List all channels by name."""

    async def create_channel(self, channel: Channel) -> None:
        """Create a channel; an existing one is left unchanged."""

    async def subscribe(self, subscription: BotSubscription) -> None:
        """Subscribe a bot to a channel from now on. Raise NotFound if the channel does not exist."""

    async def unsubscribe(self, bot_id: str, channel_name: str) -> bool:
        """End a subscription; return False if there was none."""

    async def get_subscriptions(self, bot_id: str) -> list[BotSubscription]:
        """List a bot's subscriptions by channel."""

    async def get_channel_subscribers(self, channel_name: str) -> list[str]:
        """List the ids of the bots that are subscribed to a channel."""


# ── The log, which the broker uses ───────────────────────────────────────────────────────────────────────


class MessageLog(Protocol):
    """The log of all messages in commit order, and the mailboxes' places in it."""

    async def load(self) -> LogState:
        """Return the state from which the broker resumes. Called once, before anything else."""

    async def apply(self, changes: Sequence[Change]) -> Applied:
        """Carry out changes in order, in one transaction, and return their answers after it is synced to disk.

        A log decides about the timestamp of the messages: a later one than the changes ask for is possible.
        StorageFull: nothing was stored, and the log remains usable. OwnershipLost: another worker
        writes the log now. After that and after StoreFailed it is unknown whether the changes were stored. A
        backend that can find out what became of a transaction does so before this returns.
        """

    async def read_page(self, request: PageRequest) -> Page:
        """Read part of a mailbox. It includes every message that was answered before the call."""

    async def survey(self, request: SurveyRequest) -> list[Surveyed]:
        """Return a part of the log, without contents, in the order of seqs."""

    async def survey_runs(self, survey: RunSurvey) -> SurveyedRuns:
        """Return runs that have ended, in the order in which they did, with the messages that have their ids."""

    async def locate(self, seqs: Sequence[int]) -> list[Surveyed]:
        """Return who sent these messages to whom, in the order of seqs; messages not in the log are left out."""

    async def find_ids(self, ids: Sequence[str]) -> dict[str, Surveyed]:
        """Return the first messages with these ids, without their contents."""

    async def look(self, change: Remove) -> Looked:
        """Return what a removal would do, or did before. It may take long, and no transaction waits for it."""

    async def count(self, request: PageRequest) -> dict[str, int]:
        """Count the direct messages that a page without limits would have, except its `seqs`, by their senders."""

    # Questions may take long, and one task asks one at a time. Cancelling it interrupts the question.

    async def seq_before(self, at: str) -> int:
        """Return the last seq whose timestamp is before `at`, or 0 if there is none."""

    async def history(self, request: HistoryRequest) -> list[LogMessage]:
        """Return a conversation in the order that is asked for. Raise RecordDamaged if a record is damaged."""

    async def thread(self, request: FindRequest, *, before_seq: int | None, limit: int) -> list[int]:
        """Return the seqs of a message's thread, newest first; none if the message is not in the log.

        A thread is the message, those that it goes back to by `reply_to`, and all replies to any of these. A reply
        belongs to the message with that id that its recipient sent; if there is none, to those on its channel; if
        there are none, to all with that id. A message that belongs to several goes back to the first of them.
        """

    async def messages(self, seqs: Sequence[int]) -> list[LogMessage]:
        """Return these messages, newest first; those not in the log are left out. Raise RecordDamaged."""

    async def find(self, request: FindRequest) -> NewMessage | None:
        """Return a message: a LogMessage, or one that is not due yet. Raise RecordDamaged if it is damaged."""

    async def delayed(self, request: DelayedRequest) -> list[NewMessage]:
        """Return messages that are not due yet, in the order in which they will be; damaged ones are left out."""

    async def channel_counts(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of messages of each of these channels."""

    async def backlogs(self, requests: Sequence[PageRequest]) -> list[int]:
        """Count, for each request, the messages that a page without limits would have, except its `seqs`."""

    async def peek(self, request: PageRequest) -> Page:
        """Read part of a mailbox as `read_page` does, for somebody who only looks."""

    async def given_up(self, seq: int, mailbox_ids: Sequence[str]) -> list[DeadLetter]:
        """Return what is recorded of a message in those of these mailboxes of which it is a dead letter."""

    async def dead_letters(
        self, mailbox_id: str | None, limit: int, offset: int = 0
    ) -> list[tuple[DeadLetter, LogMessage | None]]:
        """List dead letters, newest first, of one mailbox or of all, without the first `offset` ones."""

    async def security_events(self, request: SecurityRequest) -> list[tuple[SecurityEvent, bool]]:
        """Return security events, each with whether it is as it was stored."""

    async def search(self, request: SearchRequest) -> FoundContents:
        """Return the messages and runs that contain something, in portions: a bounded part of the store each."""

    async def removals(self, after: int, limit: int) -> list[Removal]:
        """Return the records of removals, in their order: those after a number."""

    async def scrub(self, at: str) -> None:
        """Leave nothing of what was removed in the files of the database, and note the time.

        Nothing is stored meanwhile. Raise StorageBusy if another program reads the database, and StorageFull if
        there is no room. It may be repeated.
        """

    async def compact(self, *, dry_run: bool) -> Compacted:
        """Return a portion of the free room to the system, while it is used; with `dry_run`, only say how much.

        Raise Conflict if that is not the way of this store, or not before it was scrubbed. Raise StorageBusy if all
        is free to go, but another program reads the database. It may be repeated.
        """

    async def sizes(self) -> dict[str, int]:
        """Return the numbers of `messages` in the log, `scheduled` and `kv_keys`, and the `database_bytes`.

        A store that has a write-ahead log of its own adds its `wal_bytes`, and one that knows its disk the
        `free_bytes` of that.
        """

    async def room(self) -> Room:
        """Return how large the store is and what its disk has free, in a moment, however large it is."""


def _untold(before: str, after: str) -> None:
    pass


class StoreWatch(msgspec.Struct, frozen=True, kw_only=True):
    """Receives what a store tells its operators while it is open."""

    warn: Callable[[str], None]
    """Is called with a warning, one sentence."""
    migrated: Callable[[str, str], None] = _untold
    """Is called with the last migration before and after the schema was migrated; not of a new database."""
    wal_warning_bytes: int
    """The size of the write-ahead log from which on to warn, for a store that has one of its own."""


class StoreCheck(Protocol):
    """A check of a whole store: exhaust `run`, and then read the findings. The store may be in use."""

    damage: list[str]
    """What is lost or altered, one line each."""
    warnings: list[str]
    """What is worth knowing, one line each."""
    counts: dict[str, int]
    """Numbers of messages, scheduled_messages, channels, bots, subscriptions, workflow_runs; and last_seq."""

    @property
    def database(self) -> str:
        """What is checked."""

    def run(self) -> Iterator[tuple[str, int, int | None]]:
        """Read everything; yield the current part, how much of it is done, and its total if that is known.

        Raises DatabaseDamaged or DatabaseNewer if the store cannot be checked, and DatabaseUnusable or
        DatabaseLocked if it cannot be read, regardless of its contents.
        """


class Store(Protocol):
    """An open store. All attributes share the one writer, and so one sync per group of writes."""

    log: MessageLog
    messages: MessageRepository
    workflows: WorkflowStore
    keyed: KeyedRepository
    warnings: list[str]
    """What operators should know, one sentence each."""
    tenure: Tenure | None
    """The time as the leader, if it was opened for one of several workers."""

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that the store uses, by name."""
