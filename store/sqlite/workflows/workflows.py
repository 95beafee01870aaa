"""The WorkflowRepository over SQLite: each write is one operation of the writer, each read one statement.

Owns the reading of leases and steps. `definitions` keeps definitions, and `listing` lists runs. `runs` and `steps`
change a run or a step log within a transaction, so that other transactions can include such changes.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import aiosqlite
import msgspec

from bus.errors import InvalidTransition, NotFound, Refused, SlotsTaken, StoreError
from bus.model.checked import StepWrite, new_run, new_signal, new_step, run_change, time_text
from bus.model.openings import OpenedRun, RunOpening
from bus.model.records import (
    NewSignal,
    RecoveredRun,
    RunStatus,
    Signal,
    StepPage,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from bus.model.retrying import is_set_aside
from bus.model.values import (
    EMITTED_BYTES_MAX,
    check_id,
    json_text,
    json_value,
    normal_record,
    row_range,
    status_value,
)
from bus.model.workflows import RunNews, RunOwners, StepCreation, StepMove, WorkflowRules

from ..file.database import Database
from ..file.writer import Transaction
from .cancelling import cancel_more, expire_cancels
from .continuing import find_latest
from .definitions import definition_record
from .entering import enter
from .holds import SqliteHolds
from .keeping import delete_run
from .queueing import find_news
from .retrying import Retrying
from .run_rows import find_owners, find_run
from .signals import RunSignals, find_signals
from .steps import (
    STEP_COLUMNS,
    STEP_ORDER,
    STEP_PLACE,
    STEPS_FROM_PLACE,
    Steps,
    step_record,
)

__all__ = ["SqliteWorkflows"]

_T = TypeVar("_T")


# The condition is the one of idx_workflow_steps_waiting, which must be named: SQLite would rather have the order of
# all steps of a run. Approvals of a run that has ended no longer matter.
_WAITING = f"""
    SELECT {STEP_COLUMNS} FROM workflow_steps INDEXED BY idx_workflow_steps_waiting
    WHERE status = 'waiting_approval' {{}}
        AND EXISTS (
            SELECT 1 FROM workflow_runs AS run
            WHERE run.id = workflow_steps.run_id AND run.status NOT IN ('completed', 'failed', 'cancelled'))
    {STEP_ORDER} LIMIT ? OFFSET ?"""


_PAGE_BYTES = 1024 * 1024
"""Texts of a page of step logs: what one frame takes, so that little is read in vain."""


class SqliteWorkflows(SqliteHolds):
    """The WorkflowStore over SQLite; see `bus.model.workflows` for what each method promises."""

    def __init__(
        self,
        database: Database,
        rules: WorkflowRules,
        clock: Callable[[], datetime],
        lease_clock: Callable[[], datetime],
        *,
        by: str | None = None,
    ) -> None:
        super().__init__(database, rules, clock, lease_clock)
        self.retrying = Retrying(self.runs)
        self.steps = Steps(self.runs.check_size, rules.output_bytes_max, self.runs.events)
        self.signals = RunSignals(self.runs, self.steps)
        self._by = by
        """The bot for which it works, if that is to be asked."""
        self._joint = self._write_joined
        """What the writer carries out together: the same for all bots."""

    def on_behalf_of(self, bot_id: str) -> SqliteWorkflows:
        """Return the same store for one bot: the runs that it creates are its own, and a fence must be its own."""
        return self._with(self._rules, bot_id)

    def limited(self, record_bytes_max: int) -> SqliteWorkflows:
        """Return the same store with a smaller maximum for records that are written or claimed."""
        return self._with(msgspec.structs.replace(self._rules, record_bytes_max=record_bytes_max), self._by)

    def _with(self, rules: WorkflowRules, by: str | None) -> SqliteWorkflows:
        other = SqliteWorkflows(self._database, rules, self._clock, self._lease_clock, by=by)
        other.runs.events = other.steps.events = self.runs.events
        if rules is self._rules:
            other._joint = self._joint
        return other

    @property
    def output_bytes_max(self) -> int:
        """The maximum size of a step's output as JSON."""
        return self._rules.output_bytes_max

    def report_events(self, wanted: Callable[[str], bool], came: Callable[[str], None]) -> None:
        """Write events while they are wanted, and tell that one came."""
        self.runs.events.wanted, self.runs.events.came = wanted, came

    async def emit_run(self, run_id: str, value: Any, *, fence: int | None = None, id: str | None = None) -> bool:
        """Publish an event with what a run's program has to say."""
        what = f"what run {run_id!r} emits"
        json_text(value, what, bytes_max=EMITTED_BYTES_MAX)
        value = json_value(value, what)

        async def operation(connection: aiosqlite.Connection, _: str) -> bool:
            await self.runs.check_fence(connection, run_id, fence, self._by)
            held = await self.runs.find(connection, run_id)
            return await self.runs.events.progress(connection, held.run, value, id)

        return await self._write(operation)

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_run(self, run: WorkflowRun, *, fence: int | None = None) -> WorkflowRun:
        """Create, or return the existing run if all fields are equal."""
        new = new_run(run)
        self.runs.check_size(new.run, f"run {run.id!r}")
        return await self._write(lambda connection, _: self.runs.create(connection, new, self._by, fence=fence))

    async def update_run_status(
        self,
        run_id: str,
        status: RunStatus,
        error: str | None = None,
        context: Any = None,
        *,
        fence: int | None = None,
        result: Any = None,
    ) -> WorkflowRun:
        """Move a run to a status. `error=None` clears the error, `context=None` keeps the context."""
        change = run_change(
            run_id,
            status,
            error=error,
            context=context,
            fence=fence,
            by=self._by,
            result=result,
            result_bytes_max=self._rules.output_bytes_max,
        )
        write = self._write_cancelling if change.status is RunStatus.CANCELLED else self._write
        return await write(
            lambda connection, now: self.runs.move(connection, change, now, lease_now=self.lease_now())
        )

    async def cancel_run(
        self, run_id: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> WorkflowRun:
        """Cancel a run, with its children; one whose program cleans up is asked to do that first."""
        why = json_value(reason, f"reason to cancel run {run_id!r}")

        async def operation(connection: aiosqlite.Connection, now: str) -> WorkflowRun:
            request = self.runs.cancel_request(why, grace_seconds, now=now, lease_now=self.lease_now())
            return await self.runs.cancel(connection, run_id, request)

        return await self._write_cancelling(operation)

    async def retry_run(self, run_id: str, from_step: str | None = None) -> WorkflowRun:
        """Resume a run that stopped, as if its failed steps, or those from one on, had not been carried out."""
        return await self._write(
            lambda connection, now: self.retrying.retry(
                connection, run_id, from_step, now=now, lease_now=self.lease_now()
            )
        )

    async def fork_run(self, run_id: str, new_id: str, before_step: str | None = None) -> WorkflowRun:
        """Create a run with the records of another one up to a step."""
        check_id(new_id, "id of a run")
        return await self._write(
            lambda connection, now: self.retrying.fork(connection, run_id, new_id, before_step, now, by=self._by)
        )

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run that has ended, with all that belongs to it."""
        return await self._write(lambda connection, _: delete_run(connection, run_id))

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""
        return await find_run(self._database.read, run_id)

    async def get_latest_run(self, run_id: str) -> WorkflowRun | None:
        """Return the last run as which a run continued."""
        return await find_latest(self._database.read, run_id)

    async def watch_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""
        return await self.get_run(run_id)

    async def news_of(self, run_ids: Sequence[str], *, slots: bool) -> list[RunNews]:
        """Return what is to be known of runs that changed."""
        return await find_news(self._database.read, run_ids, self.lease_now() if slots else None)

    async def owners_of(self, run_ids: Sequence[str]) -> dict[str, RunOwners]:
        """Return whose these runs are, by their ids."""
        return await find_owners(self._database.read, run_ids)

    async def get_run_definition(self, run_id: str) -> WorkflowDefinition | None:
        """Return the definition that a run was created with."""
        rows = await self._database.read.execute_fetchall(
            "SELECT workflow_id, definition FROM workflow_runs WHERE id = ? AND definition IS NOT NULL", (run_id,)
        )
        return definition_record(rows[0]) if rows else None

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        """End the holds of runs whose lease has expired."""
        most, _ = row_range(limit, 0)

        async def operation(connection: aiosqlite.Connection, now: str) -> list[RecoveredRun]:
            await expire_cancels(self.runs, connection, most, now=now, lease_now=self.lease_now())
            await cancel_more(self.runs, connection, now=now, lease_now=self.lease_now())
            return await self.runs.recover(connection, most, now=now, lease_now=self.lease_now())

        return await self._write(operation)

    # ── Opening a run ────────────────────────────────────────────────────────────────────────────────────

    async def open_run(self, opening: RunOpening, holder: str, *, is_new: bool = False) -> OpenedRun:
        """Claim a run, and create it first if it does not exist."""
        claimant = self._claimant(holder, opening)

        async def operation(
            connection: aiosqlite.Connection, now: str
        ) -> OpenedRun | SlotsTaken | InvalidTransition:
            return await enter(self.runs, connection, opening, claimant(now), by=self._by, is_new=is_new)

        opened = await self._write(operation)
        if isinstance(opened, SlotsTaken | InvalidTransition):
            raise opened
        steps = None if opened.created else await self.page_step_logs(opening.run_id)
        return msgspec.structs.replace(opened, steps=steps or StepPage(steps=(), more=False))

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def create_step_log(self, step: WorkflowStepLog, *, fence: int | None = None) -> WorkflowStepLog:
        """Create, or return the existing step log if all fields are equal."""
        return await self._write_step(StepCreation(normal_record(step, f"step {step.step_id!r}"), fence, self._by))

    async def update_step_status(
        self,
        step_id: str,
        status: StepStatus,
        output: Any = None,
        error: str | None = None,
        *,
        fence: int | None = None,
    ) -> WorkflowStepLog:
        """Move a step log, identified by its own id, to a status. None keeps output and error."""
        move = StepMove(
            json_value(step_id, "id of a step log"),
            status_value(status, StepStatus),
            json_value(output, f"output of step {step_id!r}"),
            json_value(error, f"error of step {step_id!r}"),
            fence,
            self._by,
        )
        return await self._write_step(move)

    async def _write_step(self, write: StepCreation | StepMove) -> WorkflowStepLog:
        [outcome] = await self._database.writer.join(self._joint, [self._checked(write)])
        if isinstance(outcome, StoreError):
            raise outcome
        return outcome

    async def write_steps(self, writes: Sequence[StepCreation | StepMove]) -> list[WorkflowStepLog | StoreError]:
        """Carry out calls of the two above together, in order, each with its own outcome."""
        outcomes: list[WorkflowStepLog | StoreError | None] = []
        checked: list[StepWrite] = []
        for write in writes:
            try:
                checked.append(self._checked(write))
            except StoreError as error:
                outcomes.append(error)
            else:
                outcomes.append(None)
        written: list[WorkflowStepLog | StoreError] = []
        if checked:
            try:
                written = await self._database.writer.join(self._joint, checked)
            except Refused as error:
                if len(writes) == 1:
                    return [error]
                return [(await self.write_steps([write]))[0] for write in writes]
        following = iter(written)
        return [next(following) if outcome is None else outcome for outcome in outcomes]

    def _checked(self, write: StepCreation | StepMove) -> StepWrite:
        if isinstance(write, StepMove):
            return write
        new = new_step(write.step, fence=write.fence, by=write.by, output_bytes_max=self._rules.output_bytes_max)
        self.runs.check_size(new.step, f"step {write.step.step_id!r}", new.output_text)
        return new

    async def _write_joined(
        self, transaction: Transaction, calls: Sequence[list[StepWrite]]
    ) -> list[list[WorkflowStepLog | StoreError]]:
        writes = [write for call in calls for write in call]
        outcomes = iter(await self.steps.write_all(transaction, writes, self.now(), last=True))
        return [[next(outcomes) for _ in call] for call in calls]

    async def get_step_log(self, step_id: str) -> WorkflowStepLog | None:
        """Return a step log by its own id."""
        rows = await self._database.read.execute_fetchall(
            f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE id = ?", (step_id,)
        )
        return step_record(rows[0]) if rows else None

    async def list_step_logs(
        self, run_id: str, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List a run's step logs in the order in which they began."""
        rows = await self._database.read.execute_fetchall(
            f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE run_id = ? {STEP_ORDER} LIMIT ? OFFSET ?",
            (run_id, *row_range(limit, offset)),
        )
        return [step_record(row) for row in rows]

    async def page_step_logs(self, run_id: str, after: str | None = None) -> StepPage:
        """Return a run's step logs after the one with the id `after`, at most about a mebibyte, at least one."""
        statements: list[tuple[str, Sequence[Any]]] = [
            (f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE run_id = ? {STEP_ORDER}", (run_id,))
        ]
        if after is not None:
            places = await self._database.read.execute_fetchall(STEP_PLACE, (after, run_id))
            if not places:
                raise NotFound("step", after)
            began, number = places[0]
            same_time, later = STEPS_FROM_PLACE
            statements = [(same_time, (run_id, began, number)), (later, (run_id, began))]
        rows, more = await self._database.read.fetch_portion(statements, _PAGE_BYTES)
        return StepPage(steps=tuple(step_record(row) for row in rows), more=more)

    async def get_completed_step_ids(self, run_id: str) -> list[str]:
        """List the ids of completed steps, in the order they began, each once, without skipped ones."""
        rows = await self._database.read.execute_fetchall(
            f"SELECT step_id FROM workflow_steps WHERE run_id = ? AND status = ? {STEP_ORDER}",
            (run_id, StepStatus.COMPLETED),
        )
        return list(dict.fromkeys(row[0] for row in rows if not is_set_aside(row[0])))

    async def list_waiting_approvals(
        self, run_id: str | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List the step logs that wait for an approval, oldest first."""
        # Two statements: with an optional condition, SQLite would scan the waiting steps of all runs.
        condition, of_run = ("", ()) if run_id is None else ("AND run_id = ?", (run_id,))
        rows = await self._database.read.execute_fetchall(
            _WAITING.format(condition), (*of_run, *row_range(limit, offset))
        )
        return [step_record(row) for row in rows]

    # ── Signals ─────────────────────────────────────────────────────────────────────────────────────────────

    async def send_signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,
        sender: str | None = None,
    ) -> Signal:
        """Send a signal to a run, which keeps it until the run takes it."""
        signal = new_signal(
            NewSignal(id=str(uuid.uuid4()) if id is None else id, run_id=run_id, name=name, payload=payload)
        )
        return await self._write(lambda connection, now: self.signals.send(connection, signal, sender, now))

    async def list_signals(
        self, run_id: str, names: Sequence[str] | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[Signal]:
        """List the signals of a run that were not taken, oldest first."""
        return await find_signals(self._database.read, run_id, names, row_range(limit, offset))

    async def take_signal(
        self, step: WorkflowStepLog, names: Sequence[str], until: str | None = None, *, fence: int | None = None
    ) -> WorkflowStepLog:
        """Complete a step with the oldest waiting signal of these names."""
        pending = msgspec.structs.replace(step, status=StepStatus.PENDING)
        new = new_step(normal_record(pending, f"step {step.step_id!r}"), fence=fence, by=self._by)
        self.runs.check_size(new.step, f"step {step.step_id!r}", new.output_text)
        last = None if until is None else time_text(until, "until")

        async def operation(transaction: Transaction) -> WorkflowStepLog:
            return await self.signals.take(transaction, new, names, last, self.now())

        return await self._database.writer.run(operation)
