"""A handle of a run, for a program that does not execute it: what became of it, and its result.

Owns waiting for a run's end. What is reported is what the store says; a wake only lets it be looked at sooner.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, overload

import anyio
import msgspec

from ..client.ids import chosen_id
from ..client.lending import waiting_for_reply
from ..errors import InvalidTransition, NotFound, ResultTimeout, RunEnded, SuccessorDeleted
from ..model.records import RunStatus, Signal, WorkflowRun
from ..model.repository import WorkflowRepository
from .continuing import find_latest
from .holding import AWAY, RUN_ENDS, ended
from .timing import Timing
from .values import Values

__all__ = ["RunHandle"]

T = TypeVar("T")


class RunHandle:
    """A run by its id: `handle = await bot.workflows.start("digest", url)`, or `bot.workflows.handle(id)`.

    If the run continued as a new one (`Run.continue_as_new`), the handle follows it to the latest.
    """

    def __init__(
        self, workflows: WorkflowRepository, run_id: str, timing: Timing, values: Values | None = None
    ) -> None:
        self._workflows = workflows
        self._id = run_id
        self._timing = timing
        self._values = values or Values()

    def __repr__(self) -> str:
        return f"<RunHandle {self._id!r}>"

    @property
    def id(self) -> str:
        """The id of the run."""
        return self._id

    async def run(self) -> WorkflowRun:
        """Return the run as it is stored; if it continued, the latest one.

        Raises NotFound if it does not exist, and SuccessorDeleted if the one as which it continued does not.
        """
        found = await self._workflows.get_run(self._id)
        if found is None:
            raise NotFound("run", self._id)
        return await find_latest(self._workflows, found)

    async def status(self) -> RunStatus:
        """Return its status. Raises what `run` does."""
        return (await self.run()).status

    @overload
    async def result(self, *, returns: type[T], timeout: float | None = None) -> T: ...

    @overload
    async def result(self, *, returns: Any = msgspec.UNSET, timeout: float | None = None) -> Any: ...

    async def result(self, *, returns: Any = msgspec.UNSET, timeout: float | None = None) -> Any:
        """Wait until the run has ended, and return its result; None if it was completed without one.

        The result is plain JSON, or with `returns` a value of that type, as of `Run.step`. A handler that waits
        lends its place to another one. A worker that is away is waited for too.

        Raises RunFailed if the run has failed, RunCancelled if it was cancelled, ResultTimeout after `timeout`
        seconds (None: never), InvalidValue for a result of another type, and what `run` does. A run that is paused
        or crashed may go on, and is waited for. Raises TypeError at once for a type that could not be read.
        """
        reading = None if returns is msgspec.UNSET else self._values.reading(returns)
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, 0 or more, or None; not {timeout}")
        until = math.inf if timeout is None else anyio.current_time() + timeout
        id, polls = self._id, self._timing.polls()
        status = "unknown, because the worker is away"
        async with waiting_for_reply():
            while True:
                woken = self._timing.woken(id)
                run = await self._watched(id)
                if run is not None:
                    if run.id != id:
                        id = run.id
                        continue
                    status = run.status
                    if status in RUN_ENDS:
                        break
                if (left := until - anyio.current_time()) <= 0:
                    raise ResultTimeout(self._id, timeout or 0, status)
                await polls.pause(woken, seconds_max=left, again=run is None)
        if run.status != RunStatus.COMPLETED:
            raise ended(run.id, run.status, run.error)
        return run.result if reading is None else reading.read(run.result, f"result of run {run.id!r}")

    async def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> Signal:
        """Send the run a signal, for which it waits with `Run.wait`, now or later; see `send_signal`."""
        signal_id = chosen_id(id)
        while True:
            run = await self.run()
            try:
                return await self._workflows.send_signal(run.id, name, payload, id=signal_id)
            except RunEnded:
                if (await self.run()).id == run.id:
                    raise  # otherwise it has just continued as a new one

    async def _watched(self, id: str) -> WorkflowRun | None:
        """Return a run, and be woken at its next change; the latest if it continued; None if the worker is away."""
        try:
            run = await self._workflows.watch_run(id)
            if run is None:
                raise NotFound("run", id) if id == self._id else SuccessorDeleted(self._id, id)
            return await find_latest(self._workflows, run)
        except AWAY:
            return None

    async def cancel(self, reason: str | None = None, *, grace_seconds: float | None = None) -> WorkflowRun:
        """Cancel the run and its children, and return it; `reason` is kept as its error.

        Its program may clean up first, for `grace_seconds` (None: as the worker is configured; 0: not at all). The
        run is cancelled when `result` raises RunCancelled. Raises InvalidTransition if it has ended in another way,
        and NotFound if it does not exist.
        """
        while True:
            run = await self.run()
            try:
                return await self._workflows.cancel_run(run.id, reason, grace_seconds)
            except InvalidTransition:
                if (await self.run()).id == run.id:
                    raise  # otherwise it has just continued as a new one
