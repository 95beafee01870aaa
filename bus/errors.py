"""Everything that can go wrong: the package's one tree of errors.

- `BusError` is the root of what a bot's author can meet. A `RequestError` among them is an answer: a call was
  refused, and its `code` says why. The others say that no answer came, or what became of a run.
- `Refused` is a RequestError of the store's: nothing of that one call was stored, and the calls beside it stand.
- `StoreFailure` is no BusError: the store itself cannot be used any more, and the process that has it must end.
- `StoreError` is all that a store raises, of either kind.

An error that the store raised and the same one that a worker reported are of one class, with the same attributes.
Its `details` are how these come over the wire (`docs/protocol.md`).

Pure, and imports nothing of the package, so that all of it may import this.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar, Self, TypeVar

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


_Error = TypeVar("_Error", bound=BaseException)


class Portable(Exception):
    """An error that can be copied, and pickled into another process, whatever its constructor takes.

    The copy has the same text, attributes and notes. Its cause and context come along, unless pickle cannot.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        cause = _pickled(self.__cause__)
        context = None if self.__context__ is self.__cause__ else _pickled(self.__context__)
        return _restored, (type(self), self.args, vars(self), cause, context, self.__suppress_context__)

    def __copy__(self) -> Self:
        return self._copied(vars(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self._copied(copy.deepcopy(vars(self), memo))

    def _copied(self, attributes: dict[str, Any]) -> Self:
        error = _blank(type(self), self.args, attributes)
        error.__cause__, error.__context__ = self.__cause__, self.__context__
        error.__suppress_context__ = self.__suppress_context__
        return error


def _blank(kind: type[_Error], args: tuple[Any, ...], attributes: dict[str, Any]) -> _Error:
    """Return an error without calling its constructor, which takes other things than its text."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(attributes)
    return error


def _restored(
    kind: type[_Error],
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    cause: bytes | None,
    context: bytes | None,
    suppress_context: bool,
) -> _Error:
    error = _blank(kind, args, attributes)
    error.__cause__ = None if cause is None else pickle.loads(cause)
    error.__context__ = error.__cause__ if context is None else pickle.loads(context)
    error.__suppress_context__ = suppress_context
    return error


def _pickled(error: BaseException | None) -> bytes | None:
    """Return an error pickled; None where that fails, or where it could not be read back."""
    if error is None:
        return None
    try:
        written = pickle.dumps(error)
        pickle.loads(written)
    except Exception:  # whatever a stranger's error raises
        return None
    return written


class BusError(Portable):
    """The root of everything that a bot's author can meet."""


class AddressError(BusError):
    """A bot cannot connect to such an address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot connect to {address!r}: {reason}; write it like tcp://127.0.0.1:7710")
        self.address = address


class BindError(BusError):
    """The worker could not listen at an address."""

    def __init__(self, address: str, reason: str, *, in_use: bool, hint: str = "check the address") -> None:
        hint = "stop the program that listens there, or choose another address" if in_use else hint
        super().__init__(f"cannot listen at {address}: {reason}; {hint}")
        self.address = address
        self.in_use = in_use


class ClosedError(BusError):
    """The bot was closed while this call waited, or before it was made."""


class ReplyTimeout(BusError):
    """Nobody replied in time. The message stays where it is: a reply that comes later is an ordinary message.

    `state` says how far it got: "waiting" (stored, and not handed to the bot), "in_flight" (the bot has it),
    "returned" (the bot gave it back, and gets it again), "settled" (the bot is done with it, without a reply),
    "dead" (given up), or "unknown" where the worker could not be asked.
    """

    _WORDS: ClassVar[dict[str, str]] = {
        "waiting": "it is stored, and {bot} was not handed it yet: is it running, and has it credit?",
        "in_flight": "{bot} has it and is at work: wait longer, or look at what it does",
        "returned": "{bot} gave it back, and will be handed it again",
        "settled": "{bot} settled it without a reply",
        "dead": "{bot}'s mailbox gave up on it; see its dead letters",
        "unknown": "how far it got is unknown, because the worker does not answer",
    }

    def __init__(self, message_id: str, bot: str, timeout: float, state: str) -> None:
        words = self._WORDS.get(state, "it is " + state).format(bot=bot)
        super().__init__(f"no reply to message {message_id} within {timeout:g} s: {words}")
        self.message_id = message_id
        self.bot = bot
        self.state = state


class MalformedAnswer(BusError):
    """The worker's answer is not what the protocol says. `what` was asked for; whether it was done is unknown."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the answer for {what} is not what the protocol says: {reason}")
        self.what = what


class WorkerUnavailable(BusError):
    """No worker answered in time. What was sent may or may not be stored: send it again with the same id."""


# ── Refused requests ─────────────────────────────────────────────────────────────────────────────────────


class RequestError(BusError):
    """A call was refused, by the worker or by the store.

    `code` is the protocol's, `retry` says whether the same call may succeed later, `retry_after` in how many
    seconds, where the worker says so, and `hint` what to do. `details` are for programs, where the code alone does
    not say enough. The text of an error that came from a worker ends with its code and its hint.
    """

    code: str = "internal"
    hint: ClassVar[str] = ""
    retry: bool = False
    retry_after: float | None = None
    details: dict[str, Any] | None = None

    error_name: ClassVar[str] = ""
    """What `details` call it, for those whose attributes go over the wire."""
    attributes: ClassVar[tuple[str, ...]] = ()
    """What `details` have of it besides."""

    def __init__(self, message: str, *values: Any, **told: Any) -> None:
        """Make the error of a call that was refused here, with the values of its attributes.

        A class without attributes is also made as a worker's refusal is: of a code and a message, and of what
        `received` takes besides.
        """
        if not self.attributes and len(values) == 1:
            received = type(self).received(message, *values, **told)
            super().__init__(*received.args)
            vars(self).update(vars(received))
            return
        super().__init__(message)
        self.message = message
        attributes = dict(zip(self.attributes, values, strict=True))
        vars(self).update(attributes)
        if self.error_name:
            self.details = {"error": self.error_name} | attributes

    @classmethod
    def received(
        cls,
        code: str,
        message: str,
        *,
        retry: bool = False,
        retry_after: float | None = None,
        details: dict[str, Any] | None = None,
    ) -> Self:
        """Return the error of a refusal as it comes from a worker, with the attributes that its details have.

        Its constructor is not called: it takes what not every worker tells.
        """
        told = details or {}
        is_stores = bool(cls.error_name) and told.get("error") == cls.error_name
        text = message if is_stores else f"{message} [{code}]{': ' if cls.hint else ''}{cls.hint}"
        attributes = {name: told[name] for name in cls.attributes if name in told}
        attributes |= {"code": code, "message": message, "retry": retry, "retry_after": retry_after}
        return _blank(cls, (text,), attributes | {"details": details})

    def reworded(self, message: str) -> Self:
        """Return the same error with another text."""
        self.args, self.message = (message,), message
        return self


class UnknownBot(RequestError):
    """No bot has that name or id."""

    code = "unknown_bot"
    hint = "a bot is known once it has connected for the first time"


class UnknownChannel(RequestError):
    """There is no such channel."""

    code = "unknown_channel"
    hint = "a channel comes into being by its first use"


class BotConflict(RequestError):
    """The bot's name and id belong to others."""

    code = "bot_conflict"
    hint = "connect without bot_id, or with the id that the name has"


class IdConflict(RequestError):
    """A message of another bot has that id."""

    code = "id_conflict"
    hint = "leave the id to the client, or make a new UUIDv7"


class InvalidBody(RequestError):
    """The body is no JSON that every receiver could decode."""

    code = "invalid_body"
    hint = "send finite numbers, valid text, and at most 100 levels"


class LimitReached(RequestError):
    """A limit was reached, and nothing was stored."""

    code = "busy"
    hint = "wait a moment and send it again"
    retry = True


class Forbidden(RequestError):
    """The bot may not do that."""

    code = "forbidden"


class UnsupportedProtocol(RequestError):
    """The worker speaks another version of the protocol."""

    code = "unsupported_protocol"
    hint = "install versions of client and worker that belong together"


# ── What a store raises ──────────────────────────────────────────────────────────────────────────────────


class StoreError(Portable):
    """The root of everything that a store raises; what is no `StoreFailure` is a BusError too."""


class Refused(RequestError, StoreError):
    """One call was refused; nothing of it was stored, and the calls beside it stand."""


class NotFound(Refused):
    """There is no such thing; `what` and `key` say which, where it was to be changed."""

    code = "not_found"
    error_name = "not_found"
    attributes = ("what", "key")
    what = key = ""

    def __init__(self, what: str, key: str) -> None:
        super().__init__(f"no {what} {key!r}", what, key)


class Conflict(Refused):
    """The call contradicts what is stored."""

    code = "conflict"
    error_name = "conflict"


class NotInFlight(Conflict):
    """A message that was to be settled is not with this bot any more: nothing was done to it.

    Another session of the bot has it, it waits to be delivered again, or it is a dead letter by now: then
    `details["state"]` is "in_flight", "returned", "waiting" or "dead". A commit that acks it did nothing at all.
    """

    error_name = ""


class InvalidTransition(Conflict):
    """A status cannot follow the one that is stored (docs/design.md)."""

    code = "invalid_transition"
    error_name = "invalid_transition"
    attributes = ("what", "key", "current", "wanted")
    what = key = current = wanted = ""

    def __init__(self, what: str, key: str, current: str, wanted: str) -> None:
        super().__init__(f"{what} {key!r} is {current} and cannot become {wanted}", what, key, current, wanted)


class DefinitionInUse(Conflict):
    """A definition cannot be deleted while it has runs; `cascade=True` deletes them too."""

    error_name = "definition_in_use"
    attributes = ("definition_id", "runs")
    definition_id = ""
    runs = 0

    def __init__(self, definition_id: str, runs: int) -> None:
        super().__init__(
            f"workflow {definition_id!r} has {runs} runs; delete with cascade=True to lose them too",
            definition_id,
            runs,
        )


class RunHeld(Conflict):
    """A run is held under a live lease, so it cannot be claimed: wait until the lease ran out, or is given back."""

    error_name = "run_held"
    attributes = ("run_id", "holder", "expires_at")
    run_id = holder = expires_at = ""

    def __init__(self, run_id: str, holder: str, expires_at: str) -> None:
        super().__init__(f"run {run_id!r} is held by {holder!r} until {expires_at}", run_id, holder, expires_at)


class RunPaused(Conflict):
    """A run was paused with a reason, so it cannot be claimed until somebody makes it pending again."""

    error_name = "run_paused"
    attributes = ("run_id", "reason")
    run_id = reason = ""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"run {run_id!r} was stopped ({reason}): make it pending ('posthouse resume') to let it go on",
            run_id,
            reason,
        )


class Fenced(Refused):
    """A write came with a fence that is not the run's any more: the writer does not hold the run.

    `status` is the run's at present, so that a holder learns what became of it: somebody else runs it, a person
    cancelled it, or it was given up for crashed.
    """

    code = "fenced"
    error_name = "fenced"
    attributes = ("run_id", "fence", "status")
    run_id = status = ""
    fence = 0

    def __init__(self, run_id: str, fence: int, status: str) -> None:
        super().__init__(
            f"run {run_id!r} is {status}, and not held with fence {fence} any more", run_id, fence, status
        )


class SlotsTaken(Refused):
    """As many runs of a workflow and a concurrency key are running as its definition allows: try again later.

    The run keeps its place in the queue for as long as the lease that was asked for; trying again renews it.
    `ahead` is how many runs wait before it.
    """

    code = "busy"
    retry = True
    error_name = "slots_taken"
    attributes = ("run_id", "concurrency", "ahead")
    run_id = ""
    concurrency = ahead = 0

    def __init__(self, run_id: str, concurrency: int, ahead: int) -> None:
        super().__init__(
            f"run {run_id!r} waits for a slot, with {ahead} ahead of it; {concurrency} may run at once",
            run_id,
            concurrency,
            ahead,
        )


class TooLarge(Refused):
    """A value, a body or a frame is over its limit. It is refused, never truncated."""

    code = "too_large"
    hint = "put the data elsewhere and send its name"
    error_name = "too_large"
    attributes = ("what", "size_bytes", "bytes_max")
    what = ""
    size_bytes = bytes_max = 0

    def __init__(self, what: str, size_bytes: int, bytes_max: int) -> None:
        super().__init__(f"{what} has {size_bytes} bytes; the most is {bytes_max}", what, size_bytes, bytes_max)


class InvalidValue(Refused, ValueError):
    """A value is none that can be stored or asked with: no JSON, of another type, a limit below 0."""

    code = "bad_request"
    error_name = "invalid_value"
    attributes = ("what", "reason")
    what = reason = ""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}", what, reason)


