"""The WorkflowRepository over PostgreSQL: calls that are carried out in units of work, and questions.

Owns leases and step logs as they are read. `definitions` has the way of all writes, `lists` lists runs, and `runs`,
`steps` and `signals` change them within a unit, so that other transactions can include such changes.

What a write costs: the transaction begins and ends with a round trip each, and there are one to read runs, one to
read step logs, and one for each kind of row that changes. All calls that wait while the transaction before is being
committed share these.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from bus.errors import InvalidTransition, NotFound, SlotsTaken, StoreError
from bus.model.checked import StepWrite, new_run, new_signal, new_step, run_change, time_text
from bus.model.openings import OpenedRun, RunOpening
from bus.model.records import (
    CONTINUED,
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
    row_limit,
    status_value,
)
from bus.model.workflows import RunNews, RunOwners, StepCreation, StepMove, WorkflowRules

from ..server.database import Database
from .cancelling import cancel_more
from .definitions import definition_record
from .entering import enter
from .events import EventWriting
from .holds import PostgresqlHolds
from .keeping import delete_run
from .queueing import find_news, find_owners
from .recovering import expire_cancels, recover
from .retrying import Retrying
from .rows import RECORD_COLUMNS, STEP_COLUMNS, STEP_ORDER, part, run_record, step_record
from .signals import RunSignals, find_signals
from .steps import Steps, needs_of
from .unit import Needs, Unit

__all__ = ["PostgresqlWorkflows"]

_FIND_RUN = f"SELECT {RECORD_COLUMNS} FROM workflow_runs AS run WHERE id = $1"

_HOPS_MAX = 1000
"""How far a chain of runs is followed at once: some milliseconds."""

# A run that was created later with the id of one that was deleted is no successor.
_FIND_LATEST = f"""
    WITH RECURSIVE chain (hop, id, next) AS (
        SELECT 0, id, CASE status WHEN 'completed' THEN continued_as END FROM workflow_runs WHERE id = $1
        UNION ALL
        SELECT hop + 1, run.id, CASE run.status WHEN 'completed' THEN run.continued_as END
        FROM chain JOIN workflow_runs AS run ON run.id = chain.next
        WHERE run.parent_run_id = chain.id AND run.trigger_type = '{CONTINUED}' AND hop < {_HOPS_MAX})
    SELECT {RECORD_COLUMNS} FROM workflow_runs AS run WHERE id = (SELECT id FROM chain ORDER BY hop DESC LIMIT 1)"""

_FIND_DEFINITION = "SELECT workflow_id, definition FROM workflow_runs WHERE id = $1 AND definition IS NOT NULL"

_FIND_STEP = f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE id = $1"

_LIST_STEPS = f"SELECT {STEP_COLUMNS} FROM workflow_steps WHERE run_id = $1 {STEP_ORDER} LIMIT $2 OFFSET $3"

_FIND_STEP_PLACE = "SELECT began, number FROM workflow_steps WHERE id = $1 AND run_id = $2"

# As many as have a size together, at least one, and whether there are more. The sizes are counted over few more
# rows than can have it.
_PAGE = f"""
    WITH next AS MATERIALIZED (
        SELECT id, SUM(octet_length(COALESCE(input, '')) + octet_length(COALESCE(output, '')) + 256)
            OVER ({STEP_ORDER}) AS size, ROW_NUMBER() OVER ({STEP_ORDER}) AS place
        FROM (
            SELECT * FROM workflow_steps WHERE run_id = $1 AND (began, number) > ($2, $3) {STEP_ORDER} LIMIT $4 + 1
        ) AS steps)
    SELECT {STEP_COLUMNS}, EXISTS (SELECT 1 FROM next WHERE place > 1 AND size > $5 OR place > $4)
    FROM workflow_steps JOIN next USING (id) WHERE place = 1 OR (size <= $5 AND place <= $4) {STEP_ORDER}"""

_PAGE_BYTES = 1024 * 1024
"""Texts of a page of step logs: what one frame takes, so that little is read in vain."""

_PAGE_STEPS = 4096
"""So many step logs have that size if nothing is in them."""

_COMPLETED = f"SELECT step_id FROM workflow_steps WHERE run_id = $1 AND status = 'completed' {STEP_ORDER}"

# Approvals of a run that has ended no longer matter.
_WAITING = f"""
    SELECT {STEP_COLUMNS} FROM workflow_steps
    WHERE waits AND ($1::text IS NULL OR run_id = $1) AND EXISTS (
        SELECT 1 FROM workflow_runs AS run WHERE run.id = workflow_steps.run_id AND run.ended_at IS NULL)
    {STEP_ORDER} LIMIT $2 OFFSET $3"""


class PostgresqlWorkflows(PostgresqlHolds):
    """The WorkflowStore over PostgreSQL; see `bus.model.workflows` for what each method promises.

    Without a `clock`, which is for tests, the time is the database's.
    """

    def __init__(
        self,
        database: Database,
        rules: WorkflowRules,
        clock: Callable[[], datetime] | None,
        events: EventWriting,
        *,
        by: str | None = None,
    ) -> None:
        super().__init__(database, rules, clock, events)
        self.retrying = Retrying(self.runs)
        self.steps = Steps(self.runs.check_size, rules.output_bytes_max, self.runs.events)
        self.signals = RunSignals(self.runs, self.steps)
        self._by = by
        """The bot for which it works, if that is to be asked."""

    def on_behalf_of(self, bot_id: str) -> PostgresqlWorkflows:
        """Return the same store for one bot: the runs that it creates are its own, and a fence must be its own."""
        return self._with(self._rules, bot_id)

    def limited(self, record_bytes_max: int) -> PostgresqlWorkflows:
        """Return the same store with a smaller maximum for records that are written or claimed."""
        return self._with(msgspec.structs.replace(self._rules, record_bytes_max=record_bytes_max), self._by)

    def _with(self, rules: WorkflowRules, by: str | None) -> PostgresqlWorkflows:
        other = PostgresqlWorkflows(self._database, rules, self._clock, self.runs.events, by=by)
        other._together = self._together
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

        async def operation(unit: Unit) -> bool:
            await unit.check_fence(run_id, fence, self._by)
            held = await unit.held(run_id)
            return await self.runs.events.progress(unit, held.run, value, id)

        return await self._write(operation, Needs(records=(run_id,)))

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_run(self, run: WorkflowRun, *, fence: int | None = None) -> WorkflowRun:
        """Create, or return the existing run if all fields are equal."""
        new = new_run(run)
        self.runs.check_size(new.run, f"run {run.id!r}")
        parents = () if run.parent_run_id is None else (run.parent_run_id,)
        needs = Needs(runs=parents, records=(run.id,), workflows=(run.workflow_id,))
        return await self._write(lambda unit: self.runs.create(unit, new, self._by, fence=fence), needs)

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
        if change.status is RunStatus.CANCELLED:
            return await self._write_cancelling(lambda unit: self.runs.move(unit, change))
        return await self._write(lambda unit: self.runs.move(unit, change), Needs(records=(run_id,)))

    async def cancel_run(
        self, run_id: str, reason: str | None = None, grace_seconds: float | None = None
    ) -> WorkflowRun:
        """Cancel a run, with its children; one whose program cleans up is asked to do that first."""
        why = json_value(reason, f"reason to cancel run {run_id!r}")

        async def operation(unit: Unit) -> WorkflowRun:
            return await self.runs.cancel(unit, run_id, self.runs.cancel_request(unit, why, grace_seconds))

        return await self._write_cancelling(operation)

    async def retry_run(self, run_id: str, from_step: str | None = None) -> WorkflowRun:
        """Resume a run that stopped, as if its failed steps, or those from one on, had not been carried out."""
        return await self._write(lambda unit: self.retrying.retry(unit, run_id, from_step), settles=True)

    async def fork_run(self, run_id: str, new_id: str, before_step: str | None = None) -> WorkflowRun:
        """Create a run with the records of another one up to a step."""
        check_id(new_id, "id of a run")
        return await self._write(
            lambda unit: self.retrying.fork(unit, run_id, new_id, before_step, by=self._by), settles=True
        )

    async def delete_run(self, run_id: str) -> bool:
        """Delete a run that has ended, with all that belongs to it."""
        if "\0" in run_id:
            return False
        return await self._write(lambda unit: delete_run(unit.connection, run_id), settles=True)

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""
        rows = await self._fetch(_FIND_RUN, run_id)
        return run_record(rows[0]) if rows else None

    async def get_latest_run(self, run_id: str) -> WorkflowRun | None:
        """Return the last run as which a run continued."""
        rows = await self._fetch(_FIND_LATEST, run_id)
        return run_record(rows[0]) if rows else None

    async def watch_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""
        return await self.get_run(run_id)

    async def news_of(self, run_ids: Sequence[str], *, slots: bool) -> list[RunNews]:
        """Return what is to be known of runs that changed."""
        now = await self._now() if slots else None
        return await find_news(self._database.read, run_ids, now)

    async def owners_of(self, run_ids: Sequence[str]) -> dict[str, RunOwners]:
        """Return whose these runs are, by their ids."""
        return await find_owners(self._database.read, run_ids)

    async def get_run_definition(self, run_id: str) -> WorkflowDefinition | None:
        """Return the definition that a run was created with."""
        rows = await self._fetch(_FIND_DEFINITION, run_id)
        return definition_record(rows[0]) if rows else None

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        """End the holds of runs whose lease has expired."""
        most = row_limit(limit)

        async def operation(unit: Unit) -> list[RecoveredRun]:
            await expire_cancels(unit, self.runs, most)
            await self.flush(unit)
            await cancel_more(unit, self.runs)
            return await recover(unit, self.runs, most)

        return await self._write(operation, settles=True)

    # ── Opening a run ────────────────────────────────────────────────────────────────────────────────────

    async def open_run(self, opening: RunOpening, holder: str, *, is_new: bool = False) -> OpenedRun:
        """Claim a run, and create it first if it does not exist."""
        claimant, run_id = self._claimant(holder, opening), opening.run_id

        async def operation(unit: Unit) -> OpenedRun | SlotsTaken | InvalidTransition:
            return await enter(self.runs, unit, opening, claimant(unit), by=self._by, is_new=is_new)

        opened = await self._write(operation, Needs(records=(run_id,), claimed=(run_id,)))
        if isinstance(opened, SlotsTaken | InvalidTransition):
            raise opened
        if opened.created:
            return opened
        definition = await self.get_run_definition(run_id)
        return msgspec.structs.replace(opened, definition=definition, steps=await self.page_step_logs(run_id))

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
        [outcome] = await self.write_steps([write])
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
        following = iter(await self._write_together(checked) if checked else ())
        return [next(following) if outcome is None else outcome for outcome in outcomes]

    async def _write_together(self, writes: Sequence[StepWrite]) -> list[WorkflowStepLog | StoreError]:
        async def operation(unit: Unit) -> list[WorkflowStepLog | StoreError]:
            outcomes: list[WorkflowStepLog | StoreError] = []
            for write in writes:
                mark = unit.mark()
                try:
                    outcomes.append(await self.steps.write(unit, write))
                except StoreError as error:
                    unit.back(mark)
                    outcomes.append(error)
            return outcomes

        asked = (need for write in writes for need in needs_of(write).steps)
        return await self._write(operation, Needs(steps=tuple(asked)), only_steps=True)

    def _checked(self, write: StepCreation | StepMove) -> StepWrite:
        if isinstance(write, StepMove):
            return write
        new = new_step(write.step, fence=write.fence, by=write.by, output_bytes_max=self._rules.output_bytes_max)
        self.runs.check_size(new.step, f"step {write.step.step_id!r}", new.output_text)
        return new

    async def get_step_log(self, step_id: str) -> WorkflowStepLog | None:
        """Return a step log by its own id."""
        rows = await self._fetch(_FIND_STEP, step_id)
        return step_record(rows[0]) if rows else None

    async def list_step_logs(
        self, run_id: str, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List a run's step logs in the order in which they began."""
        chosen = part(limit, offset)
        return [step_record(row) for row in await self._fetch(_LIST_STEPS, run_id, *chosen)]

    async def page_step_logs(self, run_id: str, after: str | None = None) -> StepPage:
        """Return a run's step logs after the one with the id `after`, at most about a mebibyte, at least one."""
        place: tuple[str, int] = ("", 0)
        if after is not None:
            places = await self._fetch(_FIND_STEP_PLACE, after, run_id)
            if not places:
                raise NotFound("step", after)
            place = (places[0][0], places[0][1])
        rows = await self._fetch(_PAGE, run_id, *place, _PAGE_STEPS, _PAGE_BYTES)
        return StepPage(steps=tuple(step_record(row) for row in rows), more=any(row[12] for row in rows[:1]))

    async def get_completed_step_ids(self, run_id: str) -> list[str]:
        """List the ids of completed steps, in the order they began, each once, without skipped ones."""
        rows = await self._fetch(_COMPLETED, run_id)
        return list(dict.fromkeys(row[0] for row in rows if not is_set_aside(row[0])))

    async def list_waiting_approvals(
        self, run_id: str | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List the step logs that wait for an approval, oldest first."""
        chosen = part(limit, offset)
        return [step_record(row) for row in await self._fetch(_WAITING, run_id, *chosen)]

    # ── Signals ──────────────────────────────────────────────────────────────────────────────────────────

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
        signal = new_signal(NewSignal(id=id or str(uuid.uuid4()), run_id=run_id, name=name, payload=payload))
        return await self._write(lambda unit: self.signals.send(unit, signal, sender), Needs(runs=(run_id,)))

    async def list_signals(
        self, run_id: str, names: Sequence[str] | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[Signal]:
        """List the signals of a run that were not taken, oldest first."""
        chosen = part(limit, offset)
        if "\0" in run_id:
            return []
        return await find_signals(self._database.read, run_id, names, chosen)

    async def take_signal(
        self, step: WorkflowStepLog, names: Sequence[str], until: str | None = None, *, fence: int | None = None
    ) -> WorkflowStepLog:
        """Complete a step with the oldest waiting signal of these names."""
        pending = msgspec.structs.replace(step, status=StepStatus.PENDING)
        new = new_step(normal_record(pending, f"step {step.step_id!r}"), fence=fence, by=self._by)
        self.runs.check_size(new.step, f"step {step.step_id!r}", new.output_text)
        last = None if until is None else time_text(until, "until")
        return await self._write(lambda unit: self.signals.take(unit, new, names, last), needs_of(new))
