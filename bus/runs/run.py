"""A run of a workflow, as seen by the program that executes it: steps, approvals, sleeps, and the context.

    async with bot.workflows.run("digest", id=message.id) as run:
        page = await run.step("fetch", fetch, url)
        await run.approval("publish?", {"title": page["title"]})

Owns when a step is carried out and recorded. `recorder` writes records, `replay` decides what they mean on the next
execution, `holding` holds the run, and `opening` opens and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import msgspec

from ..client.lending import waiting_for_reply
from ..errors import (
    ApprovalTimedOut,
    InvalidTransition,
    InvalidValue,
    Rejected,
    RunCancelled,
    RunLost,
    StepChanged,
    StepFailed,
    TooLarge,
)
from ..model.records import StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog, timestamp
from .calling import call_function
from .holding import AGAIN_SECONDS, AWAY, no_fault
from .recorder import Recorder
from .replay import (
    APPROVAL,
    GIVEN_BACK,
    LEFT,
    STEP,
    TIMED_OUT,
    UNRECORDED,
    WAIT_SECONDS_MAX,
    Changed,
    GiveUp,
    Left,
    OnChanged,
    Recorded,
    Retry,
    Unrecorded,
    Wanted,
    approval_key,
    changed_text,
    check_name,
    deadline_of,
    decide,
    error_text,
    is_late,
    same_json,
)
from .transaction import RunCommit

__all__ = ["Run"]

_logger = logging.getLogger("posthouse.client")

_ONCE = Retry(max_attempts=1)

_STEP_ENDS = (StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED)


class Run:
    """One execution of a workflow, held by this program: `async with bot.workflows.run("digest") as run:`.

    When a call returns, what it recorded is on the worker's disk. Every call that writes raises RunLost if another
    program has claimed the run, and RunCancelled if a person cancelled it.
    """

    def __init__(
        self, recorder: Recorder, run: WorkflowRun, definition: WorkflowDefinition | None, *, prefix: str = ""
    ) -> None:
        hold = self._hold = recorder.hold
        self._workflows = hold.workflows
        self._run = run
        self._definition = definition
        self._recorder = recorder
        self._prefix = prefix

    def __repr__(self) -> str:
        state = "completed" if self.completed else "held" if self._hold.held else "not held"
        return f"<Run {self.id!r} of {self.workflow!r} {state} fence={self.fence}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self._run.id

    @property
    def context(self) -> dict[str, Any]:
        """The values that the steps share; saved by `save_context`, by each commit, and when the run completes."""
        return self._recorder.context

    @context.setter
    def context(self, context: dict[str, Any]) -> None:
        self._recorder.context = context

    @property
    def completed(self) -> bool:
        """Whether it was completed, before it was opened or by a commit: then only recorded steps are available."""
        return self._recorder.completed

    @property
    def resumed(self) -> bool:
        """Whether steps were recorded before it was opened."""
        return self._recorder.resumed

    @property
    def workflow(self) -> str:
        """The name of its workflow."""
        return self._run.workflow_name

    @property
    def fence(self) -> int:
        """The number of its holds: 1 if it was never held before nor given back."""
        return self._hold.fence

    @property
    def input(self) -> Any:
        """The input with which the run was started."""
        return self.context.get("input") if isinstance(self.context, dict) else None

    @property
    def trigger_payload(self) -> Any:
        """The payload of its trigger."""
        return self._run.trigger_payload

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        input: Any = msgspec.UNSET,
        retry: Retry | None = None,
        on_changed: OnChanged = "raise",
        announce: bool = True,
        timeout: float | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Coroutine[Any, Any, Any]:
        """Call a function, async or not, and record its output; return the recorded output of a completed step.

        A function that is not async is called in a thread, with the caller's context variables: at most 40 at once
        (`bus.step_threads`). If the step is cancelled, it is abandoned, and what it returns is ignored.

        The output is returned as it is read back from JSON, even the first time. `input` is recorded; by default it
        is the args, and with `kwargs` for the function an object of both. If the recorded output belongs to another
        input, this raises StepChanged, unless `on_changed` is "reuse" (return it anyway) or "again" (carry the step
        out again). If the function raises, it is retried according to `retry` (default: the definition's for the
        step with this id, else none), and StepFailed is raised at last. An error that is nobody's fault
        (WorkerUnavailable, LimitReached and the like) is raised as it is after the last attempt, and the step is
        retried when the run is opened again.

        Using the same name again makes another step (`fetch`, `fetch#2`), in the order of the calls, whenever they
        are awaited. A name belongs to the task that used it first: RuntimeError in another one (see `branch`). An
        attempt during which the process ends is retried, so the function may be carried out more than once. Raises
        InvalidValue or TooLarge for an input or output that cannot be recorded.

        Before the function is called, the beginning of the step is recorded, which also checks that this program
        still holds the run. With `announce=False` only the end is recorded, which takes half the time for a short
        step. Then nobody sees the step while it runs, another program may already hold the run, and an attempt that
        ends the process is not counted.

        An attempt that takes longer than `timeout` seconds is cancelled and fails, which is recorded; another one
        may follow. A step that a cancel scope of yours ends is recorded as left when the program goes on: when the
        run is opened again, the step waits until it is cancelled again.
        """
        step_id = self._take_name(name)
        call = _StepCall(name, step_id, function, args, dict(kwargs or {}), announce, _check_timeout(timeout))
        return self._step(call, input, retry or self._retry(name), on_changed)

    async def _step(self, call: _StepCall, input: Any, retry: Retry, on_changed: OnChanged) -> Any:
        step_id = call.step_id
        self._recorder.recorded(step_id, STEP)
        asked = self._input_of(call) if input is msgspec.UNSET else self._recorder.value(input, "input", step_id)
        wanted = Wanted(asked, retry, on_changed)
        cause: Exception | None = None
        chance = random.random()
        while True:
            rows = self._recorder.attempts(step_id)
            decision = decide(rows, wanted, now=self._hold.timing.clock(), chance=chance)
            if isinstance(decision, Recorded):
                await anyio.lowlevel.checkpoint()
                return decision.output
            if isinstance(decision, Changed):
                raise StepChanged(self.id, step_id, changed_text(decision.recorded, wanted.input))
            if isinstance(decision, Left):
                await self._left_again(step_id)
            if isinstance(decision, Unrecorded):
                what = f"output of step {step_id!r}"
                raise InvalidValue(what, f"{decision.reason} (retry the run to carry it out again)")
            if isinstance(decision, GiveUp):
                raise StepFailed(self.id, step_id, decision.attempts, decision.error) from cause
            self._recorder.refuse_news(step_id)
            row = self._recorder.row(
                step_id, call.name, status=StepStatus.RUNNING, attempt=decision.number, input=wanted.input
            )
            try:
                asked_wait = None if cause is None else wanted.retry.wait_after(cause)
                wait_seconds = decision.wait_seconds if asked_wait is None else asked_wait
                if wait_seconds > 0:
                    await self._wait_until(self._later(wait_seconds))
                    row = msgspec.structs.replace(row, started_at=timestamp(self._later(0)))
                return await self._attempt(row, call)
            except _Failure as failure:
                cause = failure.error
            except anyio.get_cancelled_exc_class():
                self._recorder.leave(row)
                raise
            passes = decision.last and no_fault(cause)
            error = GIVEN_BACK if passes else wanted.retry.failure_text(cause)
            async with self._hold.work():
                await self._recorder.end(row, StepStatus.FAILED, error=error)
            if passes:
                raise cause

    async def _attempt(self, row: WorkflowStepLog, call: _StepCall) -> Any:
        async with self._hold.work():
            try:
                if call.announce:
                    await self._recorder.create(row)
                result = await self._called(call)
            except Exception:
                raise
            except BaseException:
                if call.announce:
                    await self._hold.record_at_last(
                        lambda: self._workflows.update_step_status(
                            row.id, StepStatus.FAILED, error=GIVEN_BACK, fence=self.fence
                        )
                    )
                raise
            try:
                output = self._recorder.value(result, "output", row.step_id)
                await self._recorder.end(row, StepStatus.COMPLETED, output=output)
            except (InvalidValue, TooLarge) as error:
                await self._recorder.end(row, StepStatus.FAILED, error=UNRECORDED + error_text(error))
                raise
            return output

    async def _called(self, call: _StepCall) -> Any:
        try:
            with anyio.move_on_after(call.timeout) as scope:
                return await call_function(call.function, call.args, call.kwargs)
            assert scope.cancelled_caught
            raise TimeoutError(f"not done within {call.timeout:g} s")
        except Exception as error:
            if isinstance(error, RunLost | RunCancelled) and error.run_id == self.id:
                raise
            raise _Failure(error) from error

    def _input_of(self, call: _StepCall) -> Any:
        args: Any = list(call.args) or None
        if call.kwargs:
            args = {"args": list(call.args), "kwargs": call.kwargs}
        try:
            return self._recorder.value(args, "input", call.step_id)
        except InvalidValue as error:
            raise InvalidValue(error.what, f"{error.reason}; pass what it depends on as input=") from None

    def _retry(self, name: str) -> Retry:
        for step in () if self._definition is None else self._definition.steps:
            if step.id == name and step.retry is not None:
                return Retry(max_attempts=step.retry.max_attempts)
        return _ONCE

    # ── Approvals and sleeps ─────────────────────────────────────────────────────────────────────────────

    def approval(self, name: str, prompt: Any = None, *, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Ask a person, and wait until they answer. Return their answer, or raise Rejected.

        If nobody has answered `timeout` seconds after the question was recorded, ApprovalTimedOut is raised, and is
        raised from then on: an answer that comes later is refused. After a restart, only the rest is waited for.

        Meanwhile the run is paused, unless other steps are running: it occupies no slot, and a program that opens
        it again comes back to the same question. A handler that waits here lends its place to another one. The
        answer is given by a command, by a message, or with `update_step_status` of the step log that
        `list_waiting_approvals` returns: completed with an output like `{"approved": true, "by": "ann"}`, or
        failed.
        """
        return self._approval(name, self._take_name(name), prompt, _check_timeout(timeout))

    async def _approval(self, name: str, step_id: str, prompt: Any, timeout: float | None) -> Any:
        asked = self._recorder.value(prompt, "prompt", step_id)
        row = self._recorder.recorded(step_id, APPROVAL)
        if row is not None and not same_json(row.input, asked):
            raise StepChanged(self.id, step_id, changed_text(row.input, asked))
        if row is None or row.status not in _STEP_ENDS:
            self._recorder.refuse_news(step_id)
            new = row is None
            key = approval_key(None if timeout is None else self._later(timeout))
            row = row or self._recorder.row(
                step_id, name, status=StepStatus.WAITING_APPROVAL, input=asked, idempotency_key=key
            )
            try:
                row = await self._answered(row, new=new)
            except anyio.get_cancelled_exc_class():
                self._recorder.leave(row)
                raise
        if row.error == LEFT:
            await self._left_again(step_id)
        if row.error == TIMED_OUT or is_late(row):
            raise ApprovalTimedOut(self.id, step_id)
        refused = isinstance(row.output, dict) and row.output.get("approved") is False
        if row.status == StepStatus.FAILED or refused:
            comment = row.output.get("comment") if isinstance(row.output, dict) else None
            raise Rejected(self.id, step_id, row.output, row.error or comment)
        return row.output

    async def _answered(self, row: WorkflowStepLog, *, new: bool) -> WorkflowStepLog:
        """Return the record of an approval with its answer, or with the end of its time; create it if it is new."""
        if new:
            async with self._hold.work():
                await self._recorder.create(row)
        timing, deadline = self._hold.timing, deadline_of(row)
        polls = timing.polls()
        left = math.inf
        async with waiting_for_reply():
            while row.status not in _STEP_ENDS and left > 0:
                woken = self._hold.woken()
                looked = await self._hold.rest()
                left = math.inf if deadline is None else timing.left(deadline)
                # A person may take days, during which the worker may be restarted.
                try:
                    row = await self._look_at(row)
                except AWAY:
                    looked = False
                if row.status not in _STEP_ENDS and left > 0:
                    await polls.pause(woken, seconds_max=left, again=not looked)
        async with self._hold.work():
            if row.status not in _STEP_ENDS:
                try:
                    return await self._recorder.end(row, StepStatus.FAILED, error=TIMED_OUT)
                except InvalidTransition:  # it was answered after the last look
                    row = await self._look_at(row)
        self._recorder.note(row)
        return row

    async def _left_again(self, step_id: str) -> NoReturn:
        """Wait until a call is cancelled that was cancelled before: its program takes the same path."""
        _logger.warning("step %r of run %r was left before, and waits until it is left again", step_id, self.id)
        polls = self._hold.timing.polls()
        async with waiting_for_reply():
            while True:
                woken = self._hold.woken()
                looked = await self._hold.rest()
                self._recorder.refuse_news(step_id)
                looked = await self._hold.look() and looked
                await polls.pause(woken, again=not looked)

    async def _look_at(self, row: WorkflowStepLog) -> WorkflowStepLog:
        if any(row.id == waiting.id for waiting in await self._workflows.list_waiting_approvals(self.id, None)):
            return row
        found = await self._workflows.get_step_log(row.id)
        if found is not None and found.status != StepStatus.WAITING_APPROVAL:
            return found
        run = await self._workflows.get_run(self.id)
        raise self._hold.lose("gone" if run is None else run.status)

    def sleep(self, name_or_seconds: str | float, seconds: float | None = None) -> Coroutine[Any, Any, None]:
        """Sleep for a number of seconds, by this machine's clock; after a restart, only for the rest of them.

        Write `run.sleep(60)`, or with a name `run.sleep("cool down", 60)`. Sleeping for longer than a lease gives
        the run back as paused meanwhile, unless other steps are running: then it occupies no slot, and a handler
        that sleeps lends its place to another one.
        """
        name, duration = ("sleep", name_or_seconds) if seconds is None else (name_or_seconds, seconds)
        number = isinstance(duration, int | float) and 0 <= duration <= WAIT_SECONDS_MAX
        if not isinstance(name, str) or isinstance(duration, str) or not number:
            raise TypeError(
                f"write run.sleep(seconds) or run.sleep(name, seconds), with 0 to {WAIT_SECONDS_MAX} seconds"
            )
        return self._sleep(name, self._take_name(name), duration)

    async def _sleep(self, name: str, step_id: str, duration: float) -> None:
        row = self._recorder.recorded(step_id, STEP)
        if row is None:
            self._recorder.refuse_news(step_id)
            until = {"seconds": duration, "until": timestamp(self._later(duration))}
            # Pending, not running: a claim would treat a running step as interrupted.
            row = self._recorder.row(step_id, name, status=StepStatus.PENDING, input=until)
            async with self._hold.work():
                await self._recorder.create(row)
        wake_up = _wake_up(row, self.id)
        if row.error == LEFT:
            await self._left_again(step_id)
        if row.status == StepStatus.PENDING:
            self._recorder.refuse_news(step_id)
            try:
                await self._wait_until(wake_up)
            except anyio.get_cancelled_exc_class():
                self._recorder.leave(row)
                raise
            async with self._hold.work():
                await self._recorder.end(row, StepStatus.COMPLETED)
        await anyio.lowlevel.checkpoint()

    async def _wait_until(self, until: datetime) -> None:
        hold, timing = self._hold, self._hold.timing
        rests = timing.left(until) > hold.lease_seconds
        # Also by a clock that is never set: a wall clock that is put back makes no wait longer.
        end = anyio.current_time() + timing.left(until)
        async with waiting_for_reply() if rests else contextlib.nullcontext():
            while timing.left(until) > 0 and (left := end - anyio.current_time()) > 0:
                woken, looked = hold.woken(), True
                if rests:
                    looked = await hold.rest() and await hold.look()
                else:
                    hold.check()
                most = timing.poll_seconds_max if looked else AGAIN_SECONDS
                await timing.wait(woken, max(0.0, min(timing.left(until), left, most)))

    # ── Context and commits ──────────────────────────────────────────────────────────────────────────────

    async def save_context(self) -> None:
        """Record the current context; do nothing if the run is completed."""
        self._hold.home.check()
        if self.completed:
            self._recorder.context_value()  # still raises for a context that cannot be recorded
            await anyio.lowlevel.checkpoint()
        else:
            await self._recorder.save_context()

    def commit(self, name: str, *, output: Any = None, input: Any = None) -> RunCommit:
        """Complete a step in one transaction with messages, their acks and the context: `async with … as tx:`.

        Everything called on `tx` in the block is carried out when the block is left, all of it or nothing; nothing
        if the block raises. If the step completed before, `tx.done` is true and nothing is sent again.
        """
        check_name(name)
        return RunCommit(self._recorder, self._prefix + name, input=input, output=output)

    # ── Names ────────────────────────────────────────────────────────────────────────────────────────────

    def branch(self, name: str) -> Run:
        """Return the run with a prefix for the names of its steps: `fetch` is recorded as `name/fetch`.

        Concurrent tasks of one run need names of their own for their steps. Give each of them a branch, with a name
        that is the same each time the program runs.
        """
        check_name(name)
        return Run(self._recorder, self._run, self._definition, prefix=f"{self._prefix}{name}/")

    def _take_name(self, name: str) -> str:
        check_name(name)
        return self._recorder.take_name(self._prefix + name)

    def _later(self, seconds: float) -> datetime:
        return self._hold.timing.clock() + timedelta(seconds=seconds)


class _StepCall(msgspec.Struct, frozen=True):
    """What a call of `Run.step` is to do."""

    name: str
    step_id: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    announce: bool
    timeout: float | None


class _Failure(Exception):
    """A step's function raised an error, which is to be recorded."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _check_timeout(timeout: float | None) -> float | None:
    """Return a timeout. Raise ValueError if it is not a number of seconds above 0."""
    if timeout is not None and not 0 < timeout <= WAIT_SECONDS_MAX:
        raise ValueError(f"timeout must be a number of seconds above 0, or None; not {timeout!r}")
    return timeout


def _wake_up(row: WorkflowStepLog, run_id: str) -> datetime:
    try:
        return msgspec.convert(row.input["until"], datetime)
    except (LookupError, TypeError, msgspec.ValidationError):
        raise StepChanged(run_id, row.step_id, "the step recorded under this name is not a sleep") from None
