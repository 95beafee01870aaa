"""The records of a run while it is executed: its steps, its context, and that it is completed.

Owns the records that this program knows, and writing new ones while it holds the run. `replay` decides what a
record means on the next execution.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import uuid_utils

from ..errors import InvalidTransition, InvalidValue, NotFound, StepChanged, TooLarge
from ..model.exact import Exact
from ..model.records import Claim, RunStatus, StepPage, StepStatus, WorkflowRun, WorkflowStepLog, timestamp
from ..model.values import CONTEXT_BYTES_MAX, STEP_VALUE_BYTES_MAX, json_text
from .holding import Hold
from .replay import LEFT, Names, Records, kind_of
from .values import Context, Values

__all__ = ["Begin", "Recorder"]

Begin = Callable[[WorkflowStepLog, int], Callable[[], bool] | None]
"""Sends the record that a step begins, with the run's fence, before any record that is sent later.

Returns how to withdraw it, which returns False once it was sent; None if it could not be sent.
"""


_OPEN = (StepStatus.PENDING, StepStatus.RUNNING, StepStatus.WAITING_APPROVAL)


class Recorder:
    """See the module."""

    def __init__(
        self,
        hold: Hold,
        run: WorkflowRun,
        values: Values,
        *,
        begin: Begin | None = None,
    ) -> None:
        self.hold = hold
        self.run_id = run.id
        self.run = run
        """The run as it was claimed."""
        self.values = values
        self.completed = run.status == RunStatus.COMPLETED
        """Whether the run is completed: then only recorded steps are available."""
        self.result: Any = run.result
        """What the run is completed with."""
        self.resumed = False
        """Whether steps were recorded before the run was opened."""
        self._begin = begin
        self._beginnings: dict[str, Callable[[], bool]] = {}
        """How to withdraw the beginnings that were sent, by the ids of the step logs."""
        self._workflows = hold.workflows
        self._records = Records()
        self._names = Names()
        self._left: list[tuple[WorkflowStepLog, str]] = []
        self._saved = json_text(run.context, "context")
        self._workflow = run.workflow_name
        self._context = self._checking(run.context)
        hold.moved_on = self._moved_on

    def __repr__(self) -> str:
        return f"<Recorder of {self.run_id!r} {'completed' if self.completed else 'open'}>"

    def take_name(self, name: str) -> str:
        """Return the step id of a call that this task makes; see `Names.take`."""
        self.hold.home.check()
        return self._names.take(name, self.hold.home.task())

    def attempts(self, step_id: str) -> list[WorkflowStepLog]:
        """Return the recorded attempts of a step."""
        return self._records.of(step_id)

    def note(self, row: WorkflowStepLog) -> None:
        """Note a record written elsewhere: an answer, or a commit."""
        self._records.note(row)

    # ── The context ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def context(self) -> dict[str, Any]:
        """The values that the steps share."""
        context: dict[str, Any] = self._context
        return context

    @context.setter
    def context(self, context: dict[str, Any]) -> None:
        checking = self._checking(context)
        self._plain_context(checking)
        self._context = checking

    def _checking(self, context: Any) -> Any:
        """Return a context that checks what is set in it; one that is no dict stays what it is."""
        if not isinstance(context, dict):
            return context
        what = f"context of run {self.run_id!r}"
        return Context(context, what, self.values, bytes_max=CONTEXT_BYTES_MAX, name=f"context of {self._workflow}")

    def _plain_context(self, context: Any) -> Any:
        what = f"context of run {self.run_id!r}"
        name = f"context of {self._workflow}"
        return self.values.plain(context, what, bytes_max=CONTEXT_BYTES_MAX, name=name)

    def context_value(self, changes: dict[str, Any] | None = None) -> Any:
        """Return the context as it would be recorded, with some values changed."""
        return self._plain_context(self._context if changes is None else {**self._context, **changes})

    def set_result(self, result: Any) -> None:
        """Set what the run is completed with, unless it is completed. Raise InvalidValue or TooLarge."""
        what, name = f"result of run {self.run_id!r}", f"result of {self._workflow}"
        value = self.values.plain(result, what, bytes_max=self._workflows.output_bytes_max, name=name)
        if not self.completed:
            self.result = value

    def is_saved(self, context: Any) -> bool:
        """Return True if the context is recorded as it is."""
        return json_text(context, "context") == self._saved

    def note_saved(self, context: Any) -> None:
        """Note that the context was recorded."""
        self._saved = json_text(context, "context")

    async def save_context(self) -> None:
        """Record the current context."""
        context = self.context_value()
        async with self.hold.work():
            await self.close_left()
            await self.hold.record(
                lambda: self._workflows.update_run_status(
                    self.run_id, RunStatus.RUNNING, context=context, fence=self.hold.fence
                )
            )
        self.note_saved(context)

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    def recorded(self, step_id: str, kind: str) -> WorkflowStepLog | None:
        """Return the last attempt of a step. Raise StepChanged if it records another kind of call."""
        self.hold.home.check()
        row = self._records.latest(step_id)
        if row is not None and kind_of(row) != kind:
            raise StepChanged(
                self.run_id, step_id, f"the step recorded under this name is of kind {kind_of(row)!r}, not {kind!r}"
            )
        return row

    async def load(self, first: StepPage | None = None) -> None:
        """Read the existing records, unless the first of them are known and all there are."""
        if first is None or first.more:
            self._records = Records(await self._workflows.list_step_logs(self.run_id))
        else:
            self._records = Records(first.steps)
        self.resumed = bool(self._records)

    async def _moved_on(self, claim: Claim) -> bool:
        """Return True if another program recorded something while this one did not hold the run."""
        rows = await self._workflows.list_step_logs(self.run_id)
        return not self.is_saved(claim.run.context) or not self._records.has_all(rows)

    def refuse_news(self, step_id: str) -> None:
        """Raise StepChanged if the run is completed: nothing new is recorded then.

        Raise RunCancelled if it is to be cancelled, and the program was not told.
        """
        if self.completed:
            raise StepChanged(
                self.run_id, step_id, "the run is completed, and this step is not among the recorded ones"
            )
        self.hold.cancelling.refuse()

    def row(self, step_id: str, name: str, **fields: Any) -> WorkflowStepLog:
        """Return a new step log, which begins now."""
        return WorkflowStepLog(
            id=str(uuid_utils.uuid7()),
            run_id=self.run_id,
            step_id=step_id,
            step_name=name,
            started_at=timestamp(self.hold.timing.clock()),
            **fields,
        )

    def leave(self, row: WorkflowStepLog, error: str = LEFT) -> None:
        """Note that a call was cancelled. If the program goes on, that is recorded before what it records next.

        `error` is what is recorded: that the program left the call, or that the run is to be cancelled.
        """
        self._left.append((row, error))

    async def close_left(self) -> None:
        """Record which calls the program has left, while the run is held."""
        while self._left:
            row, error = self._left.pop()
            try:
                await self._close(row, error)
            except BaseException:
                self._left.append((row, error))
                raise

    async def _close(self, row: WorkflowStepLog, error: str) -> None:
        last = self._records.latest(row.step_id)
        if last is not None and last.status in _OPEN:
            with contextlib.suppress(
                InvalidTransition
            ):  # it was answered meanwhile, and the program did not see it
                move = self._workflows.update_step_status(
                    last.id, StepStatus.FAILED, error=error, fence=self.hold.fence
                )
                self._records.note(await self.hold.guard(move))
                return
        closed = self.row(
            row.step_id,
            row.step_name,
            status=StepStatus.FAILED,
            attempt=1 if last is None else last.attempt + 1,
            input=row.input,
            error=error,
            idempotency_key=row.idempotency_key,
            completed_at=timestamp(self.hold.timing.clock()),
        )
        await self.hold.guard(self._create(closed))
        self._records.note(closed)

    async def begin(self, row: WorkflowStepLog) -> None:
        """Record that a step begins; if the run is surely held, without waiting for the answer.

        Raises RunLost if the answer comes so late that the run may be somebody else's, and it is.
        """
        if self._begin is not None and self.hold.is_sure:
            await self.close_left()
            if (withdraw := self._begin(row, self.hold.fence)) is not None:
                self._beginnings[row.id] = withdraw
                self._records.note(row)
                return
        await self.create(row)
        await self.hold.reassure()

    async def create(self, row: WorkflowStepLog) -> None:
        """Record that a step begins."""
        await self.close_left()
        await self.hold.guard(self._create(row))
        self._records.note(row)

    async def end(
        self, row: WorkflowStepLog, status: StepStatus, *, output: Any = None, error: str | None = None
    ) -> WorkflowStepLog:
        """Record how a step ended, and return the record. The `output` may be an Exact.

        It is the existing step log, or a new one if the step was not announced, or is over before that was sent.
        """
        await self.close_left()
        withdraw = self._beginnings.pop(row.id, None)
        if withdraw is not None and withdraw():
            self._records.forget(row)
        now = timestamp(self.hold.timing.clock())
        whole = msgspec.structs.replace(row, status=status, output=output, error=error, completed_at=now)
        if self._records.has_all([row]):
            ended = await self.hold.record(lambda: self._move(whole))
        else:
            read = output.value if isinstance(output, Exact) else output
            # First: a cancelled program may record it without an answer.
            self._records.note(msgspec.structs.replace(whole, output=read))
            try:
                ended = await self.hold.record(lambda: self._create(whole))
            except (InvalidValue, TooLarge):
                self._records.forget(whole)
                raise
        self.note(ended)
        return ended

    async def take(self, row: WorkflowStepLog, names: Sequence[str], until: str | None) -> WorkflowStepLog:
        """Record that a step takes a signal, if one of these names waits, and return the record.

        A program that is cancelled meanwhile gets the signal all the same: it would not be sent again.
        """
        await self.close_left()
        with anyio.CancelScope(shield=True):
            taken = await self.hold.guard(self._workflows.take_signal(row, names, until, fence=self.hold.fence))
        self.note(taken)
        return taken

    async def _move(self, row: WorkflowStepLog) -> WorkflowStepLog:
        """Record the end of a step log; create it if its beginning, which nobody waited for, was refused."""
        fence = self.hold.fence
        try:
            return await self._workflows.update_step_status(row.id, row.status, row.output, row.error, fence=fence)
        except NotFound:
            if self._begin is None:
                raise
            return await self._create(row)

    async def _create(self, row: WorkflowStepLog) -> WorkflowStepLog:
        return await self._workflows.create_step_log(row, fence=self.hold.fence)

    def value(self, value: Any, kind: str, step_id: str) -> Any:
        """Return a value as it is read back from JSON. Raise InvalidValue or TooLarge if it cannot be recorded."""
        return self.exact(value, kind, step_id).value

    def exact(self, value: Any, kind: str, step_id: str) -> Exact:
        """Return a value as JSON and as it is read back; else like `value`."""
        name = f"{kind} of {self._workflow}/{step_id.partition('#')[0]}"
        most = self._workflows.output_bytes_max if kind == "output" else STEP_VALUE_BYTES_MAX
        return self.values.exact(value, f"{kind} of step {step_id!r}", bytes_max=most, name=name)
