"""Runs that a run starts: created once, however often its program goes through the call, and waited for.

Owns the ids of children, and what is recorded of them. A child is a run of its own: who executes it opens it by its
id. What became of it is recorded in its parent when the parent has seen it.
"""

from __future__ import annotations

import uuid
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import anyio
import msgspec

from ..client.lending import waiting_for_reply
from ..errors import NotFound, StepChanged
from ..model.openings import check_input
from ..model.records import RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from ..model.retrying import SET_ASIDE
from ..model.tracing import traced
from ..model.values import same_json
from ..wire.limits import NAME_CHARACTERS_MAX
from .continuing import find_latest
from .handle import RunHandle
from .holding import AWAY, RUN_ENDS, ended
from .replay import CALL, START, changed_text
from .starting import Start, find_definition, new_run
from .values import ReadAs
from .waits import Waits

__all__ = ["Child", "Children", "child_id"]

_NAMESPACE = uuid.UUID("7d4f7c39-94a1-5d0c-8d0b-2f9d6f0a5c11")


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A run to start: of which workflow, and with what."""

    workflow: str
    input: Any
    concurrency_key: str | None = None
    run_at: datetime | None = None
    definition: WorkflowDefinition | None = None
    trigger_type: str = "run"
    attributes: dict[str, str] = {}

    @property
    def asked(self) -> dict[str, Any]:
        """What a record says of the call: another call is another child."""
        return {"workflow": self.workflow, "input": self.input}

    def start(self, id: str) -> Start:
        """Return what the run is created with."""
        return Start(
            id=id,
            input=self.input,
            concurrency_key=self.concurrency_key,
            trigger_type=self.trigger_type,
            definition=self.definition,
            run_at=self.run_at,
            attributes=self.attributes,
        )


def child_id(run_id: str, step_id: str, number: int = 1) -> str:
    """Return the id of the run that a step of a run starts, which is the same each time.

    The second one takes the place of a first one that was cancelled, and so on.
    """
    id = f"{run_id}/{step_id}" + (f"#again-{number}" if number > 1 else "")
    return id if len(id) <= NAME_CHARACTERS_MAX else str(uuid.uuid5(_NAMESPACE, id))


class Children(Waits):
    """The calls of a run that start others."""

    def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        name: str | None = None,
        concurrency_key: str | None = None,
        run_at: datetime | None = None,
        definition: WorkflowDefinition | None = None,
    ) -> Coroutine[Any, Any, RunHandle]:
        """Start a run of a workflow, this run's child, and return a handle of it without waiting for it.

        The child is created once: its id is made of this run's id and the name of the step, which is by default
        the name of the workflow. It begins when a program opens it, and not before `run_at`. If this run is
        cancelled, its children are. They are not if it fails or completes. `definition` is saved first. Raises
        UnknownWorkflow.
        """
        step_id = self._take_name(name or workflow)
        child = self._child(step_id, workflow, input, concurrency_key, run_at, definition)
        return self._start(name or workflow, step_id, child)

    def call(
        self,
        workflow: str,
        input: Any = None,
        *,
        name: str | None = None,
        concurrency_key: str | None = None,
        definition: WorkflowDefinition | None = None,
        returns: Any = msgspec.UNSET,
    ) -> Coroutine[Any, Any, Any]:
        """Start a run of a workflow, this run's child, wait until it has ended, and return its result.

        Meanwhile this run is paused, unless other steps are running, and a handler lends its place to another one.
        The result is recorded. With `returns`, it is returned as a value of that type. Raises RunFailed if the
        child failed, and RunCancelled if it was cancelled; both have its id, are recorded, and fail this run if
        they leave its block. When this run is retried, a child that failed is retried too.
        """
        reading = None if returns is msgspec.UNSET else self._recorder.values.reading(returns)
        step_id = self._take_name(name or workflow)
        child = self._child(step_id, workflow, input, concurrency_key, None, definition)
        return self._call(name or workflow, step_id, child, reading)

    def _child(
        self,
        step_id: str,
        workflow: str,
        input: Any,
        concurrency_key: str | None,
        run_at: datetime | None,
        definition: WorkflowDefinition | None,
    ) -> Child:
        return Child(
            workflow=workflow,
            input=self._recorder.value(input, "input", step_id),
            concurrency_key=concurrency_key,
            run_at=run_at,
            definition=definition,
            attributes=traced(self._recorder.run.attributes),
        )

    async def _start(self, name: str, step_id: str, child: Child) -> RunHandle:
        row = self._recorded_child(step_id, START, child)
        if row is None or row.status is not StepStatus.COMPLETED:
            self._recorder.refuse_news(step_id)
            async with self._hold.work():
                created = await self._create(child_id(self.id, step_id), child)
                for again in range(len(self._set_aside(step_id))):
                    if created.status is RunStatus.CANCELLED:  # it is final: retrying this run starts another one
                        created = await self._create(child_id(self.id, step_id, again + 2), child)
                row = self._recorder.row(
                    step_id, name, status=StepStatus.RUNNING, input=child.asked, idempotency_key=START
                )
                row = await self._recorder.end(row, StepStatus.COMPLETED, output={"run_id": created.id})
        return RunHandle(self._workflows, row.output["run_id"], self._hold.timing, self._recorder.values)

    async def _call(self, name: str, step_id: str, child: Child, reading: ReadAs | None) -> Any:
        row = self._recorded_child(step_id, CALL, child)
        if row is None or row.status is StepStatus.PENDING:
            self._recorder.refuse_news(step_id)
            row = row or await self._begin_call(name, step_id, child)
            with self._leaving(row):
                row = await self._ended(row)
        await self._leave_again(row)
        if row.status is StepStatus.FAILED:
            seen = row.output if isinstance(row.output, dict) else {}  # without one, somebody else ended the step
            raise ended(self._callee(step_id), seen.get("status", ""), seen.get("error", row.error))
        return row.output if reading is None else reading.read(row.output, f"result of step {step_id!r}")

    def _recorded_child(self, step_id: str, kind: str, child: Child) -> WorkflowStepLog | None:
        row = self._recorder.recorded(step_id, kind)
        if row is not None and not same_json(row.input, child.asked):
            raise StepChanged(self.id, step_id, changed_text(row.input, child.asked))
        return row

    def _set_aside(self, step_id: str) -> list[WorkflowStepLog]:
        """Return the records of a step that count no longer, because this run was retried."""
        return self._recorder.attempts(step_id + SET_ASIDE)

    def _callee(self, step_id: str) -> str:
        """Return the id of the run that a call waits for: another one after each that was cancelled."""
        seen = [row.output for row in self._set_aside(step_id) if row.status is StepStatus.FAILED]
        cancelled = sum(isinstance(each, dict) and each.get("status") == RunStatus.CANCELLED for each in seen)
        return child_id(self.id, step_id, cancelled + 1)

    async def _create(self, id: str, child: Child) -> WorkflowRun:
        """Create a child, or return it as it is by now."""
        workflows = self._workflows
        definition = await find_definition(workflows, self._hold.bot_id, child.workflow, child.definition)
        start = child.start(id)
        run = new_run(definition, start, self._hold.timing.clock(), parent_run_id=self.id)
        created = await self._hold.guard(workflows.create_run(run, fence=self.fence))
        check_input(created, child.input)
        return created

    async def _begin_call(self, name: str, step_id: str, child: Child) -> WorkflowStepLog:
        async with self._hold.work():
            created = await find_latest(self._workflows, await self._create(self._callee(step_id), child))
            if created.status is RunStatus.FAILED:  # it was not seen to fail, or its failure was set aside
                await self._workflows.retry_run(created.id)
            # Pending, not running: a claim would treat a running step as interrupted.
            row = self._recorder.row(
                step_id, name, status=StepStatus.PENDING, input=child.asked, idempotency_key=CALL
            )
            await self._recorder.create(row)
        return row

    async def _ended(self, row: WorkflowStepLog) -> WorkflowStepLog:
        """Return the record of a call with the end of its child."""
        with self._hold.cancelling.interruptible():
            child = await self._until_ended(self._callee(row.step_id))
        async with self._hold.work():
            if child.status is RunStatus.COMPLETED:
                return await self._recorder.end(row, StepStatus.COMPLETED, output=child.result)
            output = {"status": child.status, "error": child.error}
            error = f"run {child.id} is {child.status}: {child.error or 'no reason was recorded'}"
            return await self._recorder.end(row, StepStatus.FAILED, output=output, error=error)

    async def _until_ended(self, id: str) -> WorkflowRun:
        hold, timing = self._hold, self._hold.timing
        polls = timing.polls()
        async with waiting_for_reply():
            while True:
                woken, mine = timing.woken(id), hold.woken()
                looked = await hold.rest() and await hold.look()
                try:
                    run = await self._workflows.watch_run(id)
                    if run is None:
                        raise NotFound("run", id)
                    run = await find_latest(self._workflows, run)
                except AWAY:
                    looked = False
                else:
                    if run.id != id:
                        id = run.id
                        continue
                    if run.status in RUN_ENDS:
                        if run.status is RunStatus.CANCELLED:  # perhaps with this one, which was looked at before
                            await hold.look()
                            await anyio.lowlevel.checkpoint()
                        return run
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_cancel_at, mine, tasks.cancel_scope)
                    await polls.pause(woken, again=not looked)
                    tasks.cancel_scope.cancel()


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    """Cancel a scope when an event is set."""
    await event.wait()
    scope.cancel()
