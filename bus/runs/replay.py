"""What a run's recorded steps mean when its program is executed again.

Owns which record answers a call, whether and when a step may be retried, and the ids of steps whose name is used
more than once. Its rules:

- A completed step is not carried out again: its record answers, if it was called with the same input.
- An error raised by a step's function counts as a failure. An interrupted attempt does not, but the number of those
  is
  limited too, because the step itself may be what ends the process.
- Ids depend only on the order of calls, so that an unchanged program finds its records again.

Pure: times and chance are arguments.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from ..model.records import StepStatus, WorkflowStepLog, parse_timestamp, timestamp
from ..model.values import same_json

__all__ = [
    "APPROVAL",
    "CALL",
    "CANCELLED",
    "COMMIT",
    "FINAL",
    "GIVEN_BACK",
    "INTERRUPTED",
    "INTERRUPTIONS_MAX",
    "LEFT",
    "SIGNAL",
    "START",
    "STEP",
    "TIMED_OUT",
    "UNRECORDED",
    "WAIT_SECONDS_MAX",
    "Attempt",
    "Cancelled",
    "Changed",
    "GiveUp",
    "Left",
    "Names",
    "OnChanged",
    "Recorded",
    "Records",
    "Retry",
    "Unrecorded",
    "Wanted",
    "changed_text",
    "check_name",
    "deadline_of",
    "decide",
    "error_text",
    "is_late",
    "kind_of",
    "wait_key",
]

STEP, APPROVAL, COMMIT, SIGNAL, START, CALL = "step", "approval", "commit", "signal", "start", "call"
"""What a step log records. The idempotency key says so if no function was called. It answers no other kind."""

_UNTIL = " until "

INTERRUPTED = "interrupted"
"""The error of a step whose holder was lost, as the store writes it."""

GIVEN_BACK = "given back"
"""The error of a step that was cancelled or could not be done now: nobody's fault, and retried."""

LEFT = "left: its program was cancelled here, and went on"
"""The error of a step or a wait that a cancel scope ended: what happened, so that it is left each time."""

CANCELLED = "cancelled"
"""The error of a step or a wait in which the program learned that its run is to be cancelled."""

TIMED_OUT = "timed out"
"""The error of an approval that nobody gave in time."""

FINAL = "not retried: "
"""Begins the error of a step that its `Retry` has no further attempt for."""

UNRECORDED = "not recorded: "
"""Begins the error of a step whose function returned what cannot be recorded: it is not called again by itself."""

INTERRUPTIONS_MAX = 10
"""After this many lost holders in one step, the step is assumed to be the cause."""

_SHOWN_CHARACTERS_MAX = 200
"""Longer inputs are truncated in error messages."""

_ERROR_CHARACTERS_MAX = 10_000
"""Longer errors are truncated: they have to fit into a frame, and be read by people."""

_DOUBLINGS_MAX = 64
"""After this many doublings, a growing delay has normally exceeded its limit."""

WAIT_SECONDS_MAX = 100 * 365 * 86_400
"""A hundred years: longer times leave the calendar."""

