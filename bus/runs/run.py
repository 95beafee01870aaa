"""A run of a workflow, as seen by the program that executes it: steps, approvals, sleeps, and the context.

    async with bot.workflows.run("digest", id=message.id) as run:
        page = await run.step("fetch", fetch, url)
        await run.approval("publish?", {"title": page["title"]})

Owns when a step is carried out and recorded; `waits` owns approvals and sleeps. `recorder` writes records, `replay`
decides what they mean on the next execution, `holding` holds the run, and `opening` opens and ends it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack, cast, overload

import anyio
import anyio.lowlevel
import msgspec

from ..client.message import Message
from ..errors import InvalidValue, RunCancelled, RunLost, StepChanged, StepFailed, TooLarge
from ..model.records import StepStatus, WorkflowStepLog, timestamp
from .calling import call_function
from .children import Children
from .current import in_run
from .execution import check_timeout
from .handle import RunHandle
from .holding import no_fault
from .replay import (
    GIVEN_BACK,
    STEP,
    UNRECORDED,
    Cancelled,
    Changed,
    GiveUp,
    Left,
    OnChanged,
    Recorded,
    Retry,
    Unrecorded,
    Wanted,
    changed_text,
    check_name,
    decide,
    error_text,
)
from .transaction import RunCommit
from .values import ReadAs

__all__ = ["Run", "StepOptions"]

T = TypeVar("T")

_ONCE = Retry(max_attempts=1)


class StepOptions(TypedDict, total=False):
    """The options of a step, beside its type."""

    input: Any
    """What is recorded as its input, instead of the arguments."""
    retry: Retry | None
    """How often to try it."""
    on_changed: OnChanged
    """What to do if another input is recorded."""
    announce: bool
    """Whether to record that it begins."""
    timeout: float | None
    """The seconds after which an attempt has failed."""
    kwargs: Mapping[str, Any] | None
    """Arguments of the function by name."""


class Run(Children):
    """One execution of a workflow, held by this program: `async with bot.workflows.run("digest") as run:`.

    When a call returns, what it recorded is on the worker's disk. Every call that writes raises RunLost if another
    program has claimed the run, and RunCancelled if a person cancelled it.
    """

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        returns: type[T],
        **options: Unpack[StepOptions],
    ) -> Coroutine[Any, Any, T]: ...

    @overload
    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        returns: Any = msgspec.UNSET,
        **options: Unpack[StepOptions],
    ) -> Coroutine[Any, Any, Any]: ...

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
        returns: Any = msgspec.UNSET,
    ) -> Coroutine[Any, Any, Any]:
        """Call a function, async or not, and record its output; return the recorded output of a completed step.

        A function that is not async is called in a thread, with the caller's context variables: at most 40 at once
        (`bus.step_threads`). If the step is cancelled, it is abandoned, and what it returns is ignored.

        The output is returned as it is read back from JSON, even the first time: as plain JSON, or with `returns`
        as a value of that type, such as a dataclass, a Struct, a pydantic model, or a list of these. Raises
        TypeError for a type that cannot be read back, and InvalidValue for an output of another type, which stays
        recorded.

        `input` is recorded; by default it is the args, and with `kwargs` for the function an object of both. If the
        recorded output belongs to another input, this raises StepChanged, unless `on_changed` is "reuse" (return it
        anyway) or "again" (carry the step out again). If the function raises, it is retried according to `retry`
        (default: the definition's for the step with this id, else none), and StepFailed is raised at last. An error
        that is nobody's fault (WorkerUnavailable, LimitReached and the like) is raised as it is after the last
        attempt, and the step is retried when the run is opened again.

        Using the same name again makes another step (`fetch`, `fetch#2`), in the order of the calls, whenever they
        are awaited. A name belongs to the task that used it first: RuntimeError in another one (see `branch`). An
        attempt during which the process ends is retried, so the function may be carried out more than once. Raises
        InvalidValue or TooLarge for an input or output that cannot be recorded.

        The beginning of the step is recorded, too. It is on disk before the function is called if the run was
        opened again, or if the worker has not confirmed for a second that this program holds the run; otherwise it
        is on its way. With `announce=False` only the end is recorded, which takes less processor time. Then nobody
        sees the step while it runs, another program may already hold the run, and an attempt that ends the process
        is not counted.

        An attempt that takes longer than `timeout` seconds is cancelled and fails, which is recorded; another one
        may follow. A step that a cancel scope of yours ends is recorded as left when the program goes on: when the
        run is opened again, the step waits until it is cancelled again.
        """
        reading = None if returns is msgspec.UNSET else self._recorder.values.reading(returns)
        step_id = self._take_name(name)
        asked = self._input_of(step_id, args, kwargs, input)
        call = _StepCall(
            name=name,
            step_id=step_id,
            function=function,
            args=args,
            kwargs=dict(kwargs or {}),
            wanted=Wanted(asked, retry or self._retry(name), on_changed),
            announce=announce,
            timeout=check_timeout(timeout),
            reading=reading,
        )
        return self._step(call)

    async def _step(self, call: _StepCall) -> Any:
        step_id, wanted = call.step_id, call.wanted
        self._recorder.recorded(step_id, STEP)
        cause: Exception | None = None
        chance = random.random()
        while True:
            rows = self._recorder.attempts(step_id)
            decision = decide(rows, wanted, now=self._hold.timing.clock(), chance=chance)
            if isinstance(decision, Recorded):
                await anyio.lowlevel.checkpoint()
                return call.read(decision.output)
            if isinstance(decision, Changed):
                raise StepChanged(self.id, step_id, changed_text(decision.recorded, wanted.input))
            if isinstance(decision, Left):
                await self._left_again(step_id)
            if isinstance(decision, Cancelled):
                self._hold.cancelling.tell()
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
                with self._leaving(row):
                    asked_wait = None if cause is None else wanted.retry.wait_after(cause)
                    wait_seconds = decision.wait_seconds if asked_wait is None else asked_wait
                    if wait_seconds > 0:
                        await self._wait_until(self._later(wait_seconds))
                        row = msgspec.structs.replace(row, started_at=timestamp(self._later(0)))
                    return call.read(await self._attempt(row, call))
            except _Failure as failure:
                cause = cast("Exception", failure.__cause__)
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
                    await self._recorder.begin(row)
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
                output = self._recorder.exact(result, "output", row.step_id)
                await self._recorder.end(row, StepStatus.COMPLETED, output=output)
            except (InvalidValue, TooLarge) as error:
                await self._recorder.end(row, StepStatus.FAILED, error=UNRECORDED + error_text(error))
                raise
            return output.value

    async def _called(self, call: _StepCall) -> Any:
        cancelling = self._hold.cancelling
        try:
            with self._hold.timing.limit(call.timeout) as scope, in_run(None):
                cancelling.begin(scope)
                try:
                    return await call_function(call.function, call.args, call.kwargs)
                finally:
                    cancelling.end(scope)
            assert scope.cancelled_caught
            cancelling.check(scope)
            raise TimeoutError(f"not done within {call.timeout:g} s")
        except Exception as error:
            if isinstance(error, RunLost | RunCancelled) and error.run_id == self.id:
                raise
            raise _Failure from error

    def _input_of(self, step_id: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, input: Any) -> Any:
        if input is not msgspec.UNSET:
            return self._recorder.value(input, "input", step_id)
        whole: Any = {"args": list(args), "kwargs": kwargs} if kwargs else list(args) or None
        try:
            return self._recorder.value(whole, "input", step_id)
        except InvalidValue as error:
            raise InvalidValue(error.what, f"{error.reason}; pass what it depends on as input=") from None

    def _retry(self, name: str) -> Retry:
        for step in () if self._definition is None else self._definition.steps:
            if step.id == name and step.retry is not None:
                return Retry(max_attempts=step.retry.max_attempts)
        return _ONCE

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

    async def emit(self, value: Any) -> None:
        """Publish an event that says how far this run is: any JSON value of at most 16 KiB.

        It is an event, not a record: nothing is kept if nobody is subscribed to `posthouse.runs`, and when the run
        is opened again, the program emits it again. Raises InvalidValue or TooLarge.
        """
        self._hold.home.check()
        if not self.completed:
            await self._hold.guard(self._workflows.emit_run(self.id, value, fence=self.fence))

    async def continue_as_new(self, input: Any = None, *, ack: Message | None = None) -> RunHandle:
        """Complete this run, and start its successor: a run of the same workflow with an empty history.

        For a run that would go on for ever: its history does not grow, and a new version of the workflow's
        definition applies. Both happen in one transaction, with the ack of a message if there is one to settle.
        The successor has the same concurrency key, an id made of this run's (`order~2`), and the signals that this
        run did not take. A program has to open it. Whoever waits for this run's result, signals or cancels it with
        a handle is led to the successor.

        Returns a handle of the successor. Leave the block then. Raises RuntimeError while other steps are running.
        """
        async with self.commit("continue as new", input=input) as tx:
            handle = tx.continue_as_new(input)
            if ack is not None:
                tx.ack(ack)
        return handle

    # ── Names ────────────────────────────────────────────────────────────────────────────────────────────

    def branch(self, name: str) -> Run:
        """Return the run with a prefix for the names of its steps: `fetch` is recorded as `name/fetch`.

        Concurrent tasks of one run need names of their own for their steps. Give each of them a branch, with a name
        that is the same each time the program runs.
        """
        check_name(name)
        return Run(self._recorder, self._run, self._definition, prefix=f"{self._prefix}{name}/")


class _StepCall(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of `Run.step` is to do; without a `reading`, the output is plain JSON."""

    name: str
    step_id: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    wanted: Wanted
    announce: bool
    timeout: float | None
    reading: ReadAs | None

    def read(self, output: Any) -> Any:
        """Return a recorded output as the caller wants it."""
        return output if self.reading is None else self.reading.read(output, f"output of step {self.step_id!r}")


class _Failure(Exception):
    """A step's function raised the error that is the cause of this one, and is to be recorded."""
