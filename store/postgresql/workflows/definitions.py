"""Definitions of workflows in PostgreSQL, and how the repository reads and writes.

Owns the SQL of definitions, and the one way of all writes: a call is carried out with others in a unit of work
(`unit`), within a transaction that the writer shares among all callers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import anyio.to_thread
import asyncpg
import msgspec

from bus.errors import Conflict, NotFound, RecordDamaged, Refused, StoreError
from bus.model.definitions import check_definition, is_newer, replaced_by
from bus.model.records import BotOwner, Owner, WorkflowDefinition, timestamp
from bus.model.values import check_id, json_text, normal_record
from bus.model.workflows import WorkflowRules

from ..server.database import Database
from ..server.incarnation import LogEnd
from ..server.writer import Alone, Transaction
from .cancelling import cancel_more, more_to_cancel
from .events import EventWriting
from .keeping import delete_definition
from .rows import part
from .runs import Runs
from .unit import Needs, Unit

__all__ = ["PostgresqlDefinitions", "UnitCall", "definition_record", "find_stored"]

_T = TypeVar("_T")

_FIND_NAME = "SELECT id FROM workflows WHERE name = $1 AND COALESCE(owner_bot_id, '') = $2"

_SAVE = """
    INSERT INTO workflows (id, name, owner_bot_id, concurrency, definition, created_at, updated_at, replaced)
    VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, owner_bot_id = excluded.owner_bot_id, concurrency = excluded.concurrency,
        definition = excluded.definition, updated_at = excluded.updated_at, replaced = excluded.replaced"""

_FIND_STORED = "SELECT id, definition, replaced FROM workflows WHERE id = $1"

_FIND = "SELECT id, definition FROM workflows WHERE id = $1"

_FIND_BY_NAME = "SELECT id, definition FROM workflows WHERE name = $1 AND COALESCE(owner_bot_id, '') = $2"

# Those of bots first.
_LIST = "SELECT id, definition FROM workflows ORDER BY name, owner_bot_id NULLS LAST, id LIMIT $1 OFFSET $2"

_LIST_OWNED = """
    SELECT id, definition FROM workflows WHERE COALESCE(owner_bot_id, '') = $3
    ORDER BY name, id LIMIT $1 OFFSET $2"""

_NOW = "SELECT clock_timestamp()"


class UnitCall(NamedTuple):
    """A write: what it needs to know, and what it does with that.

    One that `settles` reads or writes the tables by itself. One with `only_steps` needs and writes nothing else.
    """

    run: Callable[[Unit], Awaitable[Any]]
    needs: Needs
    settles: bool
    only_steps: bool = False


class PostgresqlDefinitions:
    """The part of `PostgresqlWorkflows` that keeps definitions."""

    def __init__(
        self,
        database: Database,
        rules: WorkflowRules,
        clock: Callable[[], datetime] | None,
        events: EventWriting,
    ) -> None:
        self._database = database
        self._clock = clock
        self._rules = rules
        self._together: PostgresqlDefinitions = self
        """With which the calls of several bots share a unit of work."""
        self.runs = Runs(rules, events)
        """Changes of a run within a unit, for transactions that do more."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._rules}>"

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
        owner = _owner(definition.owner)
        text = json_text(definition, what)

        async def operation(unit: Unit) -> WorkflowDefinition:
            stored, replaced = await find_stored(unit.connection, definition.id)
            if stored is not None:
                if offered and is_newer(stored, definition, replaced):
                    return stored
                replaced = replaced_by(stored, definition, replaced)
            digests = json_text(replaced, what) if replaced else None
            if owner is not None and not await unit.connection.fetch("SELECT 1 FROM bots WHERE id = $1", owner):
                raise NotFound("bot", owner)
            for (id,) in await unit.connection.fetch(_FIND_NAME, definition.name, owner or ""):
                if id != definition.id:
                    raise Conflict(f"the name {definition.name!r} of this owner belongs to another workflow")
            row = (definition.id, definition.name, owner, definition.concurrency, text, unit.now, digests)
            await unit.connection.execute(_SAVE, *row)
            return definition

        return await self._write(operation, settles=True)

    async def get_definition(self, definition_id: str) -> WorkflowDefinition | None:
        """Return a definition by id."""
        rows = await self._fetch(_FIND, definition_id)
        return definition_record(rows[0]) if rows else None

    async def get_definition_by_name(self, name: str, owner: Owner) -> WorkflowDefinition | None:
        """Return a definition by name and owner."""
        rows = await self._fetch(_FIND_BY_NAME, name, _owner(owner) or "")
        return definition_record(rows[0]) if rows else None

    async def list_definitions(
        self, owner: Owner | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowDefinition]:
        """List by name, owner, id; `None` lists those of all owners."""
        chosen = part(limit, offset)
        rows = await (
            self._fetch(_LIST, *chosen) if owner is None else self._fetch(_LIST_OWNED, *chosen, _owner(owner) or "")
        )
        return [definition_record(row) for row in rows]

    async def delete_definition(self, definition_id: str, *, cascade: bool = False) -> bool:
        """Delete a definition, with its runs and their steps if `cascade` is set."""
        check_id(definition_id, "id of a workflow")
        return await self._write(
            lambda unit: delete_definition(unit.connection, definition_id, cascade=cascade), settles=True
        )

    # ── Reading and writing ──────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, sql: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows of a question; none if a text in it has a zero character, as no stored text has."""
        if any(isinstance(value, str) and "\0" in value for value in values):
            return []
        return await self._database.read.fetch(sql, *values)

    async def _write(
        self,
        run: Callable[[Unit], Awaitable[_T]],
        needs: Needs | None = None,
        *,
        settles: bool = False,
        only_steps: bool = False,
    ) -> _T:
        """Carry out a call in the next transaction."""
        call, together = UnitCall(run, needs or Needs(), settles, only_steps), self._together
        written = await self._database.writer.join(together.carry_out, call, together.as_one)
        if isinstance(written, StoreError):
            raise written
        return written  # type: ignore[no-any-return]

    async def _write_cancelling(self, run: Callable[[Unit], Awaitable[_T]]) -> _T:
        """Carry out a call that may cancel a run, and then cancel the rest of its children."""

        async def begin(unit: Unit) -> tuple[_T, bool]:
            written = await run(unit)
            await self.flush(unit)
            return written, await more_to_cancel(unit.connection)

        async def go_on(unit: Unit) -> bool:
            await cancel_more(unit, self.runs)
            return await more_to_cancel(unit.connection)

        written, more = await self._write(begin, settles=True)
        while more:
            more = await self._write(go_on, settles=True)
        return written

    async def carry_out(self, transaction: Transaction, calls: Sequence[UnitCall]) -> Sequence[Any]:
        """Carry out calls in order, in one unit of work; the outcome of one that is refused is its error."""
        unit = self.unit(transaction)
        await unit.load(call.needs for call in calls if not call.settles)
        outcomes: list[Any] = []
        for call in calls:
            if call.settles or unit.is_full:
                await self.flush(unit)
            outcomes.append(await _outcome(unit, call))
            if call.settles:
                await self.flush(unit)
        await self.flush(unit)
        return outcomes

    async def as_one(self, connection: asyncpg.Connection, end: LogEnd, calls: Sequence[UnitCall]) -> Alone | None:
        """Return calls that only write step logs as one statement, after one that reads what they need."""
        if not all(call.only_steps for call in calls):
            return None
        unit = Unit(connection, "")
        await unit.load(call.needs for call in calls)
        if unit.read_at is None:
            return None
        unit.now = timestamp(unit.read_at if self._clock is None else self._clock())
        outcomes: list[Any] = []
        for call in calls:
            outcomes.append(await _outcome(unit, call))
            if unit.is_full:
                return None
        changes = unit.as_one()
        return None if changes is None else Alone(*changes, end, outcomes)

    def unit(self, transaction: Transaction) -> Unit:
        """Begin a unit of work, at the time of the database's clock."""
        now = timestamp(transaction.time if self._clock is None else self._clock())
        return Unit(transaction.connection, now)

    async def flush(self, unit: Unit) -> None:
        """Write what a unit changed, with the events of that, and let it know nothing more.

        Of the runs that are to be cancelled with others, a portion is.
        """
        await unit.settle()
        if unit.cancels:
            await cancel_more(unit, self.runs)
        await self.runs.events.store(unit)

    async def _now(self) -> str:
        """Return the time by the database's clock."""
        if self._clock is not None:
            return timestamp(self._clock())
        [[moment]] = await self._database.read.fetch(_NOW)
        return timestamp(moment)


async def _outcome(unit: Unit, call: UnitCall) -> Any:
    """Carry out a call; return its error if it is refused, and then nothing of it is left in the unit."""
    mark = unit.mark()
    try:
        return await call.run(unit)
    except (Refused, RecordDamaged) as error:
        unit.back(mark)
        return error


def _owner(owner: Owner) -> str | None:
    return owner.bot_id if isinstance(owner, BotOwner) else None


async def find_stored(connection: asyncpg.Connection, id: str) -> tuple[WorkflowDefinition | None, list[str]]:
    """Return a definition, and the digests of those that it replaced; None for one that cannot be read."""
    with suppress(RecordDamaged, ValueError, msgspec.MsgspecError):
        for row in await connection.fetch(_FIND_STORED, id):
            return definition_record(row), [] if row[2] is None else msgspec.json.decode(row[2], type=list[str])
    return None, []


def definition_record(row: asyncpg.Record) -> WorkflowDefinition:
    """Return the definition in the second column. Raise RecordDamaged if it is not valid."""
    try:
        return msgspec.json.decode(row[1], type=WorkflowDefinition)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RecordDamaged("workflows", f"id {row[0]}") from error
