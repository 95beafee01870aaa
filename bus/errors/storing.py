"""Errors of a store: refusals of one call, a full or busy disk, and a store that cannot be used any more.

Pure.
"""

from __future__ import annotations

from .portable import Portable
from .requests import BusError, Forbidden, LimitReached, RequestError
from .words import amount

__all__ = [
    "BudgetSpent",
    "ChangesForgotten",
    "Conflict",
    "DatabaseDamaged",
    "DatabaseInUse",
    "DatabaseLocked",
    "DatabaseNewer",
    "DatabaseUnusable",
    "DefinitionInUse",
    "Fenced",
    "InvalidTransition",
    "InvalidValue",
    "NotAllowed",
    "NotFound",
    "NotInFlight",
    "OwnershipLost",
    "RecordDamaged",
    "Refused",
    "RevisionConflict",
    "RunEnded",
    "RunGivenUp",
    "RunHeld",
    "RunNotDue",
    "RunPaused",
    "SlotsTaken",
    "StorageBusy",
    "StorageFull",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "StoreFailure",
    "TooLarge",
    "TooManyKeys",
    "TooManySignals",
    "Unapproved",
]


class StoreError(Portable):
    """The root of everything that a store raises; what is not a `StoreFailure` is also a BusError."""


class Refused(RequestError, StoreError):
    """One call was refused; nothing of it was stored, and concurrent calls are unaffected."""


class BudgetSpent(Refused):
    """A message was not stored: nothing is left of the budget of the thread of the message that it answers.

    `reply_to` is the id of that message; `deadline` is when the thread ended, or None if it has no hops left.
    Sending it again is useless.
    """

    code = "budget_spent"
    error_name = "budget_spent"
    attributes = ("reply_to", "deadline")
    reply_to = ""
    deadline: str | None = None

    def __init__(self, reply_to: str, deadline: str | None) -> None:
        why = "no hops are left in its thread" if deadline is None else f"its thread ended at {deadline}"
        super().__init__(
            f"message {reply_to} cannot be answered: {why}; what is sent without reply_to begins another thread",
            reply_to,
            deadline,
        )


class NotFound(Refused):
    """Something does not exist; `what` and `key` say what, if it was to be changed."""

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
    """A message that was to be settled is no longer in flight for this bot: it was not changed.

    It is in flight for another session of the bot, waits for redelivery, or is a dead letter: then
    `details["state"]` is "in_flight", "returned", "waiting" or "dead". A commit that acks it did nothing at all.
    """

    error_name = ""


class InvalidTransition(Conflict):
    """A status cannot follow the stored one (docs/design.md)."""

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
            f"workflow {definition_id!r} has {amount(runs, 'run')}; delete with cascade=True to delete them too",
            definition_id,
            runs,
        )


class RunHeld(Conflict):
    """A run is held under a live lease, so it cannot be claimed before the lease expires or is released."""

    error_name = "run_held"
    attributes = ("run_id", "holder", "expires_at")
    run_id = holder = expires_at = ""

    def __init__(self, run_id: str, holder: str, expires_at: str) -> None:
        super().__init__(f"run {run_id!r} is held by {holder!r} until {expires_at}", run_id, holder, expires_at)


class RunGivenUp(Conflict):
    """A run lost its holder too often without making progress in between: it may be what ends its programs.

    `recoveries` says how often. It is claimed again when a person has retried or resumed it.
    """

    error_name = "run_given_up"
    attributes = ("run_id", "recoveries")
    run_id = ""
    recoveries = 0

    def __init__(self, run_id: str, recoveries: int) -> None:
        super().__init__(
            f"run {run_id!r} lost its holder {amount(recoveries, 'time')} without progress, and is not claimed"
            f" again automatically: find out why, then let it go on ('posthouse retry {run_id}')",
            run_id,
            recoveries,
        )


class RunNotDue(Conflict):
    """A run is to start later, so it cannot be claimed before `not_before`."""

    error_name = "run_not_due"
    attributes = ("run_id", "not_before")
    run_id = not_before = ""

    def __init__(self, run_id: str, not_before: str) -> None:
        super().__init__(f"run {run_id!r} is not to start before {not_before}", run_id, not_before)