OnChanged = Literal["raise", "reuse", "again"]
_ON_CHANGED = get_args(OnChanged)


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """How often a step is tried, and how long to wait in between: `delay` seconds, times `factor` each time.

    No wait is longer than `delay_max` seconds, which is at most a hundred years; `jitter` is the fraction of it
    that may be added at random. An error of a class in `never` is not retried: it is the last attempt.
    `retry_after` is called with an error, and returns after how many seconds to retry, for instance as a service
    asked, or None for the usual wait; after a restart, the usual wait counts. Raises ValueError for invalid
    numbers, and TypeError for a `never` that is not a tuple of exceptions.
    """

    max_attempts: int = 3
    delay: float = 1.0
    factor: float = 2.0
    delay_max: float = 300.0
    jitter: float = 0.1
    never: tuple[type[Exception], ...] = ()
    retry_after: Callable[[Exception], float | None] | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.max_attempts) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ValueError(f"max_attempts must be a whole number, 1 or more, not {self.max_attempts!r}")
        for name in ("delay", "factor", "delay_max", "jitter"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= sys.float_info.max:
                raise ValueError(f"{name} must be a finite number, 0 or more, not {value!r}")
        if self.delay_max > WAIT_SECONDS_MAX:
            raise ValueError(f"delay_max must be at most {WAIT_SECONDS_MAX:,} s, not {self.delay_max!r}")
        kinds = self.never if isinstance(self.never, tuple) else (None,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise TypeError(f"never must be a tuple of exception classes, not {self.never!r}")

    def wait_seconds(self, failures: int, chance: float) -> float:
        """Return the wait after so many failures, at most WAIT_SECONDS_MAX; `chance` is from 0 to 1."""
        try:
            wait = self.delay * float(self.factor) ** min(failures - 1, _DOUBLINGS_MAX)
        except OverflowError:
            wait = self.delay_max if self.delay > 0 else 0.0
        return min(min(wait, self.delay_max) * (1 + self.jitter * chance), WAIT_SECONDS_MAX)

    def failure_text(self, error: Exception) -> str:
        """Return the text to record for a failed attempt, which says whether it is retried."""
        return f"{FINAL if isinstance(error, self.never) else ''}{error_text(error)}"

    def wait_after(self, error: Exception) -> float | None:
        """Return the wait that an error asks for, at most WAIT_SECONDS_MAX; None for the usual one."""
        seconds = None if self.retry_after is None else self.retry_after(error)
        return None if seconds is None else min(max(float(seconds), 0.0), WAIT_SECONDS_MAX)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Wanted(msgspec.Struct, frozen=True):
    """What a call asks of a step. Raises ValueError for an unknown value of `on_changed`."""

    input: Any
    retry: Retry
    on_changed: OnChanged = "raise"

    def __post_init__(self) -> None:
        if self.on_changed not in _ON_CHANGED:
            raise ValueError(f'on_changed must be "raise", "reuse" or "again", not {self.on_changed!r}')


class Recorded(msgspec.Struct, frozen=True):
    """The step completed before; this is its output."""

    output: Any


class Attempt(msgspec.Struct, frozen=True):
    """The step is to be carried out, as this attempt, after so many seconds; `last` if no other may follow."""

    number: int
    wait_seconds: float
    last: bool


class GiveUp(msgspec.Struct, frozen=True):
    """The step has failed, or was interrupted, as often as it may."""

    attempts: int
    error: str


class Left(msgspec.Struct, frozen=True):
    """The program was cancelled in this step, and went on without it."""


class Cancelled(msgspec.Struct, frozen=True):
    """The program learned in this step that the run is to be cancelled."""


class Unrecorded(msgspec.Struct, frozen=True):
    """The step was carried out, and its output could not be recorded; this is why."""

    reason: str


class Changed(msgspec.Struct, frozen=True):
    """The step completed before with another input."""

    recorded: Any


Decision = Recorded | Attempt | GiveUp | Left | Cancelled | Unrecorded | Changed


def decide(rows: Sequence[WorkflowStepLog], wanted: Wanted, *, now: datetime, chance: float) -> Decision:
    """Decide how to answer a call, from the records of its step."""
    if not rows:
        return Attempt(1, 0.0, last=wanted.retry.max_attempts == 1)
    rows = sorted(rows, key=lambda row: row.attempt)
    if rows[-1].error == LEFT:
        return Left()
    if rows[-1].error == CANCELLED:
        return Cancelled()
    last_done = next((n for n in range(len(rows) - 1, -1, -1) if rows[n].status in _DONE), None)
    if last_done is not None:
        done = rows[last_done]
        same = done.status == StepStatus.SKIPPED or same_json(done.input, wanted.input)
        if same or wanted.on_changed == "reuse":
            return Recorded(done.output)
        if wanted.on_changed == "raise":
            return Changed(done.input)
        rows = rows[last_done + 1 :]
        number = done.attempt + 1
    else:
        number = 1
    failed = [row for row in rows if row.status == StepStatus.FAILED]
    failures = [row for row in failed if row.error not in (INTERRUPTED, GIVEN_BACK)]
    if failures and (error := failures[-1].error or "").startswith(UNRECORDED):
        return Unrecorded(error.removeprefix(UNRECORDED))
    if failures and (error := failures[-1].error or "").startswith(FINAL):
        return GiveUp(len(failures), error.removeprefix(FINAL))
    interruptions = sum(row.error == INTERRUPTED for row in failed)
    number = max([number, *(row.attempt + 1 for row in rows)])
    if len(failures) >= wanted.retry.max_attempts:
        return GiveUp(len(failures), failures[-1].error or "no error was recorded")
    if interruptions >= INTERRUPTIONS_MAX:
        return GiveUp(interruptions, "the process was lost in this step each time")
    last = len(failures) + 1 >= wanted.retry.max_attempts
    return Attempt(number, _wait_left(failures, wanted.retry, now, chance), last)


_DONE = {StepStatus.COMPLETED, StepStatus.SKIPPED}


def _wait_left(failures: Sequence[WorkflowStepLog], retry: Retry, now: datetime, chance: float) -> float:
    if not failures or failures[-1].completed_at is None:
        return 0.0
    wait = retry.wait_seconds(len(failures), chance)
    gone = (now - parse_timestamp(failures[-1].completed_at)).total_seconds()
    # The failure has the worker's timestamp, whose clock may differ: never wait longer than the whole time.
    return max(0.0, min(wait, wait - gone))


class Records:
    """The step logs of a run that this program knows, by step id."""

    def __init__(self, rows: Iterable[WorkflowStepLog] = ()) -> None:
        self._rows: dict[str, dict[str, WorkflowStepLog]] = {}
        for row in rows:
            self.note(row)

    def __repr__(self) -> str:
        return f"<Records of {len(self._rows)} steps>"

    def __bool__(self) -> bool:
        return bool(self._rows)

    def note(self, row: WorkflowStepLog) -> None:
        """Note a step log, replacing an earlier version of it."""
        self._rows.setdefault(row.step_id, {})[row.id] = row

    def forget(self, row: WorkflowStepLog) -> None:
        """Remove a step log that was not recorded after all."""
        del self._rows[row.step_id][row.id]

    def of(self, step_id: str) -> list[WorkflowStepLog]:
        """Return the attempts of a step."""
        return list(self._rows.get(step_id, {}).values())

    def latest(self, step_id: str) -> WorkflowStepLog | None:
        """Return the last attempt of a step."""
        return max(self.of(step_id), key=lambda row: row.attempt, default=None)

    def has_all(self, rows: Iterable[WorkflowStepLog]) -> bool:
        """Return True if all of these are known, in any status; if not, another program was at work."""
        return all(row.id in self._rows.get(row.step_id, {}) for row in rows)


class Names:
    """The names that a program has used for steps so far: `fetch`, and the second time `fetch#2`.

    A name belongs to the task that used it first. The order of the calls of two tasks is a matter of chance, even
    if they do not overlap, so that a restart would give one the records of the other.
    """

    def __init__(self) -> None:
        self._used: dict[str, int] = {}
        self._owners: dict[str, weakref.ref[Any]] = {}

    def __repr__(self) -> str:
        return f"<Names {self._used}>"

    def take(self, name: str, task: object) -> str:
        """Return the step id of a call that a task makes. Raise ValueError for an invalid name.

        Raise RuntimeError if another task has used the name.
        """
        check_name(name)
        owner = self._owners.setdefault(name, weakref.ref(task))
        if owner() is not task:
            raise RuntimeError(
                f"step {name!r} was used by another task, and which of them comes first is a matter of chance: give"
                " the steps of each task names of their own, or a run.branch() of its own"
            )
        count = self._used[name] = self._used.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"


def check_name(name: Any) -> None:
    """Raise ValueError for a name that a step or a branch cannot have."""
    if not isinstance(name, str) or not name or "#" in name:
        raise ValueError(f"a step's name must be a str without '#', not {name!r}")


def kind_of(row: WorkflowStepLog) -> str:
    """Return the kind of call that a step log records: STEP if a function was called, or for a sleep."""
    kind = (row.idempotency_key or "").partition(_UNTIL)[0]
    return kind if kind in (APPROVAL, COMMIT, SIGNAL, START, CALL) else STEP


def wait_key(kind: str, deadline: datetime | None) -> str:
    """Return the idempotency key of a wait for an approval or a signal, which says until when it lasts."""
    return kind if deadline is None else f"{kind}{_UNTIL}{timestamp(deadline)}"


def deadline_of(row: WorkflowStepLog) -> datetime | None:
    """Return until when an approval can be given, or a signal comes in time; None if there is no end."""
    kind, _, until = (row.idempotency_key or "").partition(_UNTIL)
    try:
        return parse_timestamp(until) if kind in (APPROVAL, SIGNAL) and until else None
    except ValueError:  # somebody else's key
        return None


def is_late(row: WorkflowStepLog) -> bool:
    """Return True if an approval was answered after its deadline."""
    deadline = deadline_of(row)
    if deadline is None or row.completed_at is None:
        return False
    return parse_timestamp(row.completed_at) > deadline


def changed_text(recorded: Any, wanted: Any) -> str:
    """Return the error for a step whose recorded input differs from the current one."""
    texts = [msgspec.json.encode(value).decode() for value in (recorded, wanted)]
    shown = [text if len(text) <= _SHOWN_CHARACTERS_MAX else text[:_SHOWN_CHARACTERS_MAX] + "…" for text in texts]
    return (
        f"it was recorded for the input {shown[0]}, and is now called with {shown[1]}; rename it, or pass"
        ' on_changed="reuse" or "again" if it is a step that takes it'
    )


def error_text(error: BaseException) -> str:
    """Return the text to record for an error; for a group, the texts of its errors."""
    text = "; ".join(_described(leaf) for leaf in _leaves(error)).encode(errors="replace").decode()
    return text if len(text) <= _ERROR_CHARACTERS_MAX else text[:_ERROR_CHARACTERS_MAX] + "…"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that are not groups, in order."""
    left = [error]
    while left:
        error = left.pop()
        if isinstance(error, BaseExceptionGroup):
            left += reversed(error.exceptions)
        else:
            yield error


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # its author's code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
