"""Step logs of runs in SQLite: their changes within a transaction.

Owns the SQL of step logs, and reading rows as records. `bus.model.transitions` decides which statuses may follow.
Every method is part of its caller's transaction and may be run twice. Any number of simultaneous writes is read
with one statement and written with two, and unconditional creations are one statement: a statement costs more for
its way to the connection's thread and back than for its work.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import aiosqlite
import msgspec

from bus.errors import (
    Conflict,
    NotFound,
    RecordDamaged,
    StorageBusy,
    StoreError,
)
from bus.model.checked import NewStep, StepWrite, begun, check_answer, value_text
from bus.model.leases import check_fence
from bus.model.records import StepStatus, WorkflowStepLog
from bus.model.transitions import advance_step
from bus.model.values import same_values
from bus.model.workflows import StepMove

from ..file.reader import is_text
from ..file.writer import Transaction
from .events import EventWriting

__all__ = [
    "STEPS_FROM_PLACE",
    "STEP_COLUMNS",
    "STEP_ORDER",
    "STEP_PLACE",
    "Steps",
    "step_record",
]

_NAMES = (
    "id", "run_id", "step_id", "step_name", "status", "attempt", "idempotency_key", "input", "output", "error",
    "started_at", "completed_at",
)  # fmt: skip

STEP_COLUMNS = ", ".join(_NAMES)

_VALUES = f"({', '.join('?' * len(_NAMES))})"

_INSERT = f"INSERT INTO workflow_steps ({STEP_COLUMNS}) VALUES "

_UPDATE = """
    UPDATE workflow_steps
    SET status = ?, error = ?, started_at = ?, completed_at = ?, output = COALESCE(?, output) WHERE id = ?"""

# Creates the step logs that are new, whose runs exist and have the fence that was passed, for the bot that was. A
# cross join keeps the order.
_CREATE = f"""
    INSERT INTO workflow_steps ({STEP_COLUMNS})
    SELECT {", ".join(f"new.column{number}" for number in range(1, len(_NAMES) + 1))}
    FROM (VALUES %s) AS new CROSS JOIN workflow_runs AS run
    WHERE run.id = new.column2 AND run.fence = COALESCE(new.column{len(_NAMES) + 1}, run.fence)
        AND (new.column{len(_NAMES) + 1} IS NULL OR new.column{len(_NAMES) + 2} IS NULL
            OR new.column{len(_NAMES) + 2} = run.last_holder_bot_id)
    ON CONFLICT DO NOTHING
    RETURNING id"""

_NEW_VALUES = f"({', '.join('?' * (len(_NAMES) + 2))})"

_LARGE_CHARACTERS = 1024 * 1024
"""Longer outputs are read one by one: many of them at once would fill memory."""

_LARGE_AT_ONCE_MAX = 4
"""So many of them are read for writes that are carried out together; further ones have to try again."""

_OF_STEP = ", ".join(
    f"CASE WHEN length(step.output) <= {_LARGE_CHARACTERS} THEN step.output END"
    if name == "output"
    else f"step.{name}"
    for name in _NAMES
)

# For each place, step log id and run id: the step log, and the fence of that run; without a run id, of its own. A
# large output is left out.
_FIND = f"""
    WITH asked (place, id, run_id) AS (VALUES %s)
    SELECT {_OF_STEP}, run.fence, run.status, run.last_holder_bot_id, length(step.output) > {_LARGE_CHARACTERS}
    FROM asked
        LEFT JOIN workflow_steps AS step ON step.id = asked.id
        LEFT JOIN workflow_runs AS run ON run.id = COALESCE(asked.run_id, step.run_id)
    ORDER BY asked.place"""

_PORTION_STEPS = 64
"""Step logs read at once: few enough to hold them all in memory, whose outputs are mostly small."""

# A step that was never running began when it ended; one that neither ran nor ended comes last, because '~' is after
# every time. The expression is the one of idx_workflow_steps_run_id; rowid is the order of creation.
_BEGAN = "COALESCE(started_at, completed_at, '~')"

STEP_ORDER = f"ORDER BY {_BEGAN}, rowid"

STEP_PLACE = f"SELECT {_BEGAN}, rowid FROM workflow_steps WHERE id = ? AND run_id = ?"

STEPS_FROM_PLACE = (
    f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE run_id = ?1 AND {_BEGAN} = ?2 AND rowid > ?3 ORDER BY rowid",
    f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE run_id = ?1 AND {_BEGAN} > ?2 {STEP_ORDER}",
)
"""What follows a place, in two statements, because SQLite compares a pair of an expression without an index."""

CheckSize = Callable[[msgspec.Struct, str, str | None], None]


class Steps:
    """Changes of step logs; `check_size` refuses a record that could not be sent to its readers."""

    def __init__(self, check_size: CheckSize, output_bytes_max: int, events: EventWriting) -> None:
        self.events = events
        self._check_size = check_size
        self._output_bytes_max = output_bytes_max
        self._large = 0
        """How many large outputs were read for the writes that are being carried out."""

    def __repr__(self) -> str:
        return "<Steps>"

    async def write(self, transaction: Transaction, write: StepWrite, now: str) -> WorkflowStepLog:
        """Create a step log, or return the equal one that exists; or move one to a status."""
        [outcome] = await self.write_all(transaction, [write], now)
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    async def find(self, connection: aiosqlite.Connection, id: str) -> WorkflowStepLog | None:
        """Return a step log by its own id."""
        rows = await connection.execute_fetchall(f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE id = ?", (id,))
        return next((step_record(row) for row in rows), None)

    async def write_all(
        self, transaction: Transaction, writes: Sequence[StepWrite], now: str, *, last: bool = False
    ) -> list[WorkflowStepLog | StoreError]:
        """Carry out writes in order; the outcome of a refused write is its error, and it changes nothing.

        `last` says that the operation writes nothing more.
        """
        self._large = 0
        last = last and len(writes) <= _PORTION_STEPS and not any(map(_asks, writes))
        outcomes: list[WorkflowStepLog | StoreError] = []
        for begin in range(0, len(writes), _PORTION_STEPS):
            portion = writes[begin : begin + _PORTION_STEPS]
            outcomes += await self._write_portion(transaction, portion, now, last=last)
        return outcomes

    async def _write_portion(
        self, transaction: Transaction, writes: Sequence[StepWrite], now: str, *, last: bool
    ) -> list[WorkflowStepLog | StoreError]:
        created = await self._create_new(transaction, writes, now, last=last)
        others = [write for write in writes if _id(write) not in created]
        outcomes = iter(await self._look_and_write(transaction, others, now, last=last) if others else ())
        return [created.get(_id(write)) or next(outcomes) for write in writes]

    async def _create_new(
        self, transaction: Transaction, writes: Sequence[StepWrite], now: str, *, last: bool
    ) -> dict[str, WorkflowStepLog]:
        """If all writes are creations, create those that need no lookup; return them by id."""
        new = {write.step.id: write for write in writes if isinstance(write, NewStep)}
        if len(new) < len(writes):
            return {}
        steps = {id: begun(write.step, now) for id, write in new.items()}
        values = [
            (*write.row, steps[id].started_at, steps[id].completed_at, write.fence, write.by)
            for id, write in new.items()
        ]
        create = _CREATE % ", ".join([_NEW_VALUES] * len(values))
        execute = transaction.execute_last if last else transaction.connection.execute_fetchall
        try:
            rows = await execute(create, list(chain.from_iterable(values)))
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        created = {id: steps[id] for (id,) in rows}
        await self._tell(transaction, created.values())
        return created

    async def _look_and_write(
        self, transaction: Transaction, writes: Sequence[StepWrite], now: str, *, last: bool
    ) -> list[WorkflowStepLog | StoreError]:
        asked: list[str | None] = []
        for write in writes:
            asked += (_id(write), write.step.run_id if isinstance(write, NewStep) else None)
        find = _FIND % ", ".join(f"({place}, ?, ?)" for place in range(len(writes)))
        rows = await transaction.connection.execute_fetchall(find, asked)
        found = _Found()
        outcomes: list[WorkflowStepLog | StoreError] = []
        for write, row in zip(writes, rows, strict=True):
            try:
                if row[15] and _id(write) not in found.known:
                    row = await self._with_large_output(transaction, row)
                if isinstance(write, NewStep):
                    outcomes.append(found.create(write, row, now))
                else:
                    outcomes.append(self._move(found, write, row, now))
            except StoreError as error:
                outcomes.append(error)
        try:
            one = last and not (found.inserts and found.updates)
            execute = transaction.execute_last if one else transaction.connection.execute
            if found.inserts:
                values = ", ".join([_VALUES] * len(found.inserts))
                await execute(_INSERT + values, list(chain.from_iterable(found.inserts)))
            if len(found.updates) == 1:
                await execute(_UPDATE, found.updates[0])
            elif found.updates:
                await transaction.connection.executemany(_UPDATE, found.updates)
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        await self._tell(transaction, found.entered)
        return outcomes

    async def _tell(self, transaction: Transaction, entered: Iterable[WorkflowStepLog]) -> None:
        """Record the events of steps that entered their status, where that is to wait for an approval."""
        for step in entered:
            if step.status is StepStatus.WAITING_APPROVAL:
                await self.events.asked(transaction.connection, step)

    async def _with_large_output(self, transaction: Transaction, row: sqlite3.Row) -> Any:
        """Return a row with its output. Raise StorageBusy if too many were read already."""
        self._large += 1
        if self._large > _LARGE_AT_ONCE_MAX:
            raise StorageBusy("too many steps with large outputs are written at once; try again later")
        [[output]] = await transaction.connection.execute_fetchall(
            "SELECT output FROM workflow_steps WHERE id = ?", (row[0],)
        )
        return (*row[:8], output, *row[9:])

    def _move(self, found: _Found, change: StepMove, row: sqlite3.Row, now: str) -> WorkflowStepLog:
        step, hold = found.step(change.step_id, row)
        if step is None or hold is None:
            raise NotFound("step", change.step_id)
        hold.check(step.run_id, change.fence, change.by)
        text = value_text(change.output, f"output of step {step.step_id!r}", self._output_bytes_max)
        after = advance_step(step, change.status, output=change.output, error=change.error, now=now)
        if change.answers is not None and after is not step:
            check_answer(step, change)
        if change.output is not None:
            self._check_size(after, f"step {step.step_id!r}, with its input,", text)
        if after is not step:
            found.updates.append((after.status, after.error, after.started_at, after.completed_at, text, after.id))
            found.known[after.id] = after, hold
            if after.status is not step.status:
                found.entered.append(after)
        return after


def _asks(write: StepWrite) -> bool:
    status = write.step.status if isinstance(write, NewStep) else write.status
    return status is StepStatus.WAITING_APPROVAL


def _id(write: StepWrite) -> str:
    return write.step.id if isinstance(write, NewStep) else write.step_id


class _HoldOf(NamedTuple):
    """What a write needs to know about its step's run."""

    fence: int
    status: str
    last_holder: str | None

    def check(self, run_id: str, fence: int | None, by: str | None) -> None:
        """Raise Fenced if a write has another fence, or one that is not that of the bot `by`."""
        check_fence(run_id, self.status, self.fence, fence, last_holder=self.last_holder, by=by)


