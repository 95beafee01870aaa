"""Writing what a unit of work has changed: one statement for each kind of row, whatever their number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import asyncpg

from bus.model.records import StepStatus, WorkflowStepLog

from ..server.incarnation import one_statement
from .rows import RUN_COLUMNS, STEP_COLUMNS, error_text

__all__ = ["CANCELLED", "INTERRUPTED", "Changes", "StepEnd", "StepRow", "as_one", "flush"]

_CLOSE = """
    UPDATE workflow_steps SET status = 'failed', error = $1, completed_at = COALESCE(completed_at, $2)
    WHERE run_id = ANY($3::text[]) AND status = ANY($4::text[])"""

# In the order in which they were created, which is that of their numbers.
_CREATE_RUNS = f"""
    INSERT INTO workflow_runs ({RUN_COLUMNS}, created_by_bot_id, schedule_id, scheduled_at, definition)
    SELECT new.id, new.workflow_id, new.workflow_name, new.status, new.trigger_type, new.trigger_payload,
        new.context, new.started_at, new.completed_at, new.error, new.concurrency_key, new.result,
        new.parent_run_id, new.not_before, new.attributes, new.created_by_bot_id, new.schedule_id,
        new.scheduled_at, workflow.definition
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
            $17::text[], $18::text[])
        WITH ORDINALITY AS new ({RUN_COLUMNS}, created_by_bot_id, schedule_id, scheduled_at, place)
        JOIN workflows AS workflow ON workflow.id = new.workflow_id
    ORDER BY new.place"""

_ADD_ATTRIBUTES = """
    INSERT INTO workflow_run_attributes (name, value, started_at, run_id)
    SELECT attribute.key, attribute.value, run.started_at, run.id
    FROM workflow_runs AS run, json_each_text(run.attributes::json) AS attribute
    WHERE run.id = ANY($1::text[])"""

_UPDATE_RUNS = """
    UPDATE workflow_runs AS run
    SET status = new.status, error = new.error, completed_at = new.completed_at,
        context = COALESCE(new.context, run.context), result = COALESCE(new.result, run.result),
        fence = new.fence, holder_bot_id = new.holder_bot_id, lease_expires_at = new.lease_expires_at,
        claim_id = new.claim_id, recoveries = new.recoveries, queue_place = new.queue_place,
        queued_at = new.queued_at, queued_until = new.queued_until, stopped = new.stopped,
        last_holder_bot_id = new.last_holder_bot_id, progress = new.progress, cleans_up = new.cleans_up,
        cancel_by = new.cancel_by, cancel_reason = new.cancel_reason, continued_as = new.continued_as
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::text[],
            $9::text[], $10::text[], $11::integer[], $12::bigint[], $13::text[], $14::text[], $15::boolean[],
            $16::text[], $17::integer[], $18::boolean[], $19::text[], $20::text[], $21::text[])
        AS new (id, status, error, completed_at, context, result, fence, holder_bot_id, lease_expires_at, claim_id,
            recoveries, queue_place, queued_at, queued_until, stopped, last_holder_bot_id, progress, cleans_up,
            cancel_by, cancel_reason, continued_as)
    WHERE run.id = new.id"""

_CREATED_TYPES = [*["text"] * 5, "integer", *["text"] * 6]

_CHANGED_TYPES = ["text"] * 6


def _arrays(types: Sequence[str], first: int) -> str:
    """Return the columns of rows that are to be written, as values from a number on."""
    return ", ".join(f"${number}::{each}[]" for number, each in enumerate(types, first))


def _create_steps(first: int = 1, condition: str = "true") -> str:
    return f"""
        INSERT INTO workflow_steps ({STEP_COLUMNS})
        SELECT {STEP_COLUMNS}
        FROM unnest({_arrays(_CREATED_TYPES, first)}) WITH ORDINALITY AS new ({STEP_COLUMNS}, place)
        WHERE {condition} ORDER BY place"""


def _update_steps(first: int = 1, condition: str = "true") -> str:
    return f"""
        UPDATE workflow_steps AS step
        SET status = new.status, output = COALESCE(new.output, step.output), error = new.error,
            started_at = new.started_at, completed_at = new.completed_at
        FROM unnest({_arrays(_CHANGED_TYPES, first)}) AS new (id, status, output, error, started_at, completed_at)
        WHERE step.id = new.id AND {condition}"""


_CREATE_STEPS, _UPDATE_STEPS = _create_steps(), _update_steps()

_IF_MOVED = "EXISTS (SELECT FROM moved)"

_STEPS_AS_ONE = one_statement(
    f"created AS ({_create_steps(7, _IF_MOVED)}), changed AS ({_update_steps(19, _IF_MOVED)})"
)

_ADD_SIGNALS = """
    INSERT INTO workflow_signals (run_id, id, name, payload, sender, sent_at)
    SELECT run_id, id, name, payload, sender, sent_at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
        WITH ORDINALITY AS new (run_id, id, name, payload, sender, sent_at, place)
    ORDER BY place"""

_TAKE_SIGNALS = """
    UPDATE workflow_signals AS signal SET taken_by = new.step_id
    FROM unnest($1::text[], $2::text[], $3::text[]) AS new (run_id, id, step_id)
    WHERE signal.run_id = new.run_id AND signal.id = new.id"""

_PASS_ON_SIGNALS = """
    UPDATE workflow_signals AS signal SET run_id = new.successor_id
    FROM unnest($1::text[], $2::text[]) AS new (run_id, successor_id)
    WHERE signal.run_id = new.run_id AND signal.taken_by IS NULL AND NOT EXISTS (
        SELECT 1 FROM workflow_signals AS known WHERE known.run_id = new.successor_id AND known.id = signal.id)"""


# The children that are there now. A request with a shorter time takes the place of one before.
_CANCEL_CHILDREN = """
    INSERT INTO workflow_cancellations (run_id, reason, cancel_by, last_id)
    SELECT parent.id, parent.reason, parent.cancel_by, last.id
    FROM unnest($1::text[], $2::text[], $3::text[]) AS parent (id, reason, cancel_by)
        CROSS JOIN LATERAL (
            SELECT id FROM workflow_runs WHERE parent_run_id = parent.id ORDER BY number DESC LIMIT 1) AS last
    ON CONFLICT (run_id) DO UPDATE SET (number, reason, cancel_by, after_id, last_id) =
        (EXCLUDED.number, EXCLUDED.reason, EXCLUDED.cancel_by, NULL, EXCLUDED.last_id)"""


class StepEnd(NamedTuple):
    """How the steps of a run are ended that have not ended yet."""

    statuses: tuple[StepStatus, ...]
    error: str


INTERRUPTED = StepEnd((StepStatus.RUNNING,), "interrupted")
CANCELLED = StepEnd((StepStatus.PENDING, StepStatus.RUNNING, StepStatus.WAITING_APPROVAL), "cancelled")


class StepRow(NamedTuple):
    """A step log to create or to change; without an output, a change keeps the one that is stored."""

    is_new: bool
    step: WorkflowStepLog
    input: str | None
    output: str | None


class Changes:
    """What is to be written, in the order in which it changed; runs and step logs by their ids."""

    def __init__(self) -> None:
        self.closings: list[tuple[str, StepEnd]] = []
        self.created: dict[str, tuple[Any, ...]] = {}
        self.runs: dict[str, tuple[Any, ...]] = {}
        self.steps: dict[str, StepRow] = {}
        self.signals: list[tuple[Any, ...]] = []
        self.taken: list[tuple[str, str, str]] = []
        self.passed: list[tuple[str, str]] = []
        self.cancelled: dict[str, tuple[str, str]] = {}
        """The runs whose children are cancelled, with why, and until when their programs may clean up."""

    def __repr__(self) -> str:
        return f"<Changes of {len(self.created) + len(self.runs)} runs, {len(self.steps)} steps>"


def as_one(changes: Changes) -> tuple[str, Sequence[Any]] | None:
    """Return changes as the SQL of a batch, with its own values, if they are only of step logs."""
    others = (
        changes.closings, changes.created, changes.runs, changes.signals, changes.taken, changes.passed,
        changes.cancelled,
    )  # fmt: skip
    if any(others):
        return None
    created, changed = _steps(changes)
    columns = _columns(created) or [[] for _ in _CREATED_TYPES]
    return _STEPS_AS_ONE, [*columns, *(_columns(changed) or [[] for _ in _CHANGED_TYPES])]


async def flush(connection: asyncpg.Connection, changes: Changes, now: str) -> None:
    """Write changes.

    Steps are closed first, as they are stored: those of the unit are in `steps` as they are afterwards.
    """
    for closing, group in groupby(changes.closings, key=lambda each: each[1]):
        ids = [run_id for run_id, _ in group]
        await connection.execute(_CLOSE, error_text(closing.error), now, ids, list(closing.statuses))
    if changes.created:
        await connection.execute(_CREATE_RUNS, *_columns(list(changes.created.values())))
        attributed = [id for id, row in changes.created.items() if row[14] is not None]
        if attributed:
            await connection.execute(_ADD_ATTRIBUTES, attributed)
    if changes.runs:
        await connection.execute(_UPDATE_RUNS, *_columns(list(changes.runs.values())))
    created, changed = _steps(changes)
    if created:
        await connection.execute(_CREATE_STEPS, *_columns(created))
    if changed:
        await connection.execute(_UPDATE_STEPS, *_columns(changed))
    if changes.signals:
        await connection.execute(_ADD_SIGNALS, *_columns(changes.signals))
    if changes.taken:
        await connection.execute(_TAKE_SIGNALS, *_columns(changes.taken))
    if changes.passed:
        await connection.execute(_PASS_ON_SIGNALS, *_columns(changes.passed))
    if changes.cancelled:
        rows = [(run_id, *why) for run_id, why in changes.cancelled.items()]
        await connection.execute(_CANCEL_CHILDREN, *_columns(rows))


def _steps(changes: Changes) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Return the rows of step logs to create, and of those to change."""
    rows = changes.steps.values()
    return [_created(row) for row in rows if row.is_new], [_changed(row) for row in rows if not row.is_new]


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _created(row: StepRow) -> tuple[Any, ...]:
    step = row.step
    return (
        step.id,
        step.run_id,
        step.step_id,
        step.step_name,
        step.status,
        step.attempt,
        step.idempotency_key,
        row.input,
        row.output,
        error_text(step.error),
        step.started_at,
        step.completed_at,
    )


def _changed(row: StepRow) -> tuple[Any, ...]:
    step = row.step
    return (step.id, step.status, row.output, error_text(step.error), step.started_at, step.completed_at)
