"""What can go wrong in the store.

Owns the package's one error tree. Two kinds must not be confused: a `Refused` says that this one call cannot
be carried out as asked, and everything else goes on; a `StoreFailure` says that the store itself cannot.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, Self, TypeVar

__all__ = [
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
    "NotFound",
    "Portable",
    "RecordDamaged",
    "Refused",
    "RunHeld",
    "RunPaused",
    "SlotsTaken",
    "StorageBusy",
    "StorageFull",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "StoreFailure",
    "TooLarge",
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


class StoreError(Portable):
    """The root of everything that the store raises."""


class Refused(StoreError):
    """One call was refused; nothing of it was stored, and the calls beside it stand."""


class NotFound(Refused):
    """What should be changed does not exist."""

    def __init__(self, what: str, key: str) -> None:
        super().__init__(f"no {what} {key!r}")
        self.what = what
        self.key = key


class Conflict(Refused):
    """The call contradicts what is stored."""


class InvalidTransition(Conflict):
    """A status cannot follow the one that is stored (docs/design.md)."""

    def __init__(self, what: str, key: str, current: str, wanted: str) -> None:
        super().__init__(f"{what} {key!r} is {current} and cannot become {wanted}")
        self.what = what
        self.key = key
        self.current = current
        self.wanted = wanted


class DefinitionInUse(Conflict):
    """A definition cannot be deleted while it has runs; `cascade=True` deletes them too."""

    def __init__(self, definition_id: str, runs: int) -> None:
        super().__init__(f"workflow {definition_id!r} has {runs} runs; delete with cascade=True to lose them too")
        self.definition_id = definition_id
        self.runs = runs


class RunHeld(Conflict):
    """A run is held under a live lease, so it cannot be claimed: wait until the lease ran out, or is given back."""

    def __init__(self, run_id: str, holder: str, expires_at: str) -> None:
        super().__init__(f"run {run_id!r} is held by {holder!r} until {expires_at}")
        self.run_id = run_id
        self.holder = holder
        self.expires_at = expires_at


class RunPaused(Conflict):
    """A run was paused with a reason, so it cannot be claimed until somebody makes it pending again."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"run {run_id!r} was stopped ({reason}): make it pending ('posthouse resume') to let it go on"
        )
        self.run_id = run_id
        self.reason = reason


class Fenced(Refused):
    """A write came with a fence that is not the run's any more: the writer does not hold the run.

    `status` is the run's at present, so that a holder learns what became of it: somebody else runs it, a person
    cancelled it, or it was given up for crashed.
    """

    def __init__(self, run_id: str, fence: int, status: str) -> None:
        super().__init__(f"run {run_id!r} is {status}, and not held with fence {fence} any more")
        self.run_id = run_id
        self.fence = fence
        self.status = status


class SlotsTaken(Refused):
    """As many runs of a workflow and a concurrency key are running as its definition allows: try again later.

    The run keeps its place in the queue for as long as the lease that was asked for; trying again renews it.
    `ahead` is how many runs wait before it.
    """

    def __init__(self, run_id: str, concurrency: int, ahead: int) -> None:
        super().__init__(
            f"run {run_id!r} waits for a slot, with {ahead} ahead of it; {concurrency} may run at once"
        )
        self.run_id = run_id
        self.concurrency = concurrency
        self.ahead = ahead


class TooLarge(Refused):
    """A value is over its limit. It is refused, never truncated."""

    def __init__(self, what: str, size_bytes: int, bytes_max: int) -> None:
        super().__init__(f"{what} has {size_bytes} bytes; the most is {bytes_max}")
        self.what = what
        self.size_bytes = size_bytes
        self.bytes_max = bytes_max


class InvalidValue(Refused, ValueError):
    """A value is none that can be stored or asked with: no JSON, of another type, a limit below 0."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class RecordDamaged(StoreError):
    """A record does not match its checksum, so it is reported and not handed out."""

    def __init__(self, table: str, key: str) -> None:
        key = key.encode(errors="replace").decode()  # it may be what is damaged
        super().__init__(f"record {key} of {table} does not match its checksum; run 'posthouse check'")
        self.table = table
        self.key = key


class StorageFull(StoreError):
    """The disk is full. The transaction was rolled back; the store goes on, and so can its readers."""


class StorageBusy(StoreError):
    """Another program holds the database's write lock. Nothing was stored, and the store goes on."""


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
