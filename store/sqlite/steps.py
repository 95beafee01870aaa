"""Step logs of runs in SQLite: what is done to one in a transaction.

Owns the SQL of step logs, and how a row becomes a record again. What a status may become is decided in
`store.transitions`. Every method is part of its caller's transaction and may be carried out twice; each reads what
it needs with one statement and writes with another, because that is what a checkpoint costs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import aiosqlite
import msgspec

from ..errors import Conflict, InvalidValue, NotFound, RecordDamaged
from ..leases import check_fence
from ..records import StepStatus, WorkflowStepLog
from ..transitions import STEP_BEGINS, advance_step
from ..values import STEP_VALUE_BYTES_MAX, json_text, json_value, normal_record, same_values, status_value
from .writer import refusal

__all__ = ["STEP_COLUMNS", "STEP_ORDER", "NewStep", "StepChange", "Steps", "new_step", "step_change", "step_record"]

_NAMES = (
    "id", "run_id", "step_id", "step_name", "status", "attempt", "idempotency_key", "input", "output", "error",
    "started_at", "completed_at",
)  # fmt: skip

STEP_COLUMNS = ", ".join(_NAMES)

_INSERT = f"INSERT INTO workflow_steps ({STEP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_UPDATE = """
    UPDATE workflow_steps
    SET status = ?, error = ?, started_at = ?, completed_at = ?, output = COALESCE(?, output) WHERE id = ?"""

_OF_STEP = ", ".join(f"step.{name}" for name in _NAMES)

# The step log that has the id already, and the fence of the run for which it is to be created.
_FIND_FOR_RUN = f"""
    SELECT {_OF_STEP}, run.fence, run.status
    FROM (SELECT 1)
        LEFT JOIN workflow_runs AS run ON run.id = ?1
        LEFT JOIN workflow_steps AS step ON step.id = ?2"""

_FIND = f"""
    SELECT {_OF_STEP}, run.fence, run.status
    FROM workflow_steps AS step JOIN workflow_runs AS run ON run.id = step.run_id WHERE step.id = ?"""

# A step that was never running began when it ended; one that did neither comes last. rowid is the order of
# creation.
STEP_ORDER = """
    ORDER BY COALESCE(started_at, completed_at) IS NULL, COALESCE(started_at, completed_at), rowid"""

CheckSize = Callable[[msgspec.Struct, str], None]


class NewStep(msgspec.Struct, frozen=True):
    """A step log to be created, checked: its record as it will be read back, and its row but for its times."""

    step: WorkflowStepLog
    row: tuple[Any, ...]
    fence: int | None


class StepChange(msgspec.Struct, frozen=True):
    """A move of a step log to a status, checked: `output` as it will be read back; None keeps it."""

    id: str
    status: StepStatus
    output: Any
    error: str | None
    fence: int | None


def new_step(step: WorkflowStepLog, *, fence: int | None) -> NewStep:
    """Check a step log before it is queued; raises InvalidValue or TooLarge."""
    step = normal_record(step, f"step {step.step_id!r}")
    if not 1 <= step.attempt < 2**31:
        raise InvalidValue(f"step {step.step_id!r}", f"attempt must be 1 or more, not {step.attempt}")
    row = (
        step.id,
        step.run_id,
        step.step_id,
        step.step_name,
        step.status,
        step.attempt,
        step.idempotency_key,
        _text(step.input, f"input of step {step.step_id!r}"),
        _text(step.output, f"output of step {step.step_id!r}"),
        step.error,
    )
    return NewStep(step, row, fence)


def step_change(
    step_id: str, status: StepStatus, *, output: Any, error: str | None, fence: int | None
) -> StepChange:
    """Check a change before it is queued; raises InvalidValue. Its size is checked with the step's name at hand."""
    given = json_value(output, f"output of step {step_id!r}")
    return StepChange(
        step_id, status_value(status, StepStatus), given, json_value(error, f"error of step {step_id!r}"), fence
    )


class Steps:
    """What is done to step logs; `check_size` refuses a record that could not be sent to who reads it."""

    def __init__(self, check_size: CheckSize) -> None:
        self._check_size = check_size

    def __repr__(self) -> str:
        return "<Steps>"

    async def create(self, connection: aiosqlite.Connection, new: NewStep, now: str) -> WorkflowStepLog:
        """Create a step log, or give the same one that is there; one that has begun is given a time of that."""
        step = new.step
        [row] = await connection.execute_fetchall(_FIND_FOR_RUN, (step.run_id, step.id))
        if new.fence is not None and row[12] is not None:
            check_fence(step.run_id, row[13], row[12], new.fence)
        if row[0] is not None:
            stored = step_record(row)
            if same_values(stored, _begun(step, stored.started_at)):
                return stored
            raise Conflict(f"step {step.id!r} is stored with other fields")
        step = _begun(step, now)
        try:
            await connection.execute(_INSERT, (*new.row, step.started_at, step.completed_at))
        except sqlite3.IntegrityError as error:
            raise refusal(error, missing=NotFound("run", step.run_id)) from error
        return step

    async def move(self, connection: aiosqlite.Connection, change: StepChange, now: str) -> WorkflowStepLog:
        """Move a step log to a status."""
        rows = await connection.execute_fetchall(_FIND, (change.id,))
        row = next(iter(rows), None)
        if row is None:
            raise NotFound("step", change.id)
        step = step_record(row)
        check_fence(step.run_id, row[13], row[12], change.fence)
        text = _text(change.output, f"output of step {step.step_id!r}")
        after = advance_step(step, change.status, output=change.output, error=change.error, now=now)
        if change.output is not None:
            self._check_size(after, f"step {step.step_id!r}, with its input,")
        if after is not step:
            await connection.execute(
                _UPDATE, (after.status, after.error, after.started_at, after.completed_at, text, change.id)
            )
        return after


def _begun(step: WorkflowStepLog, when: str | None) -> WorkflowStepLog:
    """Give a step log with the time when it began, where it has begun and does not say when."""
    if step.started_at is not None or step.status not in STEP_BEGINS:
        return step
    return msgspec.structs.replace(step, started_at=when)


def _text(value: Any, what: str) -> str | None:
    return None if value is None else json_text(value, what, bytes_max=STEP_VALUE_BYTES_MAX)


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def step_record(row: sqlite3.Row) -> WorkflowStepLog:
    """Give a step log of its columns; RecordDamaged where they hold none."""
    try:
        return WorkflowStepLog(
            id=row[0],
            run_id=row[1],
            step_id=row[2],
            step_name=row[3],
            status=StepStatus(row[4]),
            attempt=row[5],
            idempotency_key=row[6],
            input=_value(row[7]),
            output=_value(row[8]),
            error=row[9],
            started_at=row[10],
            completed_at=row[11],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_steps", f"id {row[0]}") from error
