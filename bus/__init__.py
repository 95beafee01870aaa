"""A durable message bus for bots.

import bus

bot = bus.Bot("greeter", "tcp://127.0.0.1:7710")

@bot.on_message()
async def greet(message):
    return {"text": f"hello, {message.sender}"}

bot.run()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from . import sync
    from .bot import DEFAULT_TAP_URL, DEFAULT_URL, Bot, connect
    from .client.credentials import Credentials
    from .client.draft import Draft, Reply
    from .client.keyed import KeyedChange, KeyedStore, KeyedValue
    from .client.message import Message
    from .client.middleware import Middleware
    from .client.requesting import Gathered, Inquiry
    from .client.sending import Sending
    from .client.waiting import Receipt
    from .errors import (
        AddressError,
        ApprovalTimedOut,
        BotConflict,
        BudgetSpent,
        BusError,
        ChangesForgotten,
        ClosedError,
        Conflict,
        CredentialsError,
        DefinitionInUse,
        FailRun,
        Fenced,
        Forbidden,
        HandshakeError,
        IdConflict,
        InvalidBody,
        InvalidKey,
        InvalidTransition,
        InvalidValue,
        KeyRefused,
        KeysRequired,
        KeysUnsupported,
        LimitReached,
        LogReplaced,
        MalformedAnswer,
        NotFound,
        NotInFlight,
        RecordDamaged,
        Rejected,
        ReplyTimeout,
        RequestError,
        ResultTimeout,
        RevisionConflict,
        Revoked,
        RunBusy,
        RunCancelled,
        RunEnded,
        RunError,
        RunFailed,
        RunGivenUp,
        RunHeld,
        RunLost,
        RunNotDue,
        RunPaused,
        SlotsTaken,
        StepChanged,
        StepFailed,
        StorageBusy,
        StorageFull,
        SubscriptionRemoved,
        SuccessorDeleted,
        TooLarge,
        TooManyKeys,
        TooManySignals,
        UnfitBody,
        UnknownBot,
        UnknownChannel,
        UnknownWorkflow,
        UnsupportedProtocol,
        WaitTimedOut,
        WorkerUnavailable,
        WrongWorker,
    )
    from .model import events
    from .model.filters import RunCount, RunCounts, RunFilter
    from .model.occurrences import CronTimes, IntervalTimes
    from .model.records import (
        BotOwner,
        Claim,
        GlobalOwner,
        Lease,
        RetryPolicy,
        RunStatus,
        RunSummary,
        Signal,
        StepPage,
        StepStatus,
        StepType,
        WorkflowDefinition,
        WorkflowRun,
        WorkflowStep,
        WorkflowStepLog,
        timestamp,
    )
    from .model.schedules import CatchUp, Overlap, ScheduleStatus, WorkflowSchedule
    from .runs.calling import step_threads
    from .runs.commits import CommitReceipt
    from .runs.handle import RunHandle
    from .runs.replay import Retry
    from .runs.run import Run
    from .wire.answers import (
        EventList,
        FoundMessage,
        KeptMessage,
        KeyAdded,
        KeysRevoked,
        ListedBot,
        ListedChannel,
        ListedDeadLetter,
        ListedDelayed,
        ListedEvent,
        ListedKey,
        ListedPattern,
        ListedSecurityEvent,
        ListedSession,
        ListedSubscription,
        ListedWill,
        MailboxContents,
        MayAnswer,
        Reloaded,
        WorkerStatus,
    )
    from .wire.frames import StoredMessage

__all__ = [
    "DEFAULT_TAP_URL",
    "DEFAULT_URL",
    "AddressError",
    "ApprovalTimedOut",
    "Bot",
    "BotConflict",
    "BotOwner",
    "BudgetSpent",
    "BusError",
    "CatchUp",
    "ChangesForgotten",
    "Claim",
    "ClosedError",
    "CommitReceipt",
    "Conflict",
    "Credentials",
    "CredentialsError",
    "CronTimes",
    "DefinitionInUse",
    "Draft",
    "EventList",
    "FailRun",
    "Fenced",
    "Forbidden",
    "FoundMessage",
    "Gathered",
    "GlobalOwner",
    "HandshakeError",
    "IdConflict",
    "Inquiry",
    "IntervalTimes",
    "InvalidBody",
    "InvalidKey",
    "InvalidTransition",
    "InvalidValue",
    "KeptMessage",
    "KeyAdded",
    "KeyRefused",
    "KeyedChange",
    "KeyedStore",
    "KeyedValue",
    "KeysRequired",
    "KeysRevoked",
    "KeysUnsupported",
    "Lease",
    "LimitReached",
    "ListedBot",
    "ListedChannel",
    "ListedDeadLetter",
    "ListedDelayed",
    "ListedEvent",
    "ListedKey",
    "ListedPattern",
    "ListedSecurityEvent",
    "ListedSession",
    "ListedSubscription",
    "ListedWill",
    "LogReplaced",
    "MailboxContents",
    "MalformedAnswer",
    "MayAnswer",
    "Message",
    "Middleware",
    "NotFound",
    "NotInFlight",
    "Overlap",
    "Receipt",
    "RecordDamaged",
    "Rejected",
    "Reloaded",
    "Reply",
    "ReplyTimeout",
    "RequestError",
    "ResultTimeout",
    "Retry",
    "RetryPolicy",
    "RevisionConflict",
    "Revoked",
    "Run",
    "RunBusy",
    "RunCancelled",
    "RunCount",
    "RunCounts",
    "RunEnded",
    "RunError",
    "RunFailed",
    "RunFilter",
    "RunGivenUp",
    "RunHandle",
    "RunHeld",
    "RunLost",
    "RunNotDue",
    "RunPaused",
    "RunStatus",
    "RunSummary",
    "ScheduleStatus",
    "Sending",
    "Signal",
    "SlotsTaken",
    "StepChanged",
    "StepFailed",
    "StepPage",
    "StepStatus",
    "StepType",
    "StorageBusy",
    "StorageFull",
    "StoredMessage",
    "SubscriptionRemoved",
    "SuccessorDeleted",
    "TooLarge",
    "TooManyKeys",
    "TooManySignals",
    "UnfitBody",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WaitTimedOut",
    "WorkerStatus",
    "WorkerUnavailable",
    "WorkflowDefinition",
    "WorkflowRun",
    "WorkflowSchedule",
    "WorkflowStep",
    "WorkflowStepLog",
    "WrongWorker",
    "connect",
    "events",
    "step_threads",
    "sync",
    "timestamp",
]

_MODULES = (
    "errors",
    "model.records",
    "model.filters",
    "model.occurrences",
    "model.schedules",
    "runs.replay",
    "wire.frames",
    "wire.answers",
    "client.credentials",
    "client.draft",
    "client.waiting",
    "client.message",
    "client.sending",
    "client.middleware",
    "client.keyed",
    "client.requesting",
    "runs.calling",
    "runs.commits",
    "runs.handle",
    "runs.run",
    "bot",
)
"""Where the names are defined. When a name is first used, these modules are imported up to the one that defines it,
because a command or a store needs few of them. So each comes after those that it imports itself."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("posthouse")
    if name in ("errors", "sync"):
        return import_module(f".{name}", __name__)
    if name == "events":
        return import_module(".model.events", __name__)
    if name in __all__:
        for place in _MODULES:
            module = import_module(f".{place}", __name__)
            if name in module.__all__:
                value = globals()[name] = getattr(module, name)
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
