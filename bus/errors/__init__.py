"""All errors of the package, in one tree.

- `BusError` is the root of what a bot's author can encounter. A `RequestError` is an answer: a call was refused,
  and its
  `code` says why. The others mean that no answer came, or report the outcome of a run.
- `Refused` is a RequestError from the store: nothing of that one call was stored, and concurrent calls are
  unaffected.
- `StoreFailure` is not a BusError: the store itself cannot be used any more, and its process must end.
- `StoreError` is everything that a store raises, of both kinds.

An error raised by the store and the same error reported by a worker have one class, with the same attributes. Its
`details` carry these over the wire (`docs/protocol.md`).

Each is imported, pickled and shown in tracebacks as one of `bus.errors`, whichever module defines it.

Pure, and imports nothing of the package, so that every module may import this.
"""

from __future__ import annotations

from .keys import (
    CredentialsError,
    HandshakeError,
    InvalidKey,
    KeyFileUnusable,
    KeyRefused,
    KeysRequired,
    KeysUnsupported,
    WrongWorker,
)
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
    Revoked,
    UnknownBot,
    UnknownChannel,
    UnsupportedProtocol,
    WorkerUnavailable,
)
from .running import (
    ENDED,
    MEANT,
    NOT_NOW,
    ApprovalTimedOut,
    FailRun,
    Rejected,
    ResultTimeout,
    RunBusy,
    RunCancelled,
    RunError,
    RunFailed,
    RunLost,
    StepChanged,
    StepFailed,
    SuccessorDeleted,
    UnknownWorkflow,
    WaitTimedOut,
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
    NotAllowed,
    NotFound,
    NotInFlight,
    RecordDamaged,
    Refused,
    RunEnded,
    RunGivenUp,
    RunHeld,
    RunNotDue,
    RunPaused,
    SlotsTaken,
    StorageBusy,
    StorageFull,
    StoreClosed,
    StoreError,
    StoreFailed,
    StoreFailure,
    TooLarge,
    TooManySignals,
    Unapproved,
)

__all__ = [
    "ENDED",
    "MEANT",
    "NOT_NOW",
    "AddressError",
    "ApprovalTimedOut",
    "BindError",
    "BotConflict",
    "BusError",
    "ClosedError",
    "Conflict",
    "CredentialsError",
    "DatabaseDamaged",
    "DatabaseInUse",
    "DatabaseLocked",
    "DatabaseNewer",
    "DatabaseUnusable",
    "DefinitionInUse",
    "FailRun",
    "Fenced",
    "Forbidden",
    "HandshakeError",
    "IdConflict",
    "InvalidBody",
    "InvalidKey",
    "InvalidTransition",
    "InvalidValue",
    "KeyFileUnusable",
    "KeyRefused",
    "KeysRequired",
    "KeysUnsupported",
    "LimitReached",
    "MalformedAnswer",
    "NotAllowed",
    "NotFound",
    "NotInFlight",
    "Portable",
    "RecordDamaged",
    "Refused",
    "Rejected",
    "ReplyTimeout",
    "RequestError",
    "ResultTimeout",
    "Revoked",
    "RunBusy",
    "RunCancelled",
    "RunEnded",
    "RunError",
    "RunFailed",
    "RunGivenUp",
    "RunHeld",
    "RunLost",
    "RunNotDue",
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
    "SuccessorDeleted",
    "TooLarge",
    "TooManySignals",
    "Unapproved",
    "UnknownBot",
    "UnknownChannel",
    "UnknownWorkflow",
    "UnsupportedProtocol",
    "WaitTimedOut",
    "WorkerUnavailable",
    "WrongWorker",
    "request_error",
]

for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
