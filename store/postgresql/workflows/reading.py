"""What a unit of work reads: with one statement for runs, and one for step logs, whatever their number."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import asyncpg

from bus.errors import RecordDamaged
from bus.model.leases import HeldRun
from bus.model.records import WorkflowRun, WorkflowStepLog

from .rows import HOLD_COLUMNS, LARGE_CHARACTERS, RECORD_COLUMNS, hold_state, run_record, step_record

__all__ = [
    "FoundStep",
    "KnownHold",
    "KnownRun",
    "KnownStep",
    "KnownWorkflow",
    "Others",
    "Queue",
    "count_others",
    "count_recorded",
    "read_output",
    "read_record",
    "read_runs",
    "read_steps",
    "read_workflows",
]

_SIZE = "octet_length(context) + COALESCE(octet_length(trigger_payload), 0) + COALESCE(octet_length(result), 0)"

# Runs with their holds and workflows; values that are large, or not asked for, are left out.
_FIND_RUNS = f"""
    SELECT run.id, workflow_id, workflow_name, status, trigger_type,
        CASE WHEN is_whole THEN trigger_payload END, CASE WHEN is_whole THEN context END, started_at,
        completed_at, error, concurrency_key, CASE WHEN is_whole THEN result END, parent_run_id, not_before,
        attributes, cancel_by, continued_as, {HOLD_COLUMNS}, queue, created_by_bot_id, NOT is_whole, workflow.name,
        workflow.owner_bot_id, workflow.concurrency
    FROM unnest($1::text[], $2::boolean[]) AS asked (id, whole)
        JOIN workflow_runs AS run ON run.id = asked.id
        JOIN workflows AS workflow ON workflow.id = run.workflow_id
        CROSS JOIN LATERAL (SELECT asked.whole AND {_SIZE} <= {LARGE_CHARACTERS}) AS size (is_whole)"""

_FIND_RECORD = f"SELECT {RECORD_COLUMNS} FROM workflow_runs AS run WHERE id = $1"

_FIND_STEPS = f"""
    SELECT step.id, step.run_id, step_id, step_name, step.status, attempt, idempotency_key, input,
        CASE WHEN octet_length(output) <= {LARGE_CHARACTERS} THEN output END, step.error, step.started_at,
        step.completed_at, octet_length(output) > {LARGE_CHARACTERS}, run.id, run.fence, run.status,
        run.last_holder_bot_id, clock_timestamp()
    FROM unnest($1::text[], $2::text[]) AS asked (id, run_id)
        LEFT JOIN workflow_steps AS step ON step.id = asked.id
        LEFT JOIN workflow_runs AS run ON run.id = COALESCE(asked.run_id, step.run_id)"""

_FIND_OUTPUT = "SELECT output FROM workflow_steps WHERE id = $1"

_FIND_WORKFLOWS = "SELECT id, name, owner_bot_id, concurrency FROM workflows WHERE id = ANY($1::text[])"

_RECORDED = """
    SELECT COUNT(*) FROM workflow_steps
    WHERE run_id = $1 AND status IN ('completed', 'skipped') AND id <> ALL($2::text[])"""

# For runs of whose queues the unit knows some: what the others take up.
_COUNT_OTHERS = """
    SELECT asked.workflow_id, asked.queue, asked.place,
        (SELECT COUNT(*) FROM workflow_runs AS run
         WHERE run.workflow_id = asked.workflow_id AND run.queue = asked.queue AND run.status = 'running'
            AND run.id <> ALL($5::text[])),
        (SELECT COUNT(*) FROM workflow_runs AS run
         WHERE run.workflow_id = asked.workflow_id AND run.queue = asked.queue
            AND run.queue_place IS NOT NULL AND run.queued_until > $4
            AND (asked.place IS NULL OR run.queue_place < asked.place) AND run.id <> ALL($5::text[])),
        (SELECT COALESCE(MAX(run.queue_place), 0) FROM workflow_runs AS run
         WHERE run.workflow_id = asked.workflow_id AND run.queue = asked.queue AND run.queue_place IS NOT NULL)
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS asked (workflow_id, queue, place)"""

_RECORD_FIELDS = 17
_HOLD_FIELDS = 14
_STEP_FIELDS = 12


class KnownWorkflow(NamedTuple):
    """What a run is created with, or waits for."""

    name: str
    owner: str | None
    concurrency: int | None


class KnownRun(NamedTuple):
    """A run; if it is `partial`, its context, payload and result are not here."""

    held: HeldRun
    queue: str
    created_by: str | None
    partial: bool


class KnownHold(NamedTuple):
    """What a write of a step log needs to know of its run."""

    status: str
    fence: int
    last_holder: str | None


class KnownStep(NamedTuple):
    """A step log; if it is `partial`, its output is not here."""

    step: WorkflowStepLog
    partial: bool


Queue = tuple[str, str, int | None]
"""A workflow, whose slots are shared by the runs of a queue, and a place in that."""


class Others(NamedTuple):
    """What runs that a unit does not know take up of a queue: slots, and places before one."""

    running: int
    ahead: int
    last_place: int


class FoundStep(NamedTuple):
    """A step log that was asked for, if it exists and is not damaged, and its run."""

    id: str | None
    known: KnownStep | None
    run_id: str | None
    hold: KnownHold | None
    read_at: datetime
    """By the server's clock."""


