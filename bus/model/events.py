"""What the worker tells of itself, on a channel of its own: the kinds of events, and their messages.

Owns the body of each kind. An event is about one subject, such as a bot, or sums up many: then its subject is None.
Later versions may add kinds and fields.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self, get_args

import msgspec

from .lots import DUE_AT_ONCE, Lot, NewMessage
from .records import EVENTS_CHANNEL, PRESENCE_CHANNEL, WORKER_ID, WORKER_NAME, RecoveredRun, WorkflowStepLog
from .room import RoomLevel

__all__ = [
    "DUPLICATE",
    "LISTED_MAX",
    "ApprovalWaiting",
    "CrashedRun",
    "DeadLettersAdded",
    "DeadMessage",
    "EventBody",
    "MailboxDrained",
    "MailboxFilling",
    "MessagesRemoved",
    "Noticed",
    "PresenceConnected",
    "PresenceEnded",
    "PresenceVanished",
    "RunsCrashed",
    "SessionEnded",
    "SessionOpened",
    "SessionVanished",
    "StorageDrained",
    "StorageFilled",
    "StorageFilling",
    "ThreadEnded",
    "WillDropped",
    "WillSent",
    "WorkerEvent",
    "WorkerServing",
    "approval_waiting",
    "due_event",
    "event_lot",
    "read_event",
    "runs_crashed",
]

LISTED_MAX = 10
"""An event lists so many of what it counts: enough to see what it is about. The rest is where it always was."""


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """What every event has in common."""

    message_type: ClassVar[str]
    channel: ClassVar[str] = EVENTS_CHANNEL
    """Where it is told."""


class Noticed(EventBody, frozen=True, kw_only=True):
    """An event that is noticed in memory: when it happened last, and how often since it was told before."""

    at: str
    times: int = 1
    rest_seconds: ClassVar[float] = 10.0
    """For how long the same of the same subject is not told again."""

    @property
    def topic(self) -> str:
        """Of which kind it is: of a later event of the same topic and subject, only that one is told."""
        return self.message_type

    @property
    def subject(self) -> str | None:
        """Whom it is about."""
        return None

    def after(self, earlier: Self) -> Self:
        """Return this event with what an earlier one of the same subject would have told."""
        return msgspec.structs.replace(self, times=self.times + earlier.times)

    def summed_up(self) -> Self:
        """Return the event as one about nobody in particular."""
        return self


class _OfBot(Noticed, frozen=True, kw_only=True):
    bot: str | None
    """None if it sums up those of many bots."""

    @property
    def subject(self) -> str | None:
        return self.bot

    def summed_up(self) -> Self:
        return msgspec.structs.replace(self, bot=None)


class _Session(_OfBot, frozen=True, kw_only=True):
    sessions: int
    """How many sessions the bot has after it; how many there are, if it is about many bots."""


class SessionOpened(_Session, frozen=True, kw_only=True):
    """A bot opened a session."""

    message_type = "session.opened"
    client: str | None = None
    """What its client says that it is."""


class SessionEnded(_Session, frozen=True, kw_only=True):
    """A bot ended a session, or replaced it by a new one."""

    message_type = "session.ended"


class SessionVanished(_Session, frozen=True, kw_only=True):
    """A session ended because its connection broke, or was silent for too long."""

    message_type = "session.vanished"


class _Presence(_Session, frozen=True, kw_only=True):
    """Whether a bot is there: it is if it has `sessions`. Of several changes, the last one is told."""

    channel = PRESENCE_CHANNEL
    rest_seconds = 2.0
    session: str | None
    """The id of the session that was opened, or has ended; None if the event sums up those of many bots."""

    @property
    def topic(self) -> str:
        return self.channel

    def summed_up(self) -> Self:
        return msgspec.structs.replace(self, bot=None, session=None)


class PresenceConnected(_Presence, frozen=True, kw_only=True):
    """A bot opened a session."""

    message_type = "presence.connected"
    client: str | None = None
    """What its client says that it is."""


class PresenceEnded(_Presence, frozen=True, kw_only=True):
    """A bot ended a session, or replaced it by a new one."""

    message_type = "presence.ended"


class PresenceVanished(_Presence, frozen=True, kw_only=True):
    """A session ended because its connection broke, or was silent for too long."""

    message_type = "presence.vanished"


class _Mailbox(_OfBot, frozen=True, kw_only=True):
    waiting: int
    """How many direct messages wait."""
    messages_max: int
    """How many may."""


class MailboxFilling(_Mailbox, frozen=True, kw_only=True):
    """A bot's mailbox is nearly full: messages to it will be refused."""

    message_type = "mailbox.filling"


class MailboxDrained(_Mailbox, frozen=True, kw_only=True):
    """A mailbox that was filling has room again."""

    message_type = "mailbox.drained"


class MessagesRemoved(Noticed, frozen=True, kw_only=True):
    """Retention removed messages from the log. Those of this channel are not counted."""

    message_type = "messages.removed"
    messages: int

    def after(self, earlier: Self) -> Self:
        """Return this event with what an earlier one would have told."""
        messages = self.messages + earlier.messages
        return msgspec.structs.replace(self, times=self.times + earlier.times, messages=messages)


class StorageFilled(Noticed, frozen=True, kw_only=True):
    """Storage was full, and messages were refused. It can be told only when there is room again."""

    message_type = "storage.full"
    since: str

    def after(self, earlier: Self) -> Self:
        """Return this event with what an earlier one would have told."""
        return msgspec.structs.replace(self, times=self.times + earlier.times, since=earlier.since)