class _Found:
    """Step logs as they were found and have since changed, and the rows to write for them."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[WorkflowStepLog, _HoldOf]] = {}
        self.entered: list[WorkflowStepLog] = []
        """Step logs as they entered a status."""
        self.inserts: list[tuple[Any, ...]] = []
        self.updates: list[tuple[Any, ...]] = []

    def step(self, id: str, row: sqlite3.Row) -> tuple[WorkflowStepLog | None, _HoldOf | None]:
        """Return a step log, and the hold of the run that was requested with it (default: of its own run)."""
        hold = None if row[12] is None else _HoldOf(row[12], row[13], row[14])
        if id in self.known:
            step, of_its_run = self.known[id]
            return step, hold or of_its_run
        return (None if row[0] is None else step_record(row)), hold

    def create(self, new: NewStep, row: sqlite3.Row, now: str) -> WorkflowStepLog:
        """Create a step log, or return the equal one that exists; one that has begun gets a start time."""
        step = new.step
        stored, hold = self.step(step.id, row)
        if hold is not None and new.fence is not None:
            hold.check(step.run_id, new.fence, new.by)
        if stored is not None:
            if same_values(stored, begun(step, stored.started_at)):
                return stored
            raise Conflict(f"step {step.id!r} is stored with other fields")
        if hold is None:
            raise NotFound("run", step.run_id)
        step = begun(step, now)
        self.inserts.append((*new.row, step.started_at, step.completed_at))
        self.known[step.id] = step, hold
        self.entered.append(step)
        return step


def _value(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def step_record(row: sqlite3.Row) -> WorkflowStepLog:
    """Return the step log that these columns hold. Raise RecordDamaged if they are not valid."""
    # The decoder reports damage in input and output, which may be large.
    if not is_text((*row[:7], *row[9:12])):
        raise RecordDamaged("workflow_steps", f"id {row[0]}")
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
