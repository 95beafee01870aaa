"""What all parts of a run have in common, as seen by the program that executes it: its data, names, and waiting.

Owns how a call waits without keeping the run: `waits` and `run` say for what. `recorder` writes records, and
`holding` holds the run.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NoReturn, TypeVar

import anyio

from ..client.lending import waiting_for_reply
from ..errors import RunCancelled
from ..model.records import WorkflowDefinition, WorkflowRun, WorkflowStepLog
from .recorder import Recorder
from .replay import CANCELLED, LEFT, WAIT_SECONDS_MAX, check_name

__all__ = ["Execution", "check_timeout"]

T = TypeVar("T")

_logger = logging.getLogger("posthouse.client")


class Execution:
    """One execution of a workflow, which is held by this program: the part of `Run` that its other parts use."""

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
    def attributes(self) -> dict[str, str]:
        """The short texts by which it is found, with which it was started."""
        return self._run.attributes

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
    def result(self) -> Any:
        """The result with which the run is completed, or was: `run.result = page`; None if there is none.

        It is returned to whoever waits for it (`RunHandle.result`), as it is read back from JSON, and has at most
        1 MiB. It is recorded when the run is completed; of a completed run it stays as it is. Setting it raises
        InvalidValue or TooLarge for what cannot be recorded.
        """
        return self._recorder.result

    @result.setter
    def result(self, result: Any) -> None:
        self._recorder.set_result(result)

    def input_as(self, kind: type[T]) -> T:
        """Return the input as a value of a type, like the output of a step with `returns=`.

        Raises TypeError for a type that cannot be read, and InvalidValue if the input is of another one.
        """
        value: T = self._recorder.values.reading(kind).read(self.input, f"input of run {self.id!r}")
        return value

    @property
    def trigger_payload(self) -> Any:
        """The payload of its trigger."""
        return self._run.trigger_payload

    @property
    def cancel_requested(self) -> bool:
        """Whether the run is to be cancelled; its program is told by RunCancelled at its next call, or the current
        one. It may clean up until it leaves the block, or its time is over.
        """
        return self._hold.cancelling.by is not None

    # ── Names and waiting ────────────────────────────────────────────────────────────────────────────────

    def _take_name(self, name: str) -> str:
        check_name(name)
        return self._recorder.take_name(self._prefix + name)

    def _later(self, seconds: float) -> datetime:
        return self._hold.timing.clock() + timedelta(seconds=seconds)

    @contextlib.contextmanager
    def _leaving(self, row: WorkflowStepLog) -> Iterator[None]:
        """Return a context for a call that waits: if it is cancelled there, its record will say so."""
        try:
            yield
        except anyio.get_cancelled_exc_class():
            self._recorder.leave(row)
            raise
        except RunCancelled as error:
            if error.run_id == self.id and self._hold.failure is None:
                self._recorder.leave(row, CANCELLED)
            raise

    async def _leave_again(self, row: WorkflowStepLog) -> None:
        """Let a call end as its record says that it was cancelled: its program takes the same path."""
        if row.error == CANCELLED:
            self._hold.cancelling.tell()
        if row.error == LEFT:
            await self._left_again(row.step_id)

    async def _left_again(self, step_id: str) -> NoReturn:
        """Wait until a call is cancelled that was cancelled before."""
        _logger.warning("step %r of run %r was left before, and waits until it is left again", step_id, self.id)
        polls = self._hold.timing.polls()
        with self._hold.cancelling.interruptible():
            async with waiting_for_reply():
                while True:
                    woken = self._hold.woken()
                    looked = await self._hold.rest()
                    self._recorder.refuse_news(step_id)
                    looked = await self._hold.look() and looked
                    await polls.pause(woken, again=not looked)
        raise AssertionError("it ends only when it is cancelled")

    async def _wait_until(self, until: datetime, seconds_max: float = math.inf) -> None:
        """Wait until a time, but not for longer than `seconds_max`."""
        with self._hold.cancelling.interruptible():
            await self._pass_time(until, seconds_max)

    async def _pass_time(self, until: datetime, seconds_max: float) -> None:
        hold, timing = self._hold, self._hold.timing
        rests = timing.left(until) > hold.lease_seconds
        # Also by a clock that is never set: a wall clock that is put back makes no wait longer.
        end = anyio.current_time() + min(timing.left(until), seconds_max)
        polls = timing.polls()
        with timing.expects(until):
            async with waiting_for_reply() if rests else contextlib.nullcontext():
                while timing.left(until) > 0 and (left := end - anyio.current_time()) > 0:
                    woken, most = hold.woken(), timing.poll_seconds_max
                    if rests:
                        most = polls.seconds(again=not (await hold.rest() and await hold.look()))
                    else:
                        hold.check()
                    await timing.wait(woken, max(0.0, min(timing.left(until), left, most)))


def check_timeout(timeout: float | None) -> float | None:
    """Return a timeout. Raise ValueError if it is not a number of seconds above 0."""
    if timeout is not None and not 0 < timeout <= WAIT_SECONDS_MAX:
        raise ValueError(f"timeout must be a number of seconds above 0, or None; not {timeout!r}")
    return timeout