class _Storage(Noticed, frozen=True, kw_only=True):
    storage: RoomLevel
    """How much room is left now."""
    database_bytes: int
    free_bytes: int | None
    """What the disk has free; None if that is not known, as of an engine."""

    @property
    def topic(self) -> str:
        """Both kinds are one: of several changes, the last one is told."""
        return "storage"


class StorageFilling(_Storage, frozen=True, kw_only=True):
    """Little room is left, or even less than before."""

    message_type = "storage.filling"


class StorageDrained(_Storage, frozen=True, kw_only=True):
    """There is more room than before: enough, or only low."""

    message_type = "storage.drained"


class ThreadEnded(Noticed, frozen=True, kw_only=True):
    """An answer was refused, because nothing is left of the budget of its thread."""

    message_type = "thread.ended"
    bot: str | None
    """Who wanted to answer."""
    reply_to: str | None
    """The id of the message that was to be answered; like the bot, None if the event sums up many threads."""
    deadline: str | None
    """When the thread ended; None if it had no hops left."""

    @property
    def subject(self) -> str | None:
        """The message that was to be answered."""
        return self.reply_to

    def summed_up(self) -> Self:
        """Return the event as one about many threads."""
        return msgspec.structs.replace(self, bot=None, reply_to=None, deadline=None)


class WillSent(_OfBot, frozen=True, kw_only=True):
    """A bot vanished and did not return in time: its last will is in the log."""

    message_type = "will.sent"
    id: str | None
    """The id of its message; None if the event sums up many bots."""

    def summed_up(self) -> Self:
        """Return the event as one about many bots."""
        return msgspec.structs.replace(self, bot=None, id=None)


DUPLICATE = "duplicate"


class WillDropped(_OfBot, frozen=True, kw_only=True):
    """A bot vanished, and its last will was deleted without being sent."""

    message_type = "will.dropped"
    code: str
    """Why: the code of the error that sending it is, or DUPLICATE, if its bot had sent a message with its id."""


class WorkerServing(Noticed, frozen=True, kw_only=True):
    """A worker began to serve: it was started, or took over the lead."""

    message_type = "worker.serving"
    command: str
    """The address at which it listens."""
    version: str


class DeadMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One of the messages that a mailbox gave up on."""

    seq: int
    channel: str | None
    """None for a direct message, or if it is unknown."""
    reason: str
    attempts: int


class DeadLettersAdded(EventBody, frozen=True, kw_only=True):
    """A mailbox gave up on messages: they became dead letters in the transaction of the event."""

    message_type = "dead_letters.added"
    mailbox: str | None
    """A bot's name, or `channel/group`; None if it sums up those of many mailboxes."""
    dead_letters: int
    listed: tuple[DeadMessage, ...] = ()


class ApprovalWaiting(EventBody, frozen=True, kw_only=True):
    """A step began to wait for an approval, in the transaction of the event."""

    message_type = "approval.waiting"
    run_id: str
    step_id: str
    step_name: str
    id: str
    """Of its step log."""


class CrashedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose holder was lost."""

    run_id: str
    workflow_id: str
    workflow_name: str
    holder: str | None
    """The id of the bot that held it."""
    recoveries: int


class RunsCrashed(EventBody, frozen=True, kw_only=True):
    """The leases of runs expired: they are crashed since the transaction of the event."""

    message_type = "runs.crashed"
    runs: int
    listed: tuple[CrashedRun, ...]


WorkerEvent = (
    SessionOpened
    | SessionEnded
    | SessionVanished
    | MailboxFilling
    | MailboxDrained
    | MessagesRemoved
    | StorageFilled
    | StorageFilling
    | StorageDrained
    | ThreadEnded
    | WillSent
    | WillDropped
    | WorkerServing
    | DeadLettersAdded
    | ApprovalWaiting
    | RunsCrashed
    | PresenceConnected
    | PresenceEnded
    | PresenceVanished
)

_KINDS: dict[str, Any] = {kind.message_type: kind for kind in get_args(WorkerEvent)}


def read_event(message_type: str, body: Any) -> WorkerEvent | None:
    """Return the event that a message of the channel tells; None if this version does not know its kind.

    Raises msgspec.ValidationError if the body is not that of its kind.
    """
    kind = _KINDS.get(message_type)
    event: WorkerEvent | None = None if kind is None else msgspec.convert(body, kind)
    return event


def event_lot(events: Sequence[EventBody], ids: Sequence[str]) -> Lot:
    """Return events of one kind as messages with these ids."""
    bodies = [msgspec.json.encode(event) for event in events]
    first = events[0]
    return Lot(ids, bodies, None, WORKER_ID, WORKER_NAME, None, first.channel, first.message_type, b"{}")


def due_event(event: EventBody, id: str) -> NewMessage:
    """Return an event as a message that waits beside the log, and is due at once."""
    [message] = event_lot([event], [id]).messages()
    return msgspec.structs.replace(message, due_at=DUE_AT_ONCE)


def approval_waiting(step: WorkflowStepLog) -> ApprovalWaiting:
    """Return the event that a step waits for an approval."""
    return ApprovalWaiting(run_id=step.run_id, step_id=step.step_id, step_name=step.step_name, id=step.id)


def runs_crashed(recovered: Sequence[RecoveredRun]) -> RunsCrashed:
    """Return the event that runs lost their holders."""
    listed = [
        CrashedRun(
            run_id=run.id,
            workflow_id=run.workflow_id,
            workflow_name=run.workflow_name,
            holder=holder,
            recoveries=run.recoveries,
        )
        for run, holder in ((each.run, each.holder) for each in recovered[:LISTED_MAX])
    ]
    return RunsCrashed(runs=len(recovered), listed=tuple(listed))
