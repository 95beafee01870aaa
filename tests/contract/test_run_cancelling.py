"""Executing a run that is to be cancelled: its program is told where it is, and cleans up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import bus
from bus.errors import InvalidTransition
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Mortal, Programs, Seen, mortal
from .samples import run

pytestmark = pytest.mark.anyio

RENEWED_SOON = 0.06
"""A lease, so that its holder soon learns what was asked of it."""


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


class Order:
    """A program that charges, waits for something, and gives the money back if it is cancelled there."""

    def __init__(self, programs: Programs, waits: Callable[[Run], Awaitable[Any]]) -> None:
        self.programs = programs
        self.seen = Seen()
        self.told = list[str]()
        self._waits = waits

    async def charge(self) -> str:
        self.seen.note("charge")
        return "charged"

    async def refund(self, what: str) -> str:
        self.seen.note(f"refund {what}")
        return "refunded"

    async def body(self, order: Run) -> None:
        await order.step("charge", self.charge)
        try:
            await self._waits(order)
        except bus.RunCancelled as error:
            self.told.append(error.run_id if order.cancel_requested else "too early")
            await order.step("refund", self.refund, "money")
            await order.step("note", self.refund, "note")
            raise

    async def execute(self, through: Mortal | CancelledBetween | None = None) -> None:
        async with self.programs.open(through=through, lease_seconds=RENEWED_SOON) as order:
            await self.body(order)

    async def cancelled(self) -> None:
        with pytest.raises(bus.RunCancelled):
            await self.execute()

    async def check(self) -> None:
        """Check that the run was cancelled, and what it did was taken back once."""
        found = await self.programs.workflows.get_run("r")
        assert found is not None
        assert (found.status, found.error) == (RunStatus.CANCELLED, "too late")
        assert self.seen.calls == {"charge": 1, "refund money": 1, "refund note": 1}
        rows = await self.programs.rows()
        assert {row.step_id for row in rows if row.status is StepStatus.COMPLETED} == {"charge", "refund", "note"}
        others = {row.error for row in rows if row.status is not StepStatus.COMPLETED}
        assert others <= {"cancelled", "OSError: no"}


async def work(order: Run) -> None:
    await order.step("work", anyio.sleep_forever)


async def work_quietly(order: Run) -> None:
    await order.step("work", anyio.sleep_forever, announce=False)


async def retry(order: Run) -> None:
    async def fail() -> None:
        raise OSError("no")

    await order.step("work", fail, retry=bus.Retry(max_attempts=2, delay=1000))


async def ask(order: Run) -> None:
    await order.approval("sure", "Really?")


async def wait(order: Run) -> None:
    await order.wait("paid")


async def nap(order: Run) -> None:
    await order.sleep("nap", 1000)


async def call(order: Run) -> None:
    await order.call("w", 1, name="child")


WAITS = [work, work_quietly, retry, ask, wait, nap, call]


@pytest.mark.parametrize("waits", WAITS, ids=lambda waits: waits.__name__)
async def test_a_program_is_told_where_it_is_and_cleans_up(
    programs: Programs, workflow: WorkflowDefinition, waits: Callable[[Run], Awaitable[Any]]
) -> None:
    order = Order(programs, waits)
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(order.cancelled)
            await order.seen.wait_for("charge")
            await anyio.sleep(0.02)  # it may be before the wait, or in it: both are told
            await programs.place.others.cancel_run("r", "too late")
            while waits in (nap, retry) and not order.told:
                programs.clock.advance(1)  # who waits for a time looks again; nobody holds the run
                await anyio.sleep(0.02)
    await order.check()
    assert order.told == ["r"]
    with pytest.raises(bus.RunCancelled):
        await order.execute()
    with pytest.raises(InvalidTransition):
        await programs.workflows.retry_run("r")


class CancelledBetween:
    """Workflows of a program that looks at its child right after both were cancelled."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._done = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._programs.workflows, name)

    async def watch_run(self, run_id: str) -> Any:
        if run_id != "r" and not self._done:
            self._done = True
            await self._programs.place.others.cancel_run("r", "too late")
        return await self._programs.workflows.watch_run(run_id)


