"""Executing a run: approvals and sleeps, through which a run is nobody's and keeps no slot."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.errors import Fenced
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen, mortal
from .samples import definition

pytestmark = pytest.mark.anyio

YES = {"approved": True, "by": "bob", "comment": "fine"}


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


# ── Approvals ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_approval_is_given_by_another_bot(programs: Programs) -> None:
    await programs.workflows.save_definition(definition("w", concurrency=1))
    seen, answers = Seen(), list[object]()

    async def execute() -> None:
        async with programs.open() as run:
            await run.step("before", seen.double, 1)
            answers.append(await run.approval("publish", {"title": "x"}))
            assert await programs.status() == RunStatus.RUNNING
            await run.step("after", seen.double, 2)
            assert run.fence == 2

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            row = await programs.until_waiting("publish")
            assert (row.step_name, row.input) == ("publish", {"title": "x"})
            async with programs.open("another"):
                pass  # the slot is free meanwhile
            programs.clock.advance(1000)
            assert await programs.place.recover_runs() == []
            await programs.place.others.update_step_status(row.id, StepStatus.COMPLETED, YES)
    assert answers == [YES]
    assert seen.calls == {1: 1, 2: 1}
    assert await programs.status() == RunStatus.COMPLETED


@pytest.mark.parametrize("how", ["failed", "not approved"])
async def test_an_approval_is_refused(programs: Programs, workflow: WorkflowDefinition, how: str) -> None:
    async def execute() -> None:
        for _ in range(2):  # the second time from what is recorded
            async with programs.open() as run:
                with pytest.raises(bus.Rejected, match="too dear") as caught:
                    await run.approval("buy", {"price": 9})
                assert caught.value.reason == "too dear"

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            row = await programs.until_waiting("buy")
            if how == "failed":
                await programs.place.others.update_step_status(row.id, StepStatus.FAILED, error="too dear")
            else:
                answer = {"approved": False, "by": "bob", "comment": "too dear"}
                await programs.place.others.update_step_status(row.id, StepStatus.COMPLETED, answer)


async def test_a_program_that_is_started_again_comes_back_to_the_same_question(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def execute() -> None:
        async with programs.open() as run:
            assert await run.approval("publish", {"title": "x"}) == YES

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            first = await programs.until_waiting("publish")
            tasks.cancel_scope.cancel()
        assert await programs.status() == RunStatus.PAUSED
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            tasks.start_soon(execute)  # and once more, side by side
            await programs.place.others.update_step_status(first.id, StepStatus.COMPLETED, YES)
    assert [row.id for row in await programs.rows()] == [first.id]
    assert await programs.status() == RunStatus.COMPLETED


async def test_another_question_is_not_answered_by_an_old_answer(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                async with programs.open() as run:
                    await run.approval("pay", {"amount": 1})

            tasks.start_soon(ask)
            row = await programs.until_waiting("pay")
            tasks.cancel_scope.cancel()
        await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, YES)
        async with programs.open() as run:
            with pytest.raises(bus.StepChanged, match="amount"):
                await run.approval("pay", {"amount": 1000})


async def test_a_run_that_is_cancelled_while_it_waits_ends(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(bus.RunCancelled):
                    async with programs.open() as run:
                        await run.approval("pay")

            tasks.start_soon(ask)
            await programs.until_waiting("pay")
            await programs.workflows.update_run_status("r", RunStatus.CANCELLED)
    assert await programs.status() == RunStatus.CANCELLED


class Late:
    """Workflows where a renewal is on its way until the run was given back."""

    def __init__(self, workflows: Any) -> None:
        self._workflows = workflows
        self.sent = anyio.Event()
        self.released = anyio.Event()
        self.refused = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflows, name)

    async def renew_run(self, *args: Any) -> Any:
        self.sent.set()
        await self.released.wait()
        try:
            return await self._workflows.renew_run(*args)
        except Fenced:
            self.refused.set()
            raise

    async def release_run(self, *args: Any) -> Any:
        released = await self._workflows.release_run(*args)
        self.released.set()
        return released


async def test_a_renewal_that_comes_after_the_run_was_given_back_loses_nothing(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    late = Late(programs.workflows)

    async def execute() -> None:
        async with programs.open(through=late, lease_seconds=0.05) as run:
            await late.sent.wait()
            assert await run.approval("publish") == YES

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            row = await programs.until_waiting("publish")
            await late.refused.wait()
            await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, YES)
    assert await programs.status() == RunStatus.COMPLETED


async def test_steps_beside_an_approval_keep_the_run(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen, finish = Seen(), anyio.Event()

    async def work() -> None:
        seen.note("works")
        await finish.wait()

    async def execute() -> None:
        async with programs.open() as run, anyio.create_task_group() as tasks:
            tasks.start_soon(run.step, "work", work)
            await seen.wait_for("works")
            tasks.start_soon(run.approval, "publish")

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until(lambda: programs.workflows.list_waiting_approvals("r"))
            waiting = await programs.workflows.list_waiting_approvals("r")
            assert await programs.status() == RunStatus.RUNNING
            finish.set()
            await programs.until_status(RunStatus.PAUSED)  # now that nothing is at work
            await programs.workflows.update_step_status(waiting[0].id, StepStatus.COMPLETED, YES)
    assert await programs.status() == RunStatus.COMPLETED


async def test_who_went_on_with_a_run_that_waited_keeps_it(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen, lost = Seen(), anyio.Event()

    async def execute() -> None:
        with pytest.raises(bus.RunLost):
            await oversleep()

    async def oversleep() -> None:
        async with programs.open() as run:
            with pytest.raises(bus.RunLost):
                await run.sleep(100)
            lost.set()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until_status(RunStatus.PAUSED)
            await programs.leave_undone(lambda run: run.step("s", seen.double, 1))
            programs.clock.advance(101)
            await lost.wait()
    assert await programs.status() == RunStatus.PENDING


# ── Sleeping ─────────────────────────────────────────────────────────────────────────────────────────────


async def nap(run: Run, seen: Seen) -> None:
    await run.step("before", seen.double, 1)
    await run.sleep("nap", 1000)
    await run.step("after", seen.double, 2)


async def test_a_sleep_goes_on_after_a_restart(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def execute(through: object) -> None:
        async with programs.open(through=through) as run:
            await nap(run, seen)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            dying = mortal(programs.workflows)
            tasks.start_soon(execute, dying)
            await programs.until_status(RunStatus.PAUSED)
            dying.die()
            tasks.cancel_scope.cancel()
        await programs.lapse(900)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute, None)
            await anyio.wait_all_tasks_blocked()
            assert seen.calls == {1: 1}
            programs.clock.advance(101)
    assert seen.calls == {1: 1, 2: 1}
    [row] = await programs.rows("nap")
    assert (row.status, row.input["seconds"]) == (StepStatus.COMPLETED, 1000)
    programs.clock.advance(1)
    async with programs.open() as run:
        await nap(run, seen)


async def test_a_short_sleep_keeps_the_run(programs: Programs, workflow: WorkflowDefinition) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def execute() -> None:
                async with programs.open() as run:
                    await run.sleep(10)
                    assert run.fence == 1

            tasks.start_soon(execute)
            await programs.until(lambda: programs.rows("sleep"))
            assert await programs.status() == RunStatus.RUNNING
            programs.clock.advance(11)


async def test_a_sleep_says_how_it_is_called(programs: Programs, workflow: WorkflowDefinition) -> None:
    async with programs.open() as run:
        for wrong in (("nap",), (-1,), (float("inf"),), ("nap", "10")):
            with pytest.raises(TypeError, match=r"run\.sleep\(seconds\)"):
                await run.sleep(*wrong)
