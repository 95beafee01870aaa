"""A durable message bus for bots.

import bus

bot = bus.Bot("greeter", "tcp://127.0.0.1:7710")

@bot.on_message()
async def greet(message):
    return {"text": f"hello, {message.sender}"}

bot.run()
"""

from __future__ import annotations

from .bot import DEFAULT_TAP_URL, DEFAULT_URL, Bot, connect
from .client.draft import Draft
from .client.message import Message, Receipt
from .errors import (
    AddressError,
    BotConflict,
    BusError,
    ClosedError,
    Conflict,
    DefinitionInUse,
    Fenced,
    Forbidden,
    IdConflict,
    InvalidBody,
    InvalidTransition,
    InvalidValue,
    LimitReached,
    NotFound,
    NotInFlight,
    RecordDamaged,
    Rejected,
    ReplyTimeout,
    RequestError,
    RunBusy,
    RunCancelled,
    RunError,
    RunFailed,
    RunHeld,
    RunLost,
    RunPaused,
    SlotsTaken,
    StepChanged,
    StepFailed,
    StorageBusy,
    StorageFull,
    TooLarge,
    UnknownBot,
    UnknownChannel,
    UnknownWorkflow,
    UnsupportedProtocol,
    WorkerUnavailable,
)
from .model.records import (
    BotOwner,
    Claim,
    GlobalOwner,
    Lease,
    RetryPolicy,
    RunStatus,
    RunSummary,
    StepStatus,
    StepType,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStep,
    WorkflowStepLog,
    timestamp,
)
from .runs.commits import CommitReceipt
from .runs.replay import Retry
from .runs.run import Run
from .wire.frames import StoredMessage

__all__ = [
    "DEFAULT_TAP_URL",
    "DEFAULT_URL",
    "AddressError",
    "Bot",
    "BotConflict",
    "BotOwner",
    "BusError",
    "Claim",
    "ClosedError",
    "CommitReceipt",
    "Conflict",
    "DefinitionInUse",
    "Draft",
    "Fenced",
    "Forbidden",
    "GlobalOwner",
    "IdConflict",
    "InvalidBody",
    "InvalidTransition",
    "InvalidValue",
    "Lease",
    "LimitReached",
    "Message",
    "NotFound",
    "NotInFlight",
    "Receipt",
    "RecordDamaged",
    "Rejected",
    "ReplyTimeout",
    "RequestError",
    "Retry",
    "RetryPolicy",
    "Run",
    "RunBusy",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunHeld",
    "RunLost",
    "RunPaused",
    "RunStatus",
    "RunSummary",
    "SlotsTaken",
    "StepChanged",
    "StepFailed",
    "StepStatus",
    "StepType",
    "StorageBusy",
    "StorageFull",
    "StoredMessage",
    "TooLarge",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WorkerUnavailable",
    "WorkflowDefinition",
    "WorkflowRun",
    "WorkflowStep",
    "WorkflowStepLog",
    "connect",
    "timestamp",
]