async def test_a_program_whose_child_was_cancelled_with_it_is_told_of_itself(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    order = Order(programs, call)
    with anyio.fail_after(BOUND_SECONDS), pytest.raises(bus.RunCancelled):
        await order.execute(CancelledBetween(programs))
    await order.check()
    assert order.told == ["r"]


CALLS = 14
"""More than the rest of the run makes."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dies_at", range(1, CALLS + 1))
async def test_a_program_that_dies_cleaning_up_goes_on_with_it(
    programs: Programs, workflow: WorkflowDefinition, dies_at: int, after: bool
) -> None:
    order = Order(programs, wait)
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(order.execute)
            await programs.until_status(RunStatus.PAUSED)
            tasks.cancel_scope.cancel()
        await programs.workflows.cancel_run("r", "too late")
        try:
            await order.execute(mortal(programs.workflows, dies_at, after=after))
        except (bus.ClosedError, bus.RunCancelled):
            await programs.lapse(10)
            with pytest.raises(bus.RunCancelled):
                await order.execute()
    found = await programs.workflows.get_run("r")
    assert found is not None
    assert (found.status, found.error) == (RunStatus.CANCELLED, "too late")
    completed = [row.step_id for row in await programs.rows() if row.status is StepStatus.COMPLETED]
    assert completed == ["charge", "refund", "note"]
    assert order.seen.calls["charge"] == 1


async def test_a_program_that_does_nothing_more_completes(programs: Programs, workflow: WorkflowDefinition) -> None:
    async with programs.open(lease_seconds=RENEWED_SOON) as order:
        order.result = await order.step("work", Seen().double, 1)
        await programs.workflows.cancel_run("r")

        async def is_asked() -> bool:
            return order.cancel_requested

        await programs.until(is_asked)
    assert await programs.status() == RunStatus.COMPLETED


@pytest.mark.parametrize(
    "more",
    [
        lambda order: order.step("more", Seen().double, 1),
        lambda order: order.sleep(1),
        lambda order: order.approval("sure"),
        lambda order: order.start("w", name="child"),
    ],
    ids=["step", "sleep", "approval", "start"],
)
async def test_what_is_new_is_refused_once(
    programs: Programs, workflow: WorkflowDefinition, more: Callable[[Run], Awaitable[Any]]
) -> None:
    seen = Seen()

    async def execute() -> None:
        async with programs.open() as order:
            await order.step("old", seen.double, 1)
            with pytest.raises(bus.RunCancelled):
                await more(order)
            await order.step("undo", seen.double, 2)
            with pytest.raises(bus.RunCancelled):
                async with order.commit("end") as tx:
                    tx.complete()

    async def first(order: Run) -> None:
        await order.step("old", seen.double, 1)

    await programs.leave_undone(first)
    await programs.workflows.cancel_run("r", "too late")
    with anyio.fail_after(BOUND_SECONDS):
        if hasattr(programs.workflows, "commit"):
            with pytest.raises(bus.RunCancelled):
                await execute()
            assert await programs.status() == RunStatus.CANCELLED
            assert seen.calls == {1: 1, 2: 1}


async def test_a_body_that_keeps_the_error_to_itself_does_not_hide_it(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    order = Order(programs, wait)

    async def execute() -> None:
        async with programs.open() as opened:
            try:
                await order.body(opened)
            except bus.RunCancelled:
                opened.result = "never"

    async def cancelled() -> None:
        with pytest.raises(bus.RunCancelled):
            await execute()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.cancel_run("r", "too late")
    await order.check()


async def test_an_error_while_it_is_cleaned_up_is_kept(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def execute() -> None:
        async with programs.open() as order:
            try:
                await order.wait("paid")
            finally:
                raise LookupError("no account")

    async def fails() -> None:
        with pytest.raises(LookupError):
            await execute()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fails)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.cancel_run("r", "too late")
    found = await programs.workflows.get_run("r")
    assert found is not None
    assert found.status == RunStatus.CANCELLED
    assert found.error == "too late; while it was cleaned up: LookupError: no account"


async def test_a_program_that_takes_too_long_is_ended(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def hang() -> None:
        seen.note("hangs")
        await anyio.sleep_forever()

    async def execute() -> None:
        async with programs.open(lease_seconds=RENEWED_SOON) as order:
            try:
                await order.wait("paid")
            except bus.RunCancelled:
                await order.step("undo", hang)

    async def cancelled() -> None:
        with pytest.raises(bus.RunCancelled):
            await execute()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.cancel_run("r", "too late", 10)
            await seen.wait_for("hangs")
            programs.clock.advance(10)
            await programs.place.recover_runs()
    found = await programs.workflows.get_run("r")
    assert found is not None
    assert (found.status, found.error) == (RunStatus.CANCELLED, "too late")
    assert {row.error for row in await programs.rows()} == {"cancelled"}


async def test_a_program_that_stops_while_it_cleans_up_leaves_it_to_the_next(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    order = Order(programs, wait)
    await programs.workflows.create_run(run("r"))

    async def stopped() -> None:
        async with programs.open() as opened:
            await opened.step("charge", order.charge)
            try:
                await opened.wait("paid")
            except bus.RunCancelled:
                order.seen.note("stops")
                await opened.step("refund", anyio.sleep_forever)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stopped)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.cancel_run("r", "too late")
            await order.seen.wait_for("stops")
            await programs.until_status(RunStatus.RUNNING)
            tasks.cancel_scope.cancel()
        found = await programs.workflows.get_run("r")
        assert found is not None
        assert found.status == RunStatus.PENDING
        assert found.cancel_by is not None
        order.seen.calls.pop("stops")
        await order.cancelled()
    assert await programs.status() == RunStatus.CANCELLED
    assert order.seen.calls == {"charge": 1, "refund money": 1, "refund note": 1}


async def test_all_tasks_are_told_where_they_are(programs: Programs, workflow: WorkflowDefinition) -> None:
    told = list[str]()

    async def execute() -> None:
        async with programs.open() as order:

            async def one(name: str) -> None:
                try:
                    await order.wait("paid", name=name)
                except bus.RunCancelled:
                    told.append(name)
                    with anyio.CancelScope(shield=True):
                        await order.step(f"undo {name}", Seen().double, 1)
                    raise

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one, "a")
                tasks.start_soon(one, "b")

    async def cancelled() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await execute()
        assert caught.value.split(bus.RunCancelled)[1] is None

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelled)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.cancel_run("r", "too late")
    assert sorted(told) == ["a", "b"]
    found = await programs.workflows.get_run("r")
    assert found is not None
    assert (found.status, found.error) == (RunStatus.CANCELLED, "too late")
    completed = {row.step_id for row in await programs.rows() if row.status is StepStatus.COMPLETED}
    assert completed == {"undo a", "undo b"}
