"""Executing a run: steps of which only the end is recorded, `announce=False`."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.errors import ClosedError
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.replay import Retry
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Mortal, Programs, Seen, mortal
from .samples import BOB

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def quiet(run: Run, name: str, function: Any, *args: Any, **options: Any) -> Any:
    return await run.step(name, function, *args, announce=False, **options)


async def test_one_write_records_all_of_it(programs: Programs, workflow: WorkflowDefinition) -> None:
    counted, seen = mortal(programs.workflows), Seen()

    async def look(number: int) -> int:
        assert await programs.rows("s") == []
        return await seen.double(number)

    async with programs.open(through=counted) as run:
        before = counted.calls
        assert await quiet(run, "s", look, 4) == 8
        assert counted.calls == before + 1
    [row] = await programs.rows("s")
    assert (row.status, row.attempt, row.input, row.output) == (StepStatus.COMPLETED, 1, [4], 8)
    assert row.started_at is not None
    assert row.completed_at is not None
    async with programs.open() as run:
        assert await run.step("s", look, 4) == 8
    assert seen.calls == {4: 1}


async def test_attempts_that_failed_are_counted(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def at_last() -> int:
        seen.note("call")
        if seen.calls["call"] < 3:
            raise LookupError("no page")
        return 7

    async with programs.open() as run:
        assert await quiet(run, "s", at_last, retry=Retry(max_attempts=3, delay=0)) == 7
    assert [(row.attempt, row.status, row.error) for row in await programs.rows("s")] == [
        (1, StepStatus.FAILED, "LookupError: no page"),
        (2, StepStatus.FAILED, "LookupError: no page"),
        (3, StepStatus.COMPLETED, None),
    ]


async def test_a_cancelled_attempt_leaves_no_trace(programs: Programs, workflow: WorkflowDefinition) -> None:
    reached, seen = anyio.Event(), Seen()

    async def hang() -> None:
        reached.set()
        await anyio.sleep_forever()

    async def execute() -> None:
        async with programs.open() as run:
            await quiet(run, "s", hang, input=1)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await reached.wait()
            tasks.cancel_scope.cancel()
    assert await programs.status() == RunStatus.PENDING
    assert await programs.rows() == []
    async with programs.open() as run:
        assert await quiet(run, "s", seen.double, 1, input=1) == 2


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_it_goes_on_from_wherever_its_process_died(
    programs: Programs, workflow: WorkflowDefinition, after: bool
) -> None:
    died = 0
    for dies_at in range(1, 100):
        id, seen = f"r{dies_at}", Seen()
        dying = mortal(programs.workflows, dies_at, after=after)
        try:
            async with programs.open(id, through=dying) as run:
                for number in range(3):
                    await quiet(run, "s", seen.double, number)
        except ClosedError:
            died += 1
        if not dying.dead:
            break
        await programs.lapse(16, id)
        async with programs.open(id) as run:
            assert [await quiet(run, "s", seen.double, number) for number in range(3)] == [0, 2, 4]
        rows = await programs.rows(id=id)
        assert [(row.step_id, row.status) for row in rows] == [
            (step_id, StepStatus.COMPLETED) for step_id in ("s", "s#2", "s#3")
        ]
        assert seen.calls.total() <= 4, "at most the step at work was carried out again"
    assert died >= 5


async def test_who_lost_the_run_meanwhile_records_nothing(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def steal() -> int:
        programs.clock.advance(16)
        async with programs.open_as_other() as other:
            await other.step("mine", Seen().double, 1)
        return 1

    with pytest.raises(bus.RunLost):
        async with programs.open() as run:
            await quiet(run, "s", steal)
    assert [row.step_id for row in await programs.rows()] == ["mine"]


async def test_a_record_whose_answer_did_not_come_is_known_as_ones_own(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    """The run is given back, another bot takes it and does nothing: what is recorded is no work of that bot."""
    recorded = anyio.Event()

    class Slow(Mortal):
        async def create_step_log(self, *args: Any, **options: Any) -> None:
            await self._workflows.create_step_log(*args, **options)
            if not recorded.is_set():
                recorded.set()
                await anyio.sleep_forever()

    slow = Slow(programs.workflows)

    async def ask(run: Run) -> None:
        assert await run.approval("go on") == {"approved": True}

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open(through=slow) as run:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(quiet, run, "s", Seen().double, 1)
                await recorded.wait()
                tasks.cancel_scope.cancel()
            run._workflows = programs.workflows
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, run)
                row = await programs.until_waiting("go on")
                claim = await programs.place.others.claim_run("r", BOB)
                await programs.place.others.release_run("r", claim.fence)
                await programs.place.others.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
    assert await programs.status() == RunStatus.COMPLETED
