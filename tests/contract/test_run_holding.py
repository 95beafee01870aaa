"""Executing a run: who holds it, who waits for it, and what becomes of one that lost it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import anyio
import pytest

import bus
from bus.errors import Fenced, RunHeld
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen, mortal
from .samples import BOB, definition

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


# ── Two executors ────────────────────────────────────────────────────────────────────────────────────────


async def test_two_executors_of_one_run_carry_its_steps_out_once(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen, runs = Seen(), list[Run]()

    async def execute(other: bool) -> None:
        async with (programs.open_as_other if other else programs.open)() as run:
            runs.append(run)
            for number in range(3):
                assert await run.step(f"s{number}", seen.double, number) == number * 2

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute, False)
            tasks.start_soon(execute, True)
    assert seen.calls == {0: 1, 1: 1, 2: 1}
    assert [run.completed for run in runs] == [False, True]


async def test_a_run_is_not_waited_for_longer_than_the_timeout(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async with programs.open():
        with pytest.raises(bus.RunBusy, match="is held by"):
            async with programs.open_as_other(timeout=0.1):
                raise AssertionError("it must not open")


async def test_a_run_whose_holder_died_is_taken_over(programs: Programs, workflow: WorkflowDefinition) -> None:
    dying = mortal(programs.workflows)
    with pytest.raises(bus.ClosedError):
        async with programs.open(through=dying):
            dying.die()
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            opened = anyio.Event()

            async def take_over() -> None:
                async with programs.open_as_other() as run:
                    assert run.fence == 2
                    opened.set()

            tasks.start_soon(take_over)
            await anyio.wait_all_tasks_blocked()
            assert not opened.is_set()
            await programs.lapse(16)
    assert await programs.status() == RunStatus.COMPLETED


async def test_a_lease_is_renewed_while_the_body_works(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def renewed() -> bool:
        lease = await programs.workflows.get_lease("r")
        return lease is not None and lease.expires_at == programs.clock.after(0.3)

    async with programs.open(lease_seconds=0.3):
        with anyio.fail_after(BOUND_SECONDS):
            for _ in range(3):
                programs.clock.advance(0.2)
                await programs.until(renewed)
        with pytest.raises(RunHeld):
            await programs.place.others.claim_run("r", BOB)


async def test_a_program_that_was_stopped_for_longer_than_its_lease_calls_no_function(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    lease_seconds = 0.2
    seen = Seen()

    class Stopped:
        """Workflows as a process reaches them that is stopped while its step's beginning is being recorded."""

        awake = anyio.Event()

        def __getattr__(self, name: str) -> Any:
            return getattr(programs.workflows, name)

        async def renew_run(self, *args: Any, **options: Any) -> Any:
            await self.awake.wait()
            return await programs.workflows.renew_run(*args, **options)

        async def create_step_log(self, *args: Any, **options: Any) -> Any:
            stopped_at = anyio.current_time()
            created = await programs.workflows.create_step_log(*args, **options)
            await programs.lapse(lease_seconds + 1)
            async with programs.open_as_other() as run:
                assert await run.step("s", seen.double, 1) == 2
            await anyio.sleep(max(0.0, stopped_at + lease_seconds + 0.1 - anyio.current_time()))
            self.awake.set()
            return created

    with anyio.fail_after(BOUND_SECONDS), pytest.raises(bus.RunLost):
        async with programs.open(through=Stopped(), lease_seconds=lease_seconds) as run:
            await run.step("s", seen.double, 1)
    assert seen.calls == {1: 1}


class Slow:
    """Workflows whose answers to one method do not come in time, though it was carried out."""

    def __init__(self, workflows: Any, method: str) -> None:
        self._workflows = workflows
        self._method = method
        self.waiting = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._workflows, name)

        async def call(*args: Any, **options: Any) -> Any:
            result = await method(*args, **options)
            if name == self._method and not self.waiting.is_set():
                self.waiting.set()
                await anyio.sleep_forever()
            return result

        return call if name == self._method else method


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("open_run", RunStatus.PENDING),
        ("update_run_status", RunStatus.COMPLETED),
        ("release_run", RunStatus.PAUSED),  # it still waits for its answer
    ],
)
async def test_a_cancellation_that_comes_before_an_answer_leaves_no_hold(
    programs: Programs, workflow: WorkflowDefinition, method: str, status: RunStatus
) -> None:
    slow = Slow(programs.workflows, method)

    async def execute() -> None:
        async with programs.open(through=slow) as run:
            if method == "release_run":
                await run.approval("ask")

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await slow.waiting.wait()
            tasks.cancel_scope.cancel()
    assert await programs.workflows.get_lease("r") is None
    assert await programs.status() == status


async def test_a_run_is_tried_once_without_a_timeout(programs: Programs, workflow: WorkflowDefinition) -> None:
    async with programs.open(timeout=0):
        with pytest.raises(bus.RunBusy):
            async with programs.open_as_other(timeout=0):
                raise AssertionError("it must not open")