async def read_runs(
    connection: asyncpg.Connection, whole: Mapping[str, bool]
) -> AsyncIterator[tuple[str, KnownRun | None, str, KnownWorkflow]]:
    """Yield runs, None for one that is damaged, with their workflows; as records those that are asked for whole."""
    ids = [id for id in whole if "\0" not in id]
    for row in await connection.fetch(_FIND_RUNS, ids, [whole[id] for id in ids]) if ids else ():
        queue, created_by, partial, name, owner, concurrency = row[_RECORD_FIELDS + _HOLD_FIELDS :]
        known = None
        try:
            hold = hold_state(row[_RECORD_FIELDS : _RECORD_FIELDS + _HOLD_FIELDS])
            known = KnownRun(HeldRun(run_record(row), hold), queue, created_by, partial)
        except (RecordDamaged, ValueError):
            pass
        yield row[0], known, row[1], KnownWorkflow(name, owner, concurrency)


async def read_record(connection: asyncpg.Connection, run_id: str) -> WorkflowRun:
    """Return the record of a run that exists. Raise RecordDamaged."""
    [row] = await connection.fetch(_FIND_RECORD, run_id)
    return run_record(row)


async def read_steps(
    connection: asyncpg.Connection, asked: Sequence[tuple[str, str | None]]
) -> AsyncIterator[FoundStep]:
    """Yield step logs with the runs for which they are asked; None: their own."""
    sent = [(id, run_id) for id, run_id in asked if "\0" not in id and "\0" not in (run_id or "")]
    if not sent:
        return
    for row in await connection.fetch(_FIND_STEPS, *map(list, zip(*sent, strict=True))):
        partial, run_id, fence, status, last_holder, read_at = row[_STEP_FIELDS:]
        known = None
        with suppress(RecordDamaged):
            known = None if row[0] is None else KnownStep(step_record(row), bool(partial))
        hold = None if run_id is None else KnownHold(status, fence, last_holder)
        yield FoundStep(row[0], known, run_id, hold, read_at)


async def read_output(connection: asyncpg.Connection, step_log_id: str) -> str | None:
    """Return the output of a step log, as text."""
    [[output]] = await connection.fetch(_FIND_OUTPUT, step_log_id)
    return output  # type: ignore[no-any-return]


async def read_workflows(connection: asyncpg.Connection, ids: Iterable[str]) -> dict[str, KnownWorkflow]:
    """Return workflows by their ids."""
    known = [id for id in ids if "\0" not in id]
    rows = await connection.fetch(_FIND_WORKFLOWS, known) if known else ()
    return {row[0]: KnownWorkflow(*row[1:]) for row in rows}


async def count_recorded(connection: asyncpg.Connection, run_id: str, without: Sequence[str]) -> int:
    """Count the completed and skipped steps of a run, without some step logs."""
    [[count]] = await connection.fetch(_RECORDED, run_id, without)
    return int(count)


async def count_others(
    connection: asyncpg.Connection, queues: Sequence[Queue], now: str, without: Sequence[str]
) -> dict[Queue, Others]:
    """Return what is taken up in queues, without some runs."""
    columns = map(list, zip(*queues, strict=True))
    rows = await connection.fetch(_COUNT_OTHERS, *columns, now, without)
    return {(row[0], row[1], row[2]): Others(*row[3:]) for row in rows}
