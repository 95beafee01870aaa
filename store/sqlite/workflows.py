"""Workflow definitions, runs and steps in SQLite.

Owns their SQL and how each becomes a row and a record again. What a status may become is decided in
`store.transitions`; here the record is read, the decision asked for and its result written, in one operation.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import aiosqlite
import msgspec

from ..errors import Conflict, DefinitionInUse, NotFound, RecordDamaged, Refused
from ..records import (
    BotOwner,
    Owner,
    RunStatus,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
    timestamp,
)
from ..transitions import advance_run, advance_step
from ..values import (
    CONTEXT_BYTES_MAX,
    STEP_VALUE_BYTES_MAX,
    json_text,
    json_value,
    normal_record,
    row_limit,
    same_values,
)
from .database import Database
from .reader import Reader
from .writer import Transaction

__all__ = ["SqliteWorkflows"]

_SAVE_DEFINITION = """
    INSERT INTO workflows (id, name, owner_type, owner_bot_id, definition, created_at, updated_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, owner_type = excluded.owner_type, owner_bot_id = excluded.owner_bot_id,
        definition = excluded.definition, updated_at = excluded.updated_at"""

# The expression is the one of idx_workflows_owner.
_OWNED = "owner_type = ? AND COALESCE(owner_bot_id, '') = ?"
_DEFINITION_ORDER = "ORDER BY name, owner_type, COALESCE(owner_bot_id, ''), id"

_RUN_COLUMNS = (
    "id, workflow_id, workflow_name, status, trigger_type, trigger_payload, context, started_at,"
    " completed_at, error, concurrency_key"
)
_INSERT_RUN = f"INSERT INTO workflow_runs ({_RUN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_RUN = """
    UPDATE workflow_runs
    SET status = ?, error = ?, completed_at = ?, context = COALESCE(?, context) WHERE id = ?"""

_STEP_COLUMNS = (
    "id, run_id, step_id, step_name, status, attempt, idempotency_key, input, output, error, started_at,"
    " completed_at"
)
_INSERT_STEP = f"INSERT INTO workflow_steps ({_STEP_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_STEP = """
    UPDATE workflow_steps
    SET status = ?, error = ?, started_at = ?, completed_at = ?, output = COALESCE(?, output) WHERE id = ?"""

# A step that was never running began when it ended; one that did neither comes last. rowid is the order of
# creation.
_STEP_ORDER = """
    ORDER BY COALESCE(started_at, completed_at) IS NULL, COALESCE(started_at, completed_at), rowid"""


class SqliteWorkflows:
    """The WorkflowRepository over SQLite; see `store.repository` for what each method promises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<SqliteWorkflows {self._database.path}>"

    # ── Definitions ──────────────────────────────────────────────────────────────────────────────────────

    async def save_definition(self, definition: WorkflowDefinition) -> None:
        """Insert or replace by id."""
        owner_type, owner_bot_id = _owner_columns(definition.owner)
        text = json_text(normal_record(definition, f"workflow {definition.id!r}"), f"workflow {definition.id!r}")

        async def operation(transaction: Transaction) -> None:
            row = (definition.id, definition.name, owner_type, owner_bot_id, text, _now())
            try:
                await transaction.connection.execute(_SAVE_DEFINITION, row)
            except sqlite3.IntegrityError as error:
                raise _refusal(
                    error,
                    missing=NotFound("bot", str(owner_bot_id)),
                    conflict=f"the name {definition.name!r} of this owner belongs to another workflow",
                ) from error

        await self._database.writer.run(operation)

    async def get_definition(self, definition_id: str) -> WorkflowDefinition | None:
        """Give a definition by id."""
        definitions = await self._definitions("WHERE id = ?", (definition_id,))
        return definitions[0] if definitions else None

    async def get_definition_by_name(self, name: str, owner: Owner) -> WorkflowDefinition | None:
        """Give a definition by name and owner."""
        owner_type, owner_bot_id = _owner_columns(owner)
        found = await self._definitions(f"WHERE name = ? AND {_OWNED}", (name, owner_type, owner_bot_id or ""))
        return found[0] if found else None

    async def list_definitions(self, owner: Owner | None = None) -> list[WorkflowDefinition]:
        """List by name, owner, id; `None` lists everybody's."""
        if owner is None:
            return await self._definitions(_DEFINITION_ORDER, ())
        owner_type, owner_bot_id = _owner_columns(owner)
        return await self._definitions(f"WHERE {_OWNED} {_DEFINITION_ORDER}", (owner_type, owner_bot_id or ""))

    async def delete_definition(self, definition_id: str, *, cascade: bool = False) -> bool:
        """Delete, with its runs and their steps where `cascade` says so."""

        async def operation(transaction: Transaction) -> bool:
            connection = transaction.connection
            if cascade:
                await connection.execute("DELETE FROM workflow_runs WHERE workflow_id = ?", (definition_id,))
            else:
                [[runs]] = await connection.execute_fetchall(
                    "SELECT COUNT(*) FROM workflow_runs WHERE workflow_id = ?", (definition_id,)
                )
                if runs:
                    raise DefinitionInUse(definition_id, runs)
            cursor = await connection.execute("DELETE FROM workflows WHERE id = ?", (definition_id,))
            return cursor.rowcount > 0

        return await self._database.writer.run(operation)

    async def _definitions(self, sql: str, parameters: Sequence[Any]) -> list[WorkflowDefinition]:
        rows = await self._database.read.execute_fetchall(f"SELECT id, definition FROM workflows {sql}", parameters)
        return [_definition(row) for row in rows]

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_run(self, run: WorkflowRun) -> WorkflowRun:
        """Create, or give what is there when all fields are the same."""
        wanted = normal_record(run, f"run {run.id!r}")
        row = _run_row(wanted)

        async def operation(transaction: Transaction) -> WorkflowRun:
            stored = await _find_run(transaction.connection, wanted.id)
            if stored is not None:
                if same_values(stored, wanted):
                    return stored
                raise Conflict(f"run {wanted.id!r} is stored with other fields")
            try:
                await transaction.connection.execute(_INSERT_RUN, row)
            except sqlite3.IntegrityError as error:
                raise _refusal(error, missing=NotFound("workflow", wanted.workflow_id)) from error
            return wanted

        return await self._database.writer.run(operation)

    async def update_run_status(
        self, run_id: str, status: RunStatus, error: str | None = None, context: Any = None
    ) -> WorkflowRun:
        """Move a run to a status. `error=None` clears the error, `context=None` keeps the context."""
        what = f"context of run {run_id!r}"
        text = None if context is None else json_text(context, what, bytes_max=CONTEXT_BYTES_MAX)
        given = json_value(context, what)
        reason = json_value(error, f"error of run {run_id!r}")

        async def operation(transaction: Transaction) -> WorkflowRun:
            run = await _find_run(transaction.connection, run_id)
            if run is None:
                raise NotFound("run", run_id)
            after = advance_run(run, status, error=reason, context=given, now=_now())
            if after is not run:
                await transaction.connection.execute(
                    _UPDATE_RUN, (after.status, after.error, after.completed_at, text, run_id)
                )
            return after

        return await self._database.writer.run(operation)

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Give a run by id."""
        return await _find_run(self._database.read, run_id)

    async def list_runs(self, workflow_id: str, limit: int = 50) -> list[WorkflowRun]:
        """List a workflow's runs, newest first."""
        return await self._runs(
            "WHERE workflow_id = ? ORDER BY started_at DESC, rowid DESC LIMIT ?",
            (workflow_id, row_limit(limit)),
        )

    async def list_crashed_runs(self) -> list[WorkflowRun]:
        """List the runs that are `running`, oldest first."""
        return await self._runs("WHERE status = ? ORDER BY started_at, rowid", (RunStatus.RUNNING,))

    async def _runs(self, sql: str, parameters: Sequence[Any]) -> list[WorkflowRun]:
        rows = await self._database.read.execute_fetchall(
            f"SELECT {_RUN_COLUMNS} FROM workflow_runs {sql}", parameters
        )
        return [_run(row) for row in rows]

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def create_step_log(self, step: WorkflowStepLog) -> WorkflowStepLog:
        """Create, or give what is there when all fields are the same."""
        wanted = normal_record(step, f"step {step.step_id!r}")
        row = _step_row(wanted)

        async def operation(transaction: Transaction) -> WorkflowStepLog:
            stored = await _find_step(transaction.connection, wanted.id)
            if stored is not None:
                if same_values(stored, wanted):
                    return stored
                raise Conflict(f"step {wanted.id!r} is stored with other fields")
            try:
                await transaction.connection.execute(_INSERT_STEP, row)
            except sqlite3.IntegrityError as error:
                raise _refusal(error, missing=NotFound("run", wanted.run_id)) from error
            return wanted

        return await self._database.writer.run(operation)

    async def update_step_status(
        self, step_id: str, status: StepStatus, output: Any = None, error: str | None = None
    ) -> WorkflowStepLog:
        """Move a step log, named by its own id, to a status. None keeps output and error."""
        given = json_value(output, f"output of step {step_id!r}")
        reason = json_value(error, f"error of step {step_id!r}")

        async def operation(transaction: Transaction) -> WorkflowStepLog:
            step = await _find_step(transaction.connection, step_id)
            if step is None:
                raise NotFound("step", step_id)
            text = _step_text(given, f"output of step {step.step_id!r}")
            after = advance_step(step, status, output=given, error=reason, now=_now())
            if after is not step:
                await transaction.connection.execute(
                    _UPDATE_STEP,
                    (after.status, after.error, after.started_at, after.completed_at, text, step_id),
                )
            return after

        return await self._database.writer.run(operation)

    async def list_step_logs(self, run_id: str) -> list[WorkflowStepLog]:
        """List a run's step logs in the order in which they began."""
        rows = await self._database.read.execute_fetchall(
            f"SELECT {_STEP_COLUMNS} FROM workflow_steps WHERE run_id = ? {_STEP_ORDER}", (run_id,)
        )
        return [_step(row) for row in rows]

    async def get_completed_step_ids(self, run_id: str) -> list[str]:
        """List the step ids that completed, in the order they began, each once, without skipped ones."""
        rows = await self._database.read.execute_fetchall(
            f"SELECT step_id FROM workflow_steps WHERE run_id = ? AND status = ? {_STEP_ORDER}",
            (run_id, StepStatus.COMPLETED),
        )
        return list(dict.fromkeys(row[0] for row in rows))


# ── Rows and records ─────────────────────────────────────────────────────────────────────────────────────


def _now() -> str:
    return timestamp(datetime.now(UTC))


def _owner_columns(owner: Owner) -> tuple[str, str | None]:
    return ("bot", owner.bot_id) if isinstance(owner, BotOwner) else ("global", None)


def _refusal(error: sqlite3.IntegrityError, *, missing: NotFound, conflict: str | None = None) -> Refused:
    """Give our error for a broken constraint: what a foreign key missed, or a Conflict for any other."""
    if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return missing
    return Conflict(conflict or str(error))


def _step_text(value: Any, what: str) -> str | None:
    return None if value is None else json_text(value, what, bytes_max=STEP_VALUE_BYTES_MAX)


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def _definition(row: sqlite3.Row) -> WorkflowDefinition:
    try:
        return msgspec.json.decode(row[1], type=WorkflowDefinition)
    except msgspec.MsgspecError as error:
        raise RecordDamaged("workflows", f"id {row[0]}") from error


def _run_row(run: WorkflowRun) -> tuple[Any, ...]:
    payload = run.trigger_payload
    return (
        run.id,
        run.workflow_id,
        run.workflow_name,
        run.status,
        run.trigger_type,
        None if payload is None else json_text(payload, f"trigger_payload of run {run.id!r}"),
        json_text(run.context, f"context of run {run.id!r}", bytes_max=CONTEXT_BYTES_MAX),
        run.started_at,
        run.completed_at,
        run.error,
        run.concurrency_key,
    )


def _run(row: sqlite3.Row) -> WorkflowRun:
    try:
        return WorkflowRun(
            id=row[0],
            workflow_id=row[1],
            workflow_name=row[2],
            status=RunStatus(row[3]),
            trigger_type=row[4],
            trigger_payload=_value(row[5]),
            context=_value(row[6]),
            started_at=row[7],
            completed_at=row[8],
            error=row[9],
            concurrency_key=row[10],
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflow_runs", f"id {row[0]}") from error


async def _find_run(connection: aiosqlite.Connection | Reader, run_id: str) -> WorkflowRun | None:
    rows: Iterable[sqlite3.Row] = await connection.execute_fetchall(
        f"SELECT {_RUN_COLUMNS} FROM workflow_runs WHERE id = ?", (run_id,)
    )
    return next((_run(row) for row in rows), None)


def _step_row(step: WorkflowStepLog) -> tuple[Any, ...]:
    return (
        step.id,
        step.run_id,
        step.step_id,
        step.step_name,
        step.status,
        step.attempt,
        step.idempotency_key,
        _step_text(step.input, f"input of step {step.step_id!r}"),
        _step_text(step.output, f"output of step {step.step_id!r}"),
        step.error,
        step.started_at,
        step.completed_at,
    )


def _step(row: sqlite3.Row) -> WorkflowStepLog:
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


async def _find_step(connection: aiosqlite.Connection, step_id: str) -> WorkflowStepLog | None:
    rows: Iterable[sqlite3.Row] = await connection.execute_fetchall(
        f"SELECT {_STEP_COLUMNS} FROM workflow_steps WHERE id = ?", (step_id,)
    )
    return next((_step(row) for row in rows), None)
