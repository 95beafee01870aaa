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
from .client.message import Message
from .client.waiting import Receipt
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