class RunEnded(Conflict):
    """A run has ended, so it takes no signals any more; `status` says how."""

    error_name = "run_ended"
    attributes = ("run_id", "status")
    run_id = status = ""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"run {run_id!r} is {status}: it has ended, and takes no signals", run_id, status)


class RunPaused(Conflict):
    """A run was paused with a reason, so it cannot be claimed until it is made pending again."""

    error_name = "run_paused"
    attributes = ("run_id", "reason")
    run_id = reason = ""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"run {run_id!r} was stopped ({reason}): make it pending ('posthouse resume') to let it continue",
            run_id,
            reason,
        )


class Fenced(Refused):
    """A write came with a fence that is no longer the run's: the writer does not hold the run.

    `status` is the run's current status, so that its former holder learns what happened: another program runs it, a
    person cancelled it, or it was marked as crashed.
    """

    code = "fenced"
    error_name = "fenced"
    attributes = ("run_id", "fence", "status")
    run_id = status = ""
    fence = 0

    def __init__(self, run_id: str, fence: int, status: str) -> None:
        super().__init__(
            f"run {run_id!r} is {status}, and no longer held with fence {fence}", run_id, fence, status
        )


class Unapproved(Refused, Forbidden):
    """A write would answer what waits for an approval, and its writer is not allowed to."""

    code = "forbidden"
    error_name = "unapproved"
    attributes = ("step_id", "run_id")
    step_id = run_id = ""

    def __init__(self, step_id: str, run_id: str) -> None:
        super().__init__(
            f"step {step_id!r} of run {run_id!r} waits for an approval, which only a bot with the right to approve"
            " can give, and not the one that executes it",
            step_id,
            run_id,
        )


class NotAllowed(Refused, Forbidden):
    """A bot may not do that to a run of a workflow; `rule` says why."""

    code = "forbidden"
    error_name = "not_allowed"
    attributes = ("bot", "action", "object", "rule")
    bot = action = object = rule = ""

    def __init__(self, bot: str, action: str, object: str, rule: str) -> None:
        super().__init__(f"bot {bot!r} may not {action} {object!r}: {rule}", bot, action, object, rule)


