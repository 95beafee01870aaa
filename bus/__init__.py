"""A durable message bus for bots.

import bus

bot = bus.Bot("greeter", "tcp://127.0.0.1:7710")

@bot.on_message()
async def greet(message):
    return {"text": f"hello, {message.sender}"}

bot.run()
"""

from __future__ import annotations

from .client import DEFAULT_TAP_URL, DEFAULT_URL, Bot, connect
from .draft import Draft
from .errors import (
    AddressError,
    BotConflict,
    BusError,
    ClosedError,
    Conflict,
    Forbidden,
    IdConflict,
    InvalidBody,
    LimitReached,
    NotFound,
    NotInFlight,
    Rejected,
    ReplyTimeout,
    RequestError,
    RunBusy,
    RunCancelled,
    RunError,
    RunFailed,
    RunLost,
    StepChanged,
    StepFailed,
    StorageFull,
    TooLarge,
    UnknownBot,
    UnknownChannel,
    UnknownWorkflow,
    UnsupportedProtocol,
    WorkerUnavailable,
)
from .message import Message, Receipt
from .protocol import StoredMessage
from .remote_commits import CommitReceipt
from .replay import Retry
from .run import Run

__all__ = [
    "DEFAULT_TAP_URL",
    "DEFAULT_URL",
    "AddressError",
    "Bot",
    "BotConflict",
    "BusError",
    "ClosedError",
    "CommitReceipt",
    "Conflict",
    "Draft",
    "Forbidden",
    "IdConflict",
    "InvalidBody",
    "LimitReached",
    "Message",
    "NotFound",
    "NotInFlight",
    "Receipt",
    "Rejected",
    "ReplyTimeout",
    "RequestError",
    "Retry",
    "Run",
    "RunBusy",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunLost",
    "StepChanged",
    "StepFailed",
    "StorageFull",
    "StoredMessage",
    "TooLarge",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WorkerUnavailable",
    "connect",
]