class StorageFull(RequestError, StoreError):
    """The disk is full, and nothing was stored. The store goes on, and so can its readers."""

    code = "storage_full"
    hint = "make room on the worker's disk; it goes on by itself"
    retry = True
    error_name = "storage_full"


class StorageBusy(RequestError, StoreError):
    """Another program holds the database's write lock. Nothing was stored, and the store goes on."""

    code = "busy"
    retry = True
    error_name = "storage_busy"


class RecordDamaged(BusError, StoreError):
    """A record does not match its checksum, so it is reported and not handed out."""

    def __init__(self, table: str, key: str) -> None:
        key = key.encode(errors="replace").decode()  # it may be what is damaged
        super().__init__(f"record {key} of {table} does not match its checksum; run 'posthouse check'")
        self.table = table
        self.key = key


class StoreFailure(StoreError):
    """The store itself cannot be used (any more)."""


class StoreClosed(StoreFailure):
    """The store was closed before this call could be carried out; nothing of it was stored."""


class StoreFailed(StoreFailure):
    """The disk reported an error, and what it did to the last transaction cannot be known.

    No answer is right after this one: the process must end, and the restart finds out (docs/design.md).
    """


class DatabaseInUse(StoreFailure):
    """Another worker holds the database."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"the worker with process id {pid}" if pid else "another worker"
        super().__init__(f"{path} is in use by {holder}; stop that one, or serve another file")
        self.path = path
        self.pid = pid


class DatabaseLocked(DatabaseInUse):
    """Another program than a worker locks the database, and did not end its transaction for some seconds."""

    def __init__(self, path: str) -> None:
        super().__init__(path, None)
        self.args = (
            f"{path} is locked by another program (a database shell or a backup, say); end that one"
            f" ('fuser {path}' names it), then start again",
        )


class DatabaseUnusable(StoreFailure):
    """The path leads to nothing that could be served: no folder, not a file, no right to write, a second name."""


class DatabaseDamaged(StoreFailure):
    """The file is not a database of ours, or it is damaged. Its records were left as they are."""


class DatabaseNewer(StoreFailure):
    """The database was written by a later version, or its migrations differ. It was left untouched."""


# ── Runs of workflows ────────────────────────────────────────────────────────────────────────────────────


class RunError(BusError):
    """Something about one run of a workflow; the root of what running it raises."""

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class UnknownWorkflow(BusError):
    """No definition has that name or id."""

    def __init__(self, workflow: str, bot: str) -> None:
        super().__init__(
            f"no workflow {workflow!r} of {bot!r}, and no global one: save one first with"
            " bot.workflows.save_definition(WorkflowDefinition(...)), or give it as definition="
        )
        self.workflow = workflow


class RunBusy(RunError):
    """A run could not be had in time: somebody else holds it, or it has no slot; `reason` says which."""

    retry_after: float | None = None

    def __init__(self, run_id: str, timeout: float, reason: str) -> None:
        super().__init__(run_id, f"not within {timeout:g} s: {reason}")
        self.reason = reason


class RunLost(RunError):
    """Somebody else has the run now, or ended it; `status` is what it is. Nothing more of it was written here."""

    retry_after: float | None = None

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(run_id, f"run {run_id!r} is {status}, and not held here any more")
        self.status = status


class RunCancelled(RunError):
    """A person cancelled the run."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id, f"run {run_id!r} was cancelled")


