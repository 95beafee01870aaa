"""Rows of runs and step logs in PostgreSQL, and the records that they hold.

Owns the columns of both. PostgreSQL's texts hold no zero character, which an error that a program reports may have:
errors are stored as JSON. Names and keys with one are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import asyncpg
import msgspec

from bus.errors import RecordDamaged
from bus.model.leases import HoldState
from bus.model.records import RunStatus, RunSummary, StepStatus, WorkflowRun, WorkflowStepLog
from bus.model.values import row_range

__all__ = [
    "HOLD_COLUMNS",
    "LARGE_CHARACTERS",
    "RECORD_COLUMNS",
    "RUN_COLUMNS",
    "STEP_COLUMNS",
    "STEP_ORDER",
    "SUMMARY",
    "SUMMARY_COLUMNS",
    "error_text",
    "hold_state",
    "part",
    "run_record",
    "run_row",
    "step_record",
    "summary_record",
    "value_of",
]

RUN_COLUMNS = (
    "id, workflow_id, workflow_name, status, trigger_type, trigger_payload, context, started_at,"
    " completed_at, error, concurrency_key, result, parent_run_id, not_before, attributes"
)
"""What a run is created with, in the order of `NewRun.row`."""

RECORD_COLUMNS = ", ".join(f"run.{name}" for name in f"{RUN_COLUMNS}, cancel_by, continued_as".split(", "))
"""The columns of its record, of a table that is called `run`."""

HOLD_COLUMNS = (
    "fence, holder_bot_id, lease_expires_at, claim_id, recoveries, queue_place, queued_at, queued_until, stopped,"
    " last_holder_bot_id, progress, cleans_up, cancel_by, cancel_reason"
)
"""In the order of the fields of `HoldState`."""

_SUMMARY_NAMES = (
    "id", "workflow_id", "workflow_name", "status", "trigger_type", "started_at", "completed_at", "error",
    "concurrency_key", "holder_bot_id", "fence", "lease_expires_at", "recoveries", "queued_at", "stopped",
    "parent_run_id", "not_before", "attributes", "cancel_by", "continued_as",
)  # fmt: skip

SUMMARY_COLUMNS = ", ".join(f"run.{name}" for name in _SUMMARY_NAMES)
"""The columns of a run as it is listed, of a table that is called `run`."""

SUMMARY = f"SELECT {SUMMARY_COLUMNS} FROM workflow_runs AS run"

STEP_COLUMNS = (
    "id, run_id, step_id, step_name, status, attempt, idempotency_key, input, output, error, started_at,"
    " completed_at"
)

STEP_ORDER = "ORDER BY began, number"

LARGE_CHARACTERS = 1024 * 1024
"""Longer values are read one by one: many of them at once would fill memory."""

_decode = msgspec.json.decode


def error_text(error: str | None) -> str | None:
    """Return an error as it is stored."""
    return None if error is None else msgspec.json.encode(error).decode()


def value_of(text: str | None) -> Any:
    """Return the value of a JSON text. Raises msgspec.DecodeError."""
    return None if text is None else _decode(text)


def part(limit: int | None, offset: int) -> tuple[int | None, int]:
    """Return a limit and an offset; None means no limit. Raise InvalidValue outside 0 to 2**63 - 1."""
    return limit, row_range(limit, offset)[1]


def run_row(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the row of a new run as it is stored."""
    return (*row[:9], error_text(row[9]), *row[10:])


def run_record(row: asyncpg.Record) -> WorkflowRun:
    """Return the run that the columns of a record hold. Raise RecordDamaged if they are not valid."""
    try:
        return WorkflowRun(
            id=row[0],
            workflow_id=row[1],
            workflow_name=row[2],
            status=RunStatus(row[3]),
            trigger_type=row[4],
            trigger_payload=value_of(row[5]),
            context=value_of(row[6]),
            started_at=row[7],
            completed_at=row[8],
            error=value_of(row[9]),
            concurrency_key=row[10],
            result=value_of(row[11]),
            parent_run_id=row[12],
            not_before=row[13],
            attributes=_attributes(row[14]),
            cancel_by=row[15],
            continued_as=row[16],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_runs", f"id {row[0]}") from error


def hold_state(values: Iterable[Any]) -> HoldState:
    """Return the hold that the columns of one hold. Raise ValueError if they are not valid."""
    *most, reason = values
    fields: list[Any] = [*most, value_of(reason)]
    return HoldState(*fields)


def summary_record(row: asyncpg.Record) -> RunSummary:
    """Return the run that the columns of a summary hold. Raise RecordDamaged if they are not valid."""
    try:
        return RunSummary(
            id=row[0],
            workflow_id=row[1],
            workflow_name=row[2],
            status=RunStatus(row[3]),
            trigger_type=row[4],
            started_at=row[5],
            completed_at=row[6],
            error=value_of(row[7]),
            concurrency_key=row[8],
            holder=row[9],
            fence=row[10],
            lease_expires_at=row[11],
            recoveries=row[12],
            queued_at=row[13],
            stopped=row[14],
            parent_run_id=row[15],
            not_before=row[16],
            attributes=_attributes(row[17]),
            cancel_by=row[18],
            continued_as=row[19],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_runs", f"id {row[0]}") from error


def step_record(row: asyncpg.Record) -> WorkflowStepLog:
    """Return the step log that the columns of one hold. Raise RecordDamaged if they are not valid."""
    try:
        return WorkflowStepLog(
            id=row[0],
            run_id=row[1],
            step_id=row[2],
            step_name=row[3],
            status=StepStatus(row[4]),
            attempt=row[5],
            idempotency_key=row[6],
            input=value_of(row[7]),
            output=value_of(row[8]),
            error=value_of(row[9]),
            started_at=row[10],
            completed_at=row[11],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_steps", f"id {row[0]}") from error


def _attributes(text: str | None) -> dict[str, str]:
    return {} if text is None else _decode(text, type=dict[str, str])
