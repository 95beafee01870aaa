"""What a run waits for: a person's answer, a signal, and a time.

Owns when a wait is over, and that its end is a record. While it waits, the run is nobody's (`holding`).
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from ..client.lending import waiting_for_reply
from ..errors import ApprovalTimedOut, InvalidTransition, Rejected, StepChanged, WaitTimedOut
from ..model.records import Signal, StepStatus, WorkflowStepLog, parse_timestamp, timestamp
from ..model.values import same_json
from .execution import Execution, check_timeout
from .holding import AWAY
from .replay import (
    APPROVAL,
    SIGNAL,
    STEP,
    TIMED_OUT,
    WAIT_SECONDS_MAX,
    changed_text,
    deadline_of,
    is_late,
    wait_key,
)

__all__ = ["Waits"]

_STEP_ENDS = (StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED)


class Waits(Execution):
    """The calls of a run that wait."""

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
        step_id = self._take_name(name)
        asked = self._recorder.value(prompt, "prompt", step_id)
        return self._approval(name, step_id, asked, check_timeout(timeout))

    async def _approval(self, name: str, step_id: str, asked: Any, timeout: float | None) -> Any:
        row = self._recorder.recorded(step_id, APPROVAL)
        if row is not None and not same_json(row.input, asked):
            raise StepChanged(self.id, step_id, changed_text(row.input, asked))
        if row is None or row.status not in _STEP_ENDS:
            self._recorder.refuse_news(step_id)
            new = row is None
            key = wait_key(APPROVAL, None if timeout is None else self._later(timeout))
            row = row or self._recorder.row(
                step_id, name, status=StepStatus.WAITING_APPROVAL, input=asked, idempotency_key=key
            )
            with self._leaving(row):
                row = await self._answered(row, new=new)
        await self._leave_again(row)
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
        with self._hold.cancelling.interruptible(), self._hold.timing.expects(deadline_of(row)):
            row = await self._until_answered(row)
        async with self._hold.work():
            if row.status not in _STEP_ENDS:
                try:
                    return await self._recorder.end(row, StepStatus.FAILED, error=TIMED_OUT)
                except InvalidTransition:  # it was answered after the last look
                    row = await self._look_at(row)
        self._recorder.note(row)
        return row

    async def _until_answered(self, row: WorkflowStepLog) -> WorkflowStepLog:
        """Return the record of an approval with its answer, or when its time is over."""
        hold, deadline = self._hold, deadline_of(row)
        polls = hold.timing.polls()
        async with waiting_for_reply():
            while True:
                woken = hold.woken()
                looked = await hold.rest() and await hold.look()
                left = math.inf if deadline is None else hold.timing.left(deadline)
                # A person may take days, during which the worker may be restarted.
                try:
                    row = await self._look_at(row)
                except AWAY:
                    looked = False
                if row.status in _STEP_ENDS or left <= 0:
                    return row
                await polls.pause(woken, seconds_max=left, again=not looked)

    async def _look_at(self, row: WorkflowStepLog) -> WorkflowStepLog:
        if any(row.id == waiting.id for waiting in await self._workflows.list_waiting_approvals(self.id, None)):
            return row
        found = await self._workflows.get_step_log(row.id)
        if found is not None and found.status != StepStatus.WAITING_APPROVAL:
            return found
        run = await self._workflows.get_run(self.id)
        raise self._hold.lose("gone" if run is None else run.status)

    def wait(
        self, *names: str, timeout: float | None = None, name: str | None = None
    ) -> Coroutine[Any, Any, Signal]:
        """Wait for the first signal of one of these names, and return it: `(await run.wait("paid")).payload`.

        A signal that was sent before is taken at once, the oldest first. Each is taken by one wait, which records
        it: after a restart the same wait returns the same signal. If none was sent `timeout` seconds after the wait
        was recorded, WaitTimedOut is raised, and is raised from then on; a signal that comes later is kept for the
        next wait. After a restart, only the rest is waited for.

        Meanwhile the run is paused, unless other steps are running: it occupies no slot, and a handler that waits
        here lends its place to another one. Signals are sent with `RunHandle.signal`, `bot.workflows.send_signal`,
        `tx.signal` or a command. The wait is recorded under `name`, by default the names of its signals.
        """
        if not names:
            raise TypeError('write run.wait("paid"), or run.wait("paid", "refused") for the first of several')
        step_name = name or " or ".join(names)
        return self._wait(step_name, self._take_name(step_name), names, check_timeout(timeout))

    async def _wait(self, name: str, step_id: str, names: Sequence[str], timeout: float | None) -> Signal:
        asked = {"signals": list(names)}
        row = self._recorder.recorded(step_id, SIGNAL)
        if row is not None and not same_json(row.input, asked):
            raise StepChanged(self.id, step_id, changed_text(row.input, asked))
        if row is None or row.status not in _STEP_ENDS:
            self._recorder.refuse_news(step_id)
            key = wait_key(SIGNAL, None if timeout is None else self._later(timeout))
            # Pending, not running: a claim would treat a running step as interrupted.
            row = row or self._recorder.row(
                step_id, name, status=StepStatus.PENDING, input=asked, idempotency_key=key
            )
            with self._leaving(row):
                row = await self._signalled(row, names)
        await self._leave_again(row)
        if row.error == TIMED_OUT:
            raise WaitTimedOut(self.id, step_id)
        return msgspec.convert(row.output, Signal)

    async def _signalled(self, row: WorkflowStepLog, names: Sequence[str]) -> WorkflowStepLog:
        """Return the record of a wait with the signal that it took, or with the end of its time."""
        deadline = deadline_of(row)
        until = None if deadline is None else timestamp(deadline)
        async with self._hold.work():
            row = await self._recorder.take(row, names, until)
        while row.status not in _STEP_ENDS:
            with self._hold.cancelling.interruptible():
                left = await self._until_signal(names, deadline)
            async with self._hold.work():
                row = await self._recorder.take(row, names, until)
                if row.status not in _STEP_ENDS and left <= 0:
                    row = await self._recorder.end(row, StepStatus.FAILED, error=TIMED_OUT)
        return row

    async def _until_signal(self, names: Sequence[str], deadline: datetime | None) -> float:
        """Wait until there is a signal to take, or the time is over; return how much of it is left."""
        hold, timing = self._hold, self._hold.timing
        polls = timing.polls()
        with timing.expects(deadline):
            async with waiting_for_reply():
                while True:
                    woken = hold.woken()
                    looked = await hold.rest() and await hold.look()
                    left = math.inf if deadline is None else timing.left(deadline)
                    waiting: Sequence[Signal] = ()
                    try:
                        waiting = await self._workflows.list_signals(self.id, names, 1)
                    except AWAY:
                        looked = False
                    in_time = [
                        each for each in waiting if deadline is None or parse_timestamp(each.sent_at) <= deadline
                    ]
                    if in_time or left <= 0:
                        return left
                    await polls.pause(woken, seconds_max=left, again=not looked)

    def sleep(self, name_or_seconds: str | float, seconds: float | None = None) -> Coroutine[Any, Any, None]:
        """Sleep for a number of seconds, by this machine's clock; after a restart, only for the rest of them.

        Write `run.sleep(60)`, or with a name `run.sleep("cool down", 60)`. Sleeping for longer than a lease gives
        the run back as paused meanwhile, unless other steps are running: then it occupies no slot, and a handler
        that sleeps lends its place to another one. A clock that is put back makes no sleep longer than it is here.
        Raises StepChanged if another length is recorded.
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
        if (recorded := row.input.get("seconds", duration)) != duration:
            raise StepChanged(self.id, step_id, changed_text(recorded, duration))
        await self._leave_again(row)
        if row.status == StepStatus.PENDING:
            self._recorder.refuse_news(step_id)
            with self._leaving(row):
                # A clock that was put back since the sleep was recorded makes it no longer.
                await self._wait_until(wake_up, duration)
            async with self._hold.work():
                await self._recorder.end(row, StepStatus.COMPLETED)
        await anyio.lowlevel.checkpoint()


def _wake_up(row: WorkflowStepLog, run_id: str) -> datetime:
    try:
        return msgspec.convert(row.input["until"], datetime)
    except (LookupError, TypeError, msgspec.ValidationError):
        raise StepChanged(run_id, row.step_id, "the step recorded under this name is not a sleep") from None