class RunFailed(RunError):
    """The run failed before, with `error`, and cannot go on: start another one."""

    def __init__(self, run_id: str, error: str | None) -> None:
        super().__init__(run_id, f"run {run_id!r} failed before: {error or 'nobody said why'}")
        self.error = error


class StepFailed(RunError):
    """A step failed as often as it may; `error` is the text of the last error, which this one is raised from.

    After a restart the error itself is gone, and only its text is left.
    """

    def __init__(self, run_id: str, step_id: str, attempts: int, error: str) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(run_id, f"step {step_id!r} failed {times}: {error}")
        self.step_id = step_id
        self.attempts = attempts
        self.error = error


class StepChanged(RunError):
    """What is recorded of a step does not belong to this call: the program changed while the run was under way."""

    def __init__(self, run_id: str, step_id: str, reason: str) -> None:
        super().__init__(run_id, f"step {step_id!r}: {reason}")
        self.step_id = step_id


class Rejected(RunError):
    """A person rejected what they were asked; `answer` is what they said, where that was more than no."""

    def __init__(self, run_id: str, step_id: str, answer: Any, reason: str | None) -> None:
        super().__init__(run_id, f"approval {step_id!r} was rejected{f': {reason}' if reason else ''}")
        self.step_id = step_id
        self.answer = answer
        self.reason = reason


