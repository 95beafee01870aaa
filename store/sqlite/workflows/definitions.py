"""Definitions of workflows in SQLite, and how the repository writes: each write is one operation of the writer.

Owns the SQL of definitions, and two clocks: one for the timestamps of runs, and one for leases.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import aiosqlite
import anyio.to_thread
import msgspec

from bus.errors import Conflict, DefinitionInUse, NotFound, RecordDamaged
from bus.model.definitions import check_definition, is_newer, replaced_by
from bus.model.records import BotOwner, Owner, WorkflowDefinition, WorkflowRun, timestamp
from bus.model.values import json_text, normal_record, row_range
from bus.model.workflows import WorkflowRules

from ..file.database import Database
from ..file.failures import refusal
from ..file.writer import Transaction
from .cancelling import cancel_more, more_to_cancel
from .runs import Runs

__all__ = ["SqliteDefinitions", "definition_record", "find_stored"]

_T = TypeVar("_T")

_SAVE_DEFINITION = """
    INSERT INTO workflows (id, name, owner_type, owner_bot_id, definition, created_at, updated_at, replaced)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7)
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, owner_type = excluded.owner_type, owner_bot_id = excluded.owner_bot_id,
        definition = excluded.definition, updated_at = excluded.updated_at, replaced = excluded.replaced"""

# The expression is the one of idx_workflows_owner.
_OWNED = "owner_type = ? AND COALESCE(owner_bot_id, '') = ?"
_DEFINITION_ORDER = "ORDER BY name, owner_type, COALESCE(owner_bot_id, ''), id LIMIT ? OFFSET ?"


class SqliteDefinitions:
    """The part of `SqliteWorkflows` that keeps definitions."""

    def __init__(
        self,
        database: Database,
        rules: WorkflowRules,
        clock: Callable[[], datetime],
        lease_clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_clock = lease_clock
        self._rules = rules
        self.runs = Runs(rules)
        """Changes of a run within a transaction, for transactions that do more."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._database.path}>"

    async def save_definition(self, definition: WorkflowDefinition) -> None:
        """Insert or replace by id."""
        await self._save(definition, offered=False)

    async def offer_definition(self, definition: WorkflowDefinition) -> WorkflowDefinition:
        """Save a definition unless a newer one is stored, and return the one that counts."""
        return await self._save(definition, offered=True)

    async def _save(self, definition: WorkflowDefinition, *, offered: bool) -> WorkflowDefinition:
        what = f"workflow {definition.id!r}"
        definition = normal_record(definition, what)
        if definition.triggers:  # a cron line's time zone is read from a file
            await anyio.to_thread.run_sync(check_definition, definition)
        else:
            check_definition(definition)
        self.runs.check_size(definition, what)
        owner_type, owner_bot_id = _owner_columns(definition.owner)
        text = json_text(definition, what)

        async def operation(connection: aiosqlite.Connection, now: str) -> WorkflowDefinition:
            stored, replaced = await find_stored(connection, definition.id)
            if stored is not None:
                if offered and is_newer(stored, definition, replaced):
                    return stored
                replaced = replaced_by(stored, definition, replaced)
            digests = json_text(replaced, what) if replaced else None
            row = (definition.id, definition.name, owner_type, owner_bot_id, text, now, digests)
            try:
                await connection.execute(_SAVE_DEFINITION, row)
            except sqlite3.IntegrityError as error:
                raise refusal(
                    error,
                    missing=NotFound("bot", str(owner_bot_id)),
                    conflict=f"the name {definition.name!r} of this owner belongs to another workflow",
                ) from error
            return definition

        return await self._write(operation)

    async def get_definition(self, definition_id: str) -> WorkflowDefinition | None:
        """Return a definition by id."""
        definitions = await self._definitions("WHERE id = ?", (definition_id,))
        return definitions[0] if definitions else None

    async def get_definition_by_name(self, name: str, owner: Owner) -> WorkflowDefinition | None:
        """Return a definition by name and owner."""
        owner_type, owner_bot_id = _owner_columns(owner)
        found = await self._definitions(f"WHERE name = ? AND {_OWNED}", (name, owner_type, owner_bot_id or ""))
        return found[0] if found else None

    async def list_definitions(
        self, owner: Owner | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowDefinition]:
        """List by name, owner, id; `None` lists those of all owners."""
        part = row_range(limit, offset)
        if owner is None:
            return await self._definitions(_DEFINITION_ORDER, part)
        owner_type, owner_bot_id = _owner_columns(owner)
        return await self._definitions(
            f"WHERE {_OWNED} {_DEFINITION_ORDER}", (owner_type, owner_bot_id or "", *part)
        )

    async def delete_definition(self, definition_id: str, *, cascade: bool = False) -> bool:
        """Delete a definition, with its runs and their steps if `cascade` is set."""

        async def operation(connection: aiosqlite.Connection, _: str) -> bool:
            if cascade:
                await connection.execute("DELETE FROM workflow_runs WHERE workflow_id = ?", (definition_id,))
            else:
                [[runs]] = await connection.execute_fetchall(
                    "SELECT COUNT(*) FROM workflow_runs WHERE workflow_id = ?", (definition_id,)
                )
                if runs:
                    raise DefinitionInUse(definition_id, runs)
                [[schedules]] = await connection.execute_fetchall(
                    "SELECT COUNT(*) FROM workflow_schedules WHERE workflow_id = ?", (definition_id,)
                )
                if schedules:
                    raise Conflict(
                        f"workflow {definition_id!r} has {schedules} schedules: delete them first, or use cascade"
                    )
            cursor = await connection.execute("DELETE FROM workflows WHERE id = ?", (definition_id,))
            return cursor.rowcount > 0

        return await self._write(operation)

    async def _definitions(self, sql: str, parameters: Sequence[Any]) -> list[WorkflowDefinition]:
        rows = await self._database.read.execute_fetchall(f"SELECT id, definition FROM workflows {sql}", parameters)
        return [definition_record(row) for row in rows]

    # ── The writer and the clock ─────────────────────────────────────────────────────────────────────────

    async def _write(self, operation: Callable[[aiosqlite.Connection, str], Awaitable[_T]]) -> _T:
        """Carry out an operation in the next transaction, with the time at which it runs."""

        async def timed(transaction: Transaction) -> _T:
            return await operation(transaction.connection, self.now())

        return await self._database.writer.run(timed)

    async def _write_cancelling(
        self, operation: Callable[[aiosqlite.Connection, str], Awaitable[WorkflowRun]]
    ) -> WorkflowRun:
        """Carry out an operation that may cancel a run, and then cancel the rest of its children."""

        async def begin(connection: aiosqlite.Connection, now: str) -> tuple[WorkflowRun, bool]:
            return await operation(connection, now), await more_to_cancel(connection)

        async def go_on(connection: aiosqlite.Connection, now: str) -> bool:
            await cancel_more(self.runs, connection, now=now, lease_now=self.lease_now())
            return await more_to_cancel(connection)

        run, more = await self._write(begin)
        while more:
            more = await self._write(go_on)
        return run

    def now(self) -> str:
        """Return the time for the timestamps of runs and step logs."""
        return timestamp(self._clock())

    def lease_now(self) -> str:
        """Return the time by the leases' clock, which is not affected when the wall clock is set."""
        return timestamp(self._lease_clock())


def _owner_columns(owner: Owner) -> tuple[str, str | None]:
    return ("bot", owner.bot_id) if isinstance(owner, BotOwner) else ("global", None)


async def find_stored(connection: aiosqlite.Connection, id: str) -> tuple[WorkflowDefinition | None, list[str]]:
    """Return a definition, and the digests of those that it replaced; None for one that cannot be read."""
    rows = await connection.execute_fetchall("SELECT id, definition, replaced FROM workflows WHERE id = ?", (id,))
    for row in rows:
        try:
            return definition_record(row), [] if row[2] is None else msgspec.json.decode(row[2], type=list[str])
        except (RecordDamaged, ValueError, msgspec.MsgspecError):
            break
    return None, []


def definition_record(row: sqlite3.Row) -> WorkflowDefinition:
    """Return the definition in the second column. Raise RecordDamaged if it is not valid."""
    try:
        return msgspec.json.decode(row[1], type=WorkflowDefinition)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflows", f"id {row[0]}") from error
