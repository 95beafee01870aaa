"""Programs that execute runs, which a test may end anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import anyio

from bus.errors import BusError, ClosedError, WorkerUnavailable
from bus.model.records import RunStatus, WorkflowStepLog
from bus.model.repository import WorkflowRepository
from bus.runs.opening import open_run
from bus.runs.run import Run
from bus.runs.starting import Executor, Start
from bus.runs.timing import Timing
from bus.runs.values import Values

from .conftest import Clock, Place
from .samples import ANN, BOB

__all__ = ["Mortal", "Programs", "Seen", "mortal"]

BOUND_SECONDS = 30
_GLANCE_SECONDS = 0.005


class Seen:
    """How often each function was carried out; a test waits for it."""

    def __init__(self) -> None:
        self.calls: Counter[Any] = Counter()
        self._changed = anyio.Event()

    def note(self, value: Any) -> None:
        self.calls[value] += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_for(self, value: Any, times: int = 1) -> None:
        with anyio.fail_after(BOUND_SECONDS):
            while self.calls[value] < times:
                await self._changed.wait()

    async def double(self, number: int) -> int:
        """A function of a step."""
        self.note(number)
        return number * 2


class Mortal:
    """Workflows as a process reaches them that dies at its nth call, before or after that is carried out.

    From then on it can say nothing more: every call raises what a closed bot's raises.
    """

    def __init__(self, workflows: WorkflowRepository, dies_at: int | None = None, *, after: bool = False) -> None:
        self._workflows = workflows
        self._dies_at = dies_at
        self._after = after
        self.calls = 0
        self.dead = False

    def die(self) -> None:
        self.dead = True

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._workflows, name)
        if not callable(method):
            return method

        async def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            last = self.calls == self._dies_at
            if self.dead or (last and not self._after):
                self.dead = True
                raise ClosedError("the process is dead")
            result = None
            try:
                result = await method(*args, **options)
            except BusError:  # an answer, too
                if not last:
                    raise
            if last or self.dead:
                self.dead = True
                raise ClosedError("the process is dead")
            return result

        return call


def mortal(workflows: WorkflowRepository, dies_at: int | None = None, *, after: bool = False) -> Any:
    return Mortal(workflows, dies_at, after=after)


class Programs:
    """Two bots that execute runs of what is kept in a place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.workflows = place.workflows
        self.clock: Clock = place.clock
        self.values = Values()

    def open(
        self,
        id: str = "r",
        workflow: str = "w",
        *,
        through: Any = None,
        lease_seconds: float = 15,
        timing: Timing | None = None,
        timeout: float | None = BOUND_SECONDS,
        **start: Any,
    ) -> AbstractAsyncContextManager[Run]:
        """Open a run as ANN."""
        workflows = cast("WorkflowRepository", through or self.workflows)
        executor = Executor(workflows, ANN, lease_seconds, timing or self.timing(), values=self.values)
        return self._open(executor, id, workflow, timeout, start)

    def open_as_other(
        self, id: str = "r", workflow: str = "w", *, timeout: float | None = BOUND_SECONDS, **start: Any
    ) -> AbstractAsyncContextManager[Run]:
        """Open a run as BOB."""
        executor = Executor(self.place.others, BOB, 15, self.timing())
        return self._open(executor, id, workflow, timeout, start)

    @asynccontextmanager
    async def _open(
        self, executor: Executor, id: str, workflow: str, timeout: float | None, start: dict[str, Any]
    ) -> AsyncIterator[Run]:
        async with open_run(executor, workflow, Start(id=id, **start), timeout=timeout) as run:
            yield run

    def timing(self) -> Timing:
        return Timing(clock=self.clock, poll_seconds=0.005, poll_seconds_max=0.02, wait=self._wait)

    async def _wait(self, event: anyio.Event, seconds: float) -> None:
        """Wait until the clock was moved so far, or for an event."""
        wake_up = self.clock.now + timedelta(seconds=seconds)

        async def is_over() -> bool:
            return event.is_set() or self.clock.now >= wake_up

        await self.until(is_over)

    async def status(self, id: str = "r") -> RunStatus:
        run = await self.workflows.get_run(id)
        assert run is not None
        return run.status

    async def rows(self, step_id: str | None = None, id: str = "r") -> list[WorkflowStepLog]:
        return [row for row in await self.workflows.list_step_logs(id) if step_id in (None, row.step_id)]

    async def leave_undone(self, body: Callable[[Run], Awaitable[Any]], **start: Any) -> None:
        """Open a run, do something with it, and lose the worker: the run is given back and can go on."""
        try:
            async with self.open(**start) as run:
                await body(run)
                raise WorkerUnavailable("no answer")
        except WorkerUnavailable:
            return

    async def lapse(self, seconds: float, id: str = "r") -> None:
        """Let leases run out, once every call of a program that died was carried out: one may renew its lease."""
        await self.workflows.leave_queue(id)  # a write, which follows those that were sent before
        self.clock.advance(seconds)

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> None:
        """Wait until something is so."""
        with anyio.fail_after(BOUND_SECONDS):
            while True:
                if await condition():
                    return
                await anyio.sleep(_GLANCE_SECONDS)

    async def until_status(self, status: RunStatus, id: str = "r") -> None:
        """Wait until a run has a status."""

        async def has_status() -> bool:
            run = await self.workflows.get_run(id)
            return run is not None and run.status == status

        await self.until(has_status)

    async def until_waiting(self, step_id: str, id: str = "r") -> WorkflowStepLog:
        """Wait until a run waits for an approval and is given back."""
        with anyio.fail_after(BOUND_SECONDS):
            while True:
                for row in await self.workflows.list_waiting_approvals(id):
                    if row.step_id == step_id:
                        await self.until_status(RunStatus.PAUSED, id)
                        return row
                await anyio.sleep(_GLANCE_SECONDS)