# ── Losing a run ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_holder_that_wakes_up_late_writes_nothing(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def oversleep() -> str:
        programs.clock.advance(16)
        async with programs.open_as_other() as other:
            await other.step("s", seen.double, 1, input="x")
        return "too late"

    async def execute() -> None:
        async with programs.open() as run:
            await run.step("s", oversleep, input="x")

    with pytest.raises(bus.RunLost) as caught:
        await execute()
    assert caught.value.status == "completed"
    rows = await programs.rows()
    assert [(row.status, row.output, row.error) for row in rows] == [
        (StepStatus.FAILED, None, "interrupted"),
        (StepStatus.COMPLETED, 2, None),
    ]


async def test_who_catches_the_loss_still_learns_of_it(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def execute() -> None:
        async with programs.open() as run:
            programs.clock.advance(16)
            async with programs.open_as_other():
                with pytest.raises(bus.RunLost):
                    await run.step("s", len, "abc")
                with pytest.raises(bus.RunLost):
                    await run.save_context()

    with pytest.raises(bus.RunLost):
        await execute()
    assert await programs.status() == RunStatus.COMPLETED
    assert await programs.rows() == []


@pytest.mark.parametrize(
    ("status", "error"), [(RunStatus.CANCELLED, bus.RunCancelled), (RunStatus.PAUSED, bus.RunLost)]
)
async def test_a_body_is_cancelled_when_a_person_ends_its_run(
    programs: Programs, workflow: WorkflowDefinition, status: RunStatus, error: type[Exception]
) -> None:
    async def execute() -> None:
        async with programs.open(lease_seconds=0.1):
            await programs.workflows.update_run_status("r", status)
            await anyio.sleep_forever()

    with anyio.fail_after(BOUND_SECONDS), pytest.raises(error):
        await execute()
    assert await programs.status() == status


async def test_a_run_that_was_cancelled_does_not_open(programs: Programs, workflow: WorkflowDefinition) -> None:
    with pytest.raises(bus.RunCancelled):
        async with programs.open():
            await programs.workflows.update_run_status("r", RunStatus.CANCELLED)
    with pytest.raises(bus.RunCancelled):
        async with programs.open():
            raise AssertionError("it must not open")


class Crossing:
    """Workflows where a renewal is refused between a write that ends the run and the answer to that write."""

    def __init__(self, workflows: Any) -> None:
        self._workflows = workflows
        self._refused = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflows, name)

    async def renew_run(self, *args: Any, **options: Any) -> Any:
        try:
            return await self._workflows.renew_run(*args, **options)
        except Fenced:
            self._refused.set()
            raise

    async def update_run_status(self, *args: Any, **options: Any) -> Any:
        moved = await self._workflows.update_run_status(*args, **options)
        await self._refused.wait()
        await anyio.wait_all_tasks_blocked()  # what the refusal leads to has happened
        return moved


@pytest.mark.parametrize("fails", [False, True], ids=["completed", "failed"])
async def test_a_renewal_that_the_end_of_the_run_refuses_is_no_loss(
    programs: Programs, workflow: WorkflowDefinition, fails: bool
) -> None:
    async def execute() -> None:
        async with programs.open(through=Crossing(programs.workflows), lease_seconds=0.05):
            if fails:
                raise bus.FailRun("no page")

    with anyio.fail_after(BOUND_SECONDS), pytest.raises(bus.FailRun) if fails else nullcontext():
        await execute()
    assert await programs.status() == (RunStatus.FAILED if fails else RunStatus.COMPLETED)


# ── Slots ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_runs_with_one_slot_go_one_after_another_in_their_order(programs: Programs) -> None:
    await programs.workflows.save_definition(definition("w", concurrency=1))
    order, seen = list[str](), Seen()
    finish = {id: anyio.Event() for id in "abc"}

    async def execute(id: str) -> None:
        async with programs.open(id, concurrency_key="k"):
            order.append(id)
            seen.note(id)
            await finish[id].wait()

    async def queued(id: str) -> None:
        async def waits() -> bool:
            return any(run.id == id and run.queued_at for run in await programs.workflows.list_all_runs())

        await programs.until(waits)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute, "a")
            await seen.wait_for("a")
            tasks.start_soon(execute, "b")
            await queued("b")
            tasks.start_soon(execute, "c")
            await queued("c")
            async with programs.open("d", concurrency_key="other"):
                pass  # another key has slots of its own
            assert order == ["a"]
            for id in "abc":
                await seen.wait_for(id)
                finish[id].set()
    assert order == ["a", "b", "c"]


async def test_a_run_without_a_slot_says_so_in_time(programs: Programs) -> None:
    await programs.workflows.save_definition(definition("w", concurrency=1))
    async with programs.open("a"):
        with pytest.raises(bus.RunBusy, match="waits for a slot"):
            async with programs.open("b", timeout=0.1):
                raise AssertionError("it must not open")
    assert await programs.status("b") == RunStatus.PENDING
