"""Everything that can go wrong: the package's one tree of errors.

- `BusError` is the root of what a bot's author can meet. A `RequestError` among them is an answer: a call was
  refused, and its `code` says why. The others say that no answer came, or what became of a run.
- `Refused` is a RequestError of the store's: nothing of that one call was stored, and the calls beside it stand.
- `StoreFailure` is no BusError: the store itself cannot be used any more, and the process that has it must end.
- `StoreError` is all that a store raises, of either kind.

An error that the store raised and the same one that a worker reported are of one class, with the same attributes.
Its `details` are how these come over the wire (`docs/protocol.md`).

Each is imported, pickled and shown in a traceback as one of `bus.errors`, whichever module defines it.

Pure, and imports nothing of the package, so that all of it may import this.
"""

from __future__ import annotations

from .portable import Portable
from .reported import request_error
from .requests import (
    AddressError,
    BindError,
    BotConflict,
    BusError,
    ClosedError,
    Forbidden,
    IdConflict,
    InvalidBody,
    LimitReached,
    MalformedAnswer,
    ReplyTimeout,
    RequestError,
    UnknownBot,
    UnknownChannel,
    UnsupportedProtocol,
    WorkerUnavailable,
)
from .running import (
    ENDED,
    NOT_NOW,
    Rejected,
    RunBusy,
    RunCancelled,
    RunError,
    RunFailed,
    RunLost,
    StepChanged,
    StepFailed,
    UnknownWorkflow,
)
from .storing import (
    Conflict,
    DatabaseDamaged,
    DatabaseInUse,
    DatabaseLocked,
    DatabaseNewer,
    DatabaseUnusable,
    DefinitionInUse,
    Fenced,
    InvalidTransition,
    InvalidValue,
    NotFound,
    NotInFlight,
    RecordDamaged,
    Refused,
    RunHeld,
    RunPaused,
    SlotsTaken,
    StorageBusy,
    StorageFull,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreFailure,
    TooLarge,
)

__all__ = [
    "ENDED",
    "NOT_NOW",
    "AddressError",
    "BindError",
    "BotConflict",
    "BusError",
    "ClosedError",
    "Conflict",
    "DatabaseDamaged",
    "DatabaseInUse",
    "DatabaseLocked",
    "DatabaseNewer",
    "DatabaseUnusable",
    "DefinitionInUse",
    "Fenced",
    "Forbidden",
    "IdConflict",
    "InvalidBody",
    "InvalidTransition",
    "InvalidValue",
    "LimitReached",
    "MalformedAnswer",
    "NotFound",
    "NotInFlight",
    "Portable",
    "RecordDamaged",
    "Refused",
    "Rejected",
    "ReplyTimeout",
    "RequestError",
    "RunBusy",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunHeld",
    "RunLost",
    "RunPaused",
    "SlotsTaken",
    "StepChanged",
    "StepFailed",
    "StorageBusy",
    "StorageFull",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "StoreFailure",
    "TooLarge",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WorkerUnavailable",
    "request_error",
]

for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