NOT_NOW = (LimitReached, NotInFlight, StorageBusy, StorageFull, RunBusy, RunLost)
"""What is no fault of who asked, and passes: a handler that meets one is to be slowed, and has not failed."""

ENDED = (RunCancelled, RunFailed)
"""What says that a run has ended and is never opened again: to try again what met it is of no use."""

_BY_NAME: dict[str, type[RequestError]] = {
    kind.error_name: kind
    for kind in (
        NotFound, Conflict, InvalidTransition, DefinitionInUse, RunHeld, RunPaused, Fenced, SlotsTaken, TooLarge,
        InvalidValue, StorageFull, StorageBusy,
    )
}  # fmt: skip

_BY_CODE: dict[str, type[RequestError]] = {
    kind.code: kind
    for kind in (
        UnknownBot, UnknownChannel, NotFound, BotConflict, IdConflict, Conflict, InvalidBody, TooLarge,
        LimitReached, StorageFull, Forbidden, UnsupportedProtocol,
    )
}  # fmt: skip
_BY_CODE |= {"mailbox_full": LimitReached, "rate_limited": LimitReached}


def request_error(
    code: str,
    message: str,
    *,
    retry: bool = False,
    retry_after: float | None = None,
    details: dict[str, Any] | None = None,
) -> RequestError:
    """Return the error that a worker reports: by the name in its details, else by its code.

    It is a plain RequestError if this version knows neither.
    """
    kind = _BY_NAME.get((details or {}).get("error", ""))
    if kind is None or details is None or not details.keys() >= set(kind.attributes):
        kind = _BY_CODE.get(code, RequestError)
    return kind.received(code, message, retry=retry, retry_after=retry_after, details=details)