class SlotsTaken(Refused):
    """As many runs of a workflow and a concurrency key are running as its definition allows: try again later.

    The run keeps its place in the queue for as long as the requested lease; trying again renews that. `ahead` is
    how many runs wait before it.
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


class RevisionConflict(Conflict):
    """A key has another `revision` than was `expected`; 0 means that it does not exist. Nothing was written."""

    error_name = "revision_conflict"
    attributes = ("store", "key", "expected", "revision")
    store = key = ""
    expected = revision = 0

    def __init__(self, store: str, key: str, expected: int, revision: int) -> None:
        found = f"is at revision {revision}" if revision else "does not exist"
        wanted = f"revision {expected} was expected" if expected else "it was expected not to exist"
        super().__init__(f"key {key!r} of {store!r} {found}; {wanted}", store, key, expected, revision)


class ChangesForgotten(Conflict):
    """The changes after revision `after` are not known: list the values, and go on from their revision.

    Who watches was away for longer than deletions are remembered: those up to `forgotten` are not. Or the store
    goes on from an earlier state, a backup, and has not come so far.
    """

    error_name = "changes_forgotten"
    attributes = ("store", "after", "forgotten")
    store = ""
    after = forgotten = 0

    def __init__(self, store: str, after: int, forgotten: int) -> None:
        super().__init__(
            f"the changes of {store!r} after revision {after} are not known (deletions are, after {forgotten}):"
            " list its values, and go on from their revision",
            store,
            after,
            forgotten,
        )


class TooManyKeys(Refused, LimitReached):
    """A keyed store has as many `keys` as are allowed; those that exist can be written.

    Keys that were deleted count for as long as their deletion is remembered.
    """

    code = "busy"
    retry = True
    hint = "delete keys: that makes room a day later; or raise limits.kv_keys_max"
    error_name = "too_many_keys"
    attributes = ("store", "keys")
    store = ""
    keys = 0

    def __init__(self, store: str, keys: int) -> None:
        super().__init__(f"{store!r} has {amount(keys, 'key')}, and no more may be added", store, keys)


class TooManySignals(Refused, LimitReached):
    """As many signals as are allowed, `waiting`, wait for a run; it takes them when its program waits for them."""

    code = "busy"
    retry = True
    hint = "'posthouse run' shows what waits; send it again when the run has taken some"
    error_name = "too_many_signals"
    attributes = ("run_id", "waiting")
    run_id = ""
    waiting = 0

    def __init__(self, run_id: str, waiting: int) -> None:
        super().__init__(
            f"run {run_id!r} has {amount(waiting, 'waiting signal')}, and no more may wait", run_id, waiting
        )


class TooLarge(Refused):
    """A value, a body or a frame exceeds its limit. It is refused, never truncated."""

    code = "too_large"
    hint = "put the data elsewhere and send its name"
    error_name = "too_large"
    attributes = ("what", "size_bytes", "bytes_max")
    what = ""
    size_bytes = bytes_max = 0

    def __init__(self, what: str, size_bytes: int, bytes_max: int) -> None:
        super().__init__(f"{what} has {size_bytes} bytes; the maximum is {bytes_max}", what, size_bytes, bytes_max)


class InvalidValue(Refused, ValueError):
    """A value cannot be stored or used in a query: not JSON, of another type, a limit below 0."""

    code = "bad_request"
    error_name = "invalid_value"
    attributes = ("what", "reason")
    what = reason = ""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}", what, reason)


class StorageFull(RequestError, StoreError):
    """The disk is full, and nothing was stored. The store and its readers continue."""

    code = "storage_full"
    hint = "make room on the worker's disk; it then continues by itself"
    retry = True
    error_name = "storage_full"


class StorageBusy(RequestError, StoreError):
    """Another program holds the database's write lock. Nothing was stored, and the store continues."""

    code = "busy"
    retry = True
    error_name = "storage_busy"


class RecordDamaged(BusError, StoreError):
    """A record does not match its checksum, so it is reported and not returned."""

    def __init__(self, table: str, key: str) -> None:
        key = key.encode(errors="replace").decode()  # the key itself may be damaged
        super().__init__(f"record {key} of {table} does not match its checksum; run 'posthouse check'")
        self.table = table
        self.key = key


class StoreFailure(StoreError):
    """The store itself cannot be used (any more)."""


class StoreClosed(StoreFailure):
    """The store was closed before this call could be carried out; nothing of it was stored."""


class StoreFailed(StoreFailure):
    """The disk reported an error, and its effect on the last transaction is unknown.

    No answer would be correct after that: the process must end, and the restart finds out (docs/design.md).
    """


class OwnershipLost(StoreFailure):
    """Another worker has taken the store over while this one served: it stores nothing from now on.

    What was answered is stored. What was being written may be stored or not, and must not be answered. The worker
    must end its sessions at once, and read the store anew before it serves again, should the store become its own.
    """


class DatabaseInUse(StoreFailure):
    """Another worker holds the database."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"the worker with process id {pid}" if pid else "another worker"
        super().__init__(f"{path} is in use by {holder}; stop that worker, or name another database")
        self.path = path
        self.pid = pid


class DatabaseLocked(DatabaseInUse):
    """A program other than a worker locks the database, and did not end its transaction for some seconds."""

    def __init__(self, path: str) -> None:
        super().__init__(path, None)
        self.args = (
            f"{path} is locked by another program (perhaps a database shell or a backup); stop it"
            f" ('fuser {path}' names it), then start again",
        )


class DatabaseUnusable(StoreFailure):
    """The path leads to nothing that can be served: no folder, not a file, no write permission, a second name."""


class DatabaseDamaged(StoreFailure):
    """The file is not a posthouse database, or it is damaged. Its records were left unchanged."""


class DatabaseNewer(StoreFailure):
    """The database was written by a later version, or its migrations differ. It was left unchanged."""
