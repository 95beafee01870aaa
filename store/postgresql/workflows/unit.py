"""A unit of work: what one transaction knows of runs and step logs, and what it will have changed.

Owns the order of reading and writing. A statement costs a round trip to the server, and a transaction has the calls
of many bots. So what its calls need is read with one statement for runs and one for step logs, each call is decided
here in memory, and what changed is written at the end, with one statement for each kind of row. Its rules:

- Only one writer changes these tables, so what was read stays true for the rest of the transaction.
- A call that is refused leaves nothing behind: `back` undoes what it changed since `mark`.
- A call that queries what others may have changed begins with `settle`, before it changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from bus.errors import NotFound, RecordDamaged
from bus.model.checked import NewRun
from bus.model.leases import HeldRun, HoldState, Slots, check_fence
from bus.model.owners import RunOwners
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import NewMessage

from .flushing import Changes, StepEnd, StepRow, as_one, flush
from .reading import (
    KnownHold,
    KnownRun,
    KnownStep,
    KnownWorkflow,
    Others,
    Queue,
    count_others,
    count_recorded,
    read_output,
    read_record,
    read_runs,
    read_steps,
    read_workflows,
)
from .rows import error_text, run_row

__all__ = ["Needs", "Unit"]

_CHARACTERS_MAX = 16 * 1024 * 1024
"""What is kept in memory before it is sent: the largest output."""


class Needs(msgspec.Struct, frozen=True):
    """What a call needs to know: of runs their holds, or also their records; of step logs also the runs."""

    runs: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    claimed: tuple[str, ...] = ()
    """Runs whose slots are looked at; they are also among the records."""
    steps: tuple[tuple[str, str | None], ...] = ()
    """Step logs with the run for which they are written; None: the one that they have."""
    workflows: tuple[str, ...] = ()


_Mark = tuple[int, int, int, int, int, int]


class Unit:
    """See the module. `now` is the time of all that is done in it: for records, and for leases."""

    def __init__(self, connection: asyncpg.Connection, now: str) -> None:
        self.connection = connection
        self.now = now
        self.read_at: datetime | None = None
        """When step logs were read last, by the server's clock."""
        self.events: list[NewMessage] = []
        """The events of runs that are to be stored."""
        self.large_outputs = 0
        """How many large outputs were read in this transaction."""
        self.cancels = False
        """Whether runs were written that are to be cancelled with others."""
        self._size = 0
        self._changes = Changes()
        self._journal: list[tuple[dict[Any, Any], Any, Any]] = []
        self._forget()

    def __repr__(self) -> str:
        return f"<Unit at {self.now}: {len(self._runs)} runs, {len(self._steps)} steps>"

    def _forget(self) -> None:
        self._runs: dict[str, KnownRun | None] = {}
        self._holds: dict[str, KnownHold | None] = {}
        self._steps: dict[str, KnownStep | None] = {}
        self._workflows: dict[str, KnownWorkflow | None] = {}
        self._of_queue: dict[tuple[str, str], set[str]] = {}
        self._others: dict[Queue, Others] = {}
        self.definitions: dict[tuple[str, str], tuple[WorkflowDefinition | None, list[str]]] = {}
        """Definitions with which runs are created, by what was asked for, and the digests of what they replaced."""

    # ── Refused calls, and what needs the tables as they are ─────────────────────────────────────────────

    def mark(self) -> _Mark:
        """Return where the changes of the next call begin."""
        changes = self._changes
        return (
            len(self._journal),
            len(changes.closings),
            len(changes.signals),
            len(changes.taken),
            len(changes.passed),
            len(self.events),
        )

    def back(self, mark: _Mark) -> None:
        """Undo the changes since a mark."""
        journal, closings, signals, taken, passed, events = mark
        while len(self._journal) > journal:
            mapping, key, before = self._journal.pop()
            if before is _NOTHING:
                del mapping[key]
            else:
                mapping[key] = before
        changes = self._changes
        del changes.closings[closings:], changes.signals[signals:], changes.taken[taken:]
        del changes.passed[passed:], self.events[events:]

    def _set(self, mapping: dict[Any, Any], key: Any, value: Any) -> None:
        self._journal.append((mapping, key, mapping.get(key, _NOTHING)))
        mapping[key] = value

    async def flush(self) -> None:
        """Write what changed."""
        self.cancels = self.cancels or bool(self._changes.cancelled)
        await flush(self.connection, self._changes, self.now)
        self._changes = Changes()
        self._journal.clear()
        self._size = 0

    def as_one(self) -> tuple[str, Sequence[Any]] | None:
        """Return what changed as the SQL of a batch, with its own values, if it is only of step logs."""
        return None if self.events else as_one(self._changes)

    async def settle(self) -> None:
        """Write what changed, and know nothing: for a call that reads or writes the tables itself."""
        await self.flush()
        self._forget()

    @property
    def is_full(self) -> bool:
        """Return True if so much is to be written that it should be before more is done."""
        return self._size > _CHARACTERS_MAX

    def _add(self, *texts: str | None) -> None:
        self._size += sum(len(text) for text in texts if text is not None)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────────────────

    async def load(self, needs: Iterable[Needs]) -> None:
        """Read what calls need, in few statements."""
        whole: dict[str, bool] = {}
        steps: dict[tuple[str, str | None], None] = {}
        workflows: dict[str, None] = {}
        claimed: dict[str, None] = {}
        for need in needs:
            for run_id in need.runs:
                whole.setdefault(run_id, False)
            whole.update(dict.fromkeys(need.records, True))
            steps.update(dict.fromkeys(need.steps))
            workflows.update(dict.fromkeys(need.workflows))
            claimed.update(dict.fromkeys(need.claimed))
        await self._load_runs(whole)
        await self._load_steps(steps)
        await self._load_workflows(workflows)
        await self._count_others(claimed)

    async def _load_runs(self, whole: dict[str, bool]) -> None:
        wanted = {id: each for id, each in whole.items() if id not in self._runs}
        self._runs.update(dict.fromkeys(wanted))
        async for run_id, known, workflow_id, workflow in read_runs(self.connection, wanted):
            self._workflows[workflow_id] = workflow
            if known is None:
                del self._runs[run_id]  # the call that needs it reads it again, and raises
                continue
            self._runs[run_id] = known
            self._of_queue.setdefault((workflow_id, known.queue), set()).add(run_id)
            self._others.clear()

    async def _load_steps(self, steps: Iterable[tuple[str, str | None]]) -> None:
        asked = [(id, run_id) for id, run_id in steps if id not in self._steps or not self._knows(run_id)]
        for id, run_id in asked:
            self._steps.setdefault(id, None)
            if run_id is not None:
                self._holds.setdefault(run_id, None)
        async for found in read_steps(self.connection, asked):
            self.read_at = found.read_at
            if found.run_id is not None:
                self._holds[found.run_id] = found.hold
            if found.id is None or self._steps[found.id] is not None:
                continue
            if found.known is None:
                del self._steps[found.id]
                continue
            step = found.known.step
            for run_id, closing in self._changes.closings:
                if run_id == step.run_id:
                    step = _closed(step, closing, self.now)
            self._steps[found.id] = found.known._replace(step=step)

    def _knows(self, run_id: str | None) -> bool:
        return run_id is None or run_id in self._runs or run_id in self._holds

    async def _load_workflows(self, ids: Iterable[str]) -> None:
        wanted = [id for id in ids if id not in self._workflows]
        self._workflows.update(dict.fromkeys(wanted))
        self._workflows.update(await read_workflows(self.connection, wanted))

    async def find(self, run_id: str) -> HeldRun | None:
        """Return a run and its hold. Raise RecordDamaged."""
        if run_id not in self._runs:
            await self._load_runs({run_id: True})
        known = self._runs.get(run_id, _NOTHING)
        if known is None:
            return None
        if known is _NOTHING or known.partial:
            record = await read_record(self.connection, run_id)
            if known is _NOTHING:
                raise RecordDamaged("workflow_runs", f"id {run_id}")
            return HeldRun(record, known.held.hold)
        return known.held  # type: ignore[no-any-return]

    async def held(self, run_id: str) -> HeldRun:
        """Return a run and its hold. Raise NotFound or RecordDamaged."""
        held = await self.find(run_id)
        if held is None:
            raise NotFound("run", run_id)
        return held

    async def hold(self, run_id: str) -> tuple[RunStatus, HoldState]:
        """Return a run's status and hold, without its context, which may be large."""
        if run_id not in self._runs:
            await self._load_runs({run_id: False})
        known = self._runs.get(run_id)
        held = await self.held(run_id) if known is None else known.held
        return held.run.status, held.hold

    async def owners(self, run_id: str) -> RunOwners | None:
        """Return whose a run is, if it exists. Raise RecordDamaged."""
        held = await self.find(run_id)
        if held is None:
            return None
        workflow = await self.workflow(held.run.workflow_id)
        assert workflow is not None, "a workflow stays as long as it has runs"
        creator, hold = await self.created_by(run_id), held.hold
        return RunOwners(run_id, workflow.name, workflow.owner, creator, hold.holder, hold.last_holder)

    async def created_by(self, run_id: str) -> str | None:
        """Return the bot that created a run; None if it does not exist, or nobody is known."""
        await self.find(run_id)
        known = self._runs[run_id]
        return None if known is None else known.created_by

    async def check_fence(self, run_id: str, fence: int | None, by: str | None) -> None:
        """Raise Fenced if a write has another fence than the run's, and NotFound if there is no such run."""
        run = self._runs.get(run_id)
        if run is None and run_id not in self._holds:
            await self._load_runs({run_id: False})
            run = self._runs.get(run_id)
        if run is not None:
            hold = KnownHold(run.held.run.status, run.held.hold.fence, run.held.hold.last_holder)
        else:
            known = self._holds.get(run_id)
            if known is None:
                raise NotFound("run", run_id)
            hold = known
        check_fence(run_id, hold.status, hold.fence, fence, last_holder=hold.last_holder, by=by)

    async def has_run(self, run_id: str) -> bool:
        """Return True if there is such a run."""
        if self._runs.get(run_id) is None and self._holds.get(run_id) is None:
            await self._load_runs({run_id: False})
        return self._runs.get(run_id) is not None or self._holds.get(run_id) is not None

    async def workflow(self, id: str) -> KnownWorkflow | None:
        """Return what a definition says of its runs, if there is one."""
        await self._load_workflows([id])
        return self._workflows[id]

    async def step(self, id: str, run_id: str | None = None) -> WorkflowStepLog | None:
        """Return a step log; with a run, also read that run's hold. Raise RecordDamaged."""
        await self._load_steps([(id, run_id)])
        if id not in self._steps:
            raise RecordDamaged("workflow_steps", f"id {id}")
        known = self._steps[id]
        return None if known is None else known.step

    def is_large(self, id: str) -> bool:
        """Return True if a step log that was found has a large output, which was not read with it."""
        known = self._steps[id]
        return known is not None and known.partial

    async def large_output(self, id: str) -> str | None:
        """Return the large output of a step log, as text."""
        return await read_output(self.connection, id)

    async def recorded(self, run_id: str) -> int:
        """Count the steps of a run that are completed or skipped."""
        mine = [one.step for one in self._steps.values() if one is not None and one.step.run_id == run_id]
        done = sum(step.status in (StepStatus.COMPLETED, StepStatus.SKIPPED) for step in mine)
        return done + await count_recorded(self.connection, run_id, [step.id for step in mine])

    async def slots(self, run: WorkflowRun) -> Slots:
        """Return what a claim needs to know about the other runs with which a run shares its slots."""
        workflow = await self.workflow(run.workflow_id)
        if workflow is None or workflow.concurrency is None:
            return Slots(None, 0, 0, 0)
        known = self._runs[run.id]
        assert known is not None, "it was found before"
        place = known.held.hold.queue_place
        key = (run.workflow_id, known.queue, place)
        if key not in self._others:
            await self._count_others([run.id])
        others = self._others[key]
        running, ahead, last = others
        for id in self._of_queue[run.workflow_id, known.queue]:
            mine = self._runs[id]
            if mine is None:
                continue
            hold = mine.held.hold
            running += mine.held.run.status == RunStatus.RUNNING
            if hold.queue_place is None or id == run.id:
                continue
            last = max(last, hold.queue_place)
            waits = hold.queued_until is not None and hold.queued_until > self.now
            ahead += waits and (place is None or hold.queue_place < place)
        return Slots(workflow.concurrency, running, ahead, last + 1)

    async def _count_others(self, run_ids: Iterable[str]) -> None:
        asked: dict[Queue, None] = {}
        for run_id in run_ids:
            known = self._runs.get(run_id)
            if known is None:
                continue
            workflow = self._workflows[known.held.run.workflow_id]
            if workflow is not None and workflow.concurrency is not None:
                asked[known.held.run.workflow_id, known.queue, known.held.hold.queue_place] = None
        if not asked:
            return
        mine = [id for workflow_id, queue, _ in asked for id in self._of_queue[workflow_id, queue]]
        self._others.update(await count_others(self.connection, list(asked), self.now, mine))

    # ── Changing ─────────────────────────────────────────────────────────────────────────────────────────

    def create(self, new: NewRun, created_by: str | None, schedule: tuple[str | None, str | None]) -> None:
        """Create a run of a workflow that exists. Raise InvalidValue for texts that cannot be stored."""
        run = new.run
        self._set(self._changes.created, run.id, (*run_row(new.row), created_by, *schedule))
        queue = "-" if run.concurrency_key is None else f"={run.concurrency_key}"
        self._set(self._runs, run.id, KnownRun(HeldRun(run, HoldState()), queue, created_by, False))
        self._of_queue.setdefault((run.workflow_id, queue), set()).add(run.id)
        self._add(*new.row[5:7], new.row[11])

    def write(self, held: HeldRun, context_text: str | None = None, result_text: str | None = None) -> None:
        """Change a run's status and hold, and its context and result if they are given as texts."""
        run, hold = held.run, held.hold
        known = self._runs[run.id]
        assert known is not None, "it was found before"
        before = self._changes.runs.get(run.id)
        if before is not None:
            context_text, result_text = context_text or before[4], result_text or before[5]
        *values, reason = msgspec.structs.astuple(hold)
        row = (run.id, run.status, error_text(run.error), run.completed_at, context_text, result_text)
        self._set(self._changes.runs, run.id, (*row, *values, error_text(reason), run.continued_as))
        self._set(self._runs, run.id, known._replace(held=held, partial=False))
        self._add(context_text, result_text)

    def write_hold(self, run_id: str, hold: HoldState) -> None:
        """Change a run's hold, whose record was not read."""
        known = self._runs[run_id]
        assert known is not None, "it was found before"
        self.write(HeldRun(known.held.run, hold))
        self._set(self._runs, run_id, known._replace(held=HeldRun(known.held.run, hold)))

    def close_steps(self, run_id: str, closing: StepEnd) -> None:
        """End the steps of a run."""
        if run_id not in self._changes.created:
            self._changes.closings.append((run_id, closing))
        for known in list(self._steps.values()):
            if known is not None and known.step.run_id == run_id:
                step = _closed(known.step, closing, self.now)
                if step is not known.step:
                    self.write_step(step, known.partial)

    def create_step(self, step: WorkflowStepLog, row: tuple[Any, ...]) -> None:
        """Create a step log: the first ten columns as texts."""
        self._set(self._changes.steps, step.id, StepRow(True, step, row[7], row[8]))
        self._set(self._steps, step.id, KnownStep(step, False))
        self._add(row[7], row[8])

    def write_step(self, step: WorkflowStepLog, partial: bool = False, output_text: str | None = None) -> None:
        """Change a step log's status, error and times, and its output if that is given as text."""
        before = self._changes.steps.get(step.id)
        if before is None:
            row = StepRow(False, step, None, output_text)
        else:
            row = before._replace(step=step, output=output_text or before.output)
        self._set(self._changes.steps, step.id, row)
        self._set(self._steps, step.id, KnownStep(step, partial))
        self._add(output_text)

    def add_signal(self, row: tuple[Any, ...]) -> None:
        """Keep a signal: its columns."""
        self._changes.signals.append(row)

    def take_signal(self, run_id: str, id: str, step_id: str) -> None:
        """Assign a signal to a step."""
        self._changes.taken.append((run_id, id, step_id))

    def cancel_children(self, run_id: str, why: str, cancel_by: str) -> None:
        """Have the children that a run has by now cancelled, some of them with this unit."""
        self._set(self._changes.cancelled, run_id, (why, cancel_by))

    def pass_on_signals(self, run_id: str, successor_id: str) -> None:
        """Move the signals that nobody took to the run as which theirs continues, except those that it has."""
        self._changes.passed.append((run_id, successor_id))

    @property
    def taken_signals(self) -> Sequence[tuple[str, str, str]]:
        """The signals that step logs are to have: their runs and ids, and the step logs."""
        return self._changes.taken

    @property
    def new_signals(self) -> Sequence[tuple[Any, ...]]:
        """The signals that are to be kept: their columns."""
        return self._changes.signals


class _Nothing:
    """What a journal says of a key that was not there."""


_NOTHING: Any = _Nothing()


def _closed(step: WorkflowStepLog, closing: StepEnd, now: str) -> WorkflowStepLog:
    if step.status not in closing.statuses:
        return step
    return msgspec.structs.replace(
        step, status=StepStatus.FAILED, error=closing.error, completed_at=step.completed_at or now
    )
