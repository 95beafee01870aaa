"""Rows of runs in SQLite, and the records that they hold.

Owns the columns of a run's record, and reading them. `runs` changes runs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import aiosqlite
import msgspec

from bus.errors import RecordDamaged
from bus.model.records import RunStatus, RunSummary, WorkflowRun
from bus.model.values import json_text
from bus.model.workflows import RunOwners

from ..file.reader import Reader, is_text

__all__ = [
    "RECORD_COLUMNS",
    "RUN_COLUMNS",
    "SUMMARY",
    "SUMMARY_COLUMNS",
    "add_attributes",
    "find_owners",
    "find_run",
    "find_workflow",
    "run_record",
    "summary_record",
]

RUN_COLUMNS = (
    "id, workflow_id, workflow_name, status, trigger_type, trigger_payload, context, started_at,"
    " completed_at, error, concurrency_key, result, parent_run_id, not_before, attributes"
)
"""What a run is created with."""

RECORD_COLUMNS = f"{RUN_COLUMNS}, cancel_by, continued_as"
"""The columns of its record."""

SUMMARY_COLUMNS = (
    "id, workflow_id, workflow_name, status, trigger_type, started_at, completed_at, error, concurrency_key,"
    " holder_bot_id, fence, lease_expires_at, recoveries, queued_at, stopped, parent_run_id, not_before,"
    " attributes, cancel_by, continued_as"
)

SUMMARY = f"SELECT {SUMMARY_COLUMNS} FROM workflow_runs"

_OWNERS = """
    SELECT run.id, workflow.name, workflow.owner_bot_id, run.created_by_bot_id, run.holder_bot_id,
        run.last_holder_bot_id
    FROM workflow_runs AS run JOIN workflows AS workflow ON workflow.id = run.workflow_id
    WHERE run.id IN (SELECT value FROM json_each(?))"""


_ADD_ATTRIBUTES = """
    INSERT INTO workflow_run_attributes (name, value, started_at, run_id)
    SELECT key, value, ?, ? FROM json_each(?)"""


async def add_attributes(connection: aiosqlite.Connection, run: WorkflowRun) -> None:
    """Enter a new run where it is found by its attributes."""
    if run.attributes:
        await connection.execute(_ADD_ATTRIBUTES, (run.started_at, run.id, json_text(run.attributes, "attributes")))


def run_record(row: sqlite3.Row) -> WorkflowRun:
    """Return the run that these columns hold. Raise RecordDamaged if they are not valid."""
    # The decoder reports damage in the three columns left out, which may be large.
    if not is_text((*row[:5], *row[7:11], *row[12:])):
        raise RecordDamaged("workflow_runs", f"id {row[0]}")
    try:
        return WorkflowRun(
            id=row[0],
            workflow_id=row[1],
            workflow_name=row[2],
            status=RunStatus(row[3]),
            trigger_type=row[4],
            trigger_payload=None if row[5] is None else msgspec.json.decode(row[5]),
            context=msgspec.json.decode(row[6]),
            started_at=row[7],
            completed_at=row[8],
            error=row[9],
            concurrency_key=row[10],
            result=None if row[11] is None else msgspec.json.decode(row[11]),
            parent_run_id=row[12],
            not_before=row[13],
            attributes=_attributes(row[14]),
            cancel_by=row[15],
            continued_as=row[16],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_runs", f"id {row[0]}") from error


async def find_run(connection: aiosqlite.Connection | Reader, run_id: str) -> WorkflowRun | None:
    """Return a run by id."""
    rows: Iterable[sqlite3.Row] = await connection.execute_fetchall(
        f"SELECT {RECORD_COLUMNS} FROM workflow_runs WHERE id = ?", (run_id,)
    )
    return next((run_record(row) for row in rows), None)


async def find_owners(reader: aiosqlite.Connection | Reader, run_ids: Sequence[str]) -> dict[str, RunOwners]:
    """Return whose runs are, by their ids."""
    ids = json_text(list(run_ids), "run ids")
    rows: Iterable[sqlite3.Row] = await reader.execute_fetchall(_OWNERS, (ids,))
    return {row[0]: RunOwners(*row) for row in rows if is_text(row)}


async def find_workflow(connection: aiosqlite.Connection, id: str) -> tuple[str, str | None] | None:
    """Return the name of a definition, and the bot that it belongs to, if any; None if it does not exist."""
    rows = await connection.execute_fetchall("SELECT name, owner_bot_id FROM workflows WHERE id = ?", (id,))
    return next(((row[0], row[1]) for row in rows), None)


def summary_record(row: sqlite3.Row) -> RunSummary:
    """Return the run that these columns of a summary hold. Raise RecordDamaged if they are not valid."""
    if not is_text(row):
        raise RecordDamaged("workflow_runs", f"id {row[0]}")
    try:
        return RunSummary(
            id=row[0],
            workflow_id=row[1],
            workflow_name=row[2],
            status=RunStatus(row[3]),
            trigger_type=row[4],
            started_at=row[5],
            completed_at=row[6],
            error=row[7],
            concurrency_key=row[8],
            holder=row[9],
            fence=row[10],
            lease_expires_at=row[11],
            recoveries=row[12],
            queued_at=row[13],
            stopped=bool(row[14]),
            parent_run_id=row[15],
            not_before=row[16],
            attributes=_attributes(row[17]),
            cancel_by=row[18],
            continued_as=row[19],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_runs", f"id {row[0]}") from error


def _attributes(text: str | None) -> dict[str, str]:
    return {} if text is None else msgspec.json.decode(text, type=dict[str, str])
