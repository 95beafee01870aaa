"""Executing a run: which record answers which call, and what is recorded where something cannot be."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.opening import open_run
from bus.runs.replay import APPROVAL, LEFT
from bus.runs.run import Run
from bus.runs.starting import Executor, Start
from bus.runs.timing import Timing

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen
from .samples import ANN, BOB

pytestmark = pytest.mark.anyio

YES = {"approved": True, "by": "bob"}


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


# ── A record answers its own kind of call ────────────────────────────────────────────────────────────────


async def test_a_step_gives_nobodys_approval(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()
    await programs.leave_undone(lambda run: run.step("publish", seen.double, 1, input=None))
    async with programs.open() as run:
        with pytest.raises(bus.StepChanged, match="'step', not 'approval'"):
            await run.approval("publish")


async def test_an_approval_is_no_step(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def approved() -> None:
        async with programs.open() as run:
            await run.approval("publish")

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(approved)
            row = await programs.until_waiting("publish")
            assert row.idempotency_key == APPROVAL
            await programs.place.others.update_step_status(row.id, StepStatus.COMPLETED, YES)
    async with programs.open() as run:
        with pytest.raises(bus.StepChanged, match="'approval', not 'step'"):
            await run.step("publish", seen.double, 1, input=None)
    assert not seen.calls


async def test_a_step_is_no_sleep(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()
    await programs.leave_undone(lambda run: run.step("nap", seen.double, 1))
    async with programs.open() as run:
        with pytest.raises(bus.StepChanged, match="is not a sleep"):
            await run.sleep("nap", 3)


async def test_an_approval_that_somebody_looks_at_is_not_given(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    answers: list[Any] = []

    async def execute() -> None:
        async with programs.open() as run:
            answers.append(await run.approval("publish"))

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            row = await programs.until_waiting("publish")
            others = programs.place.others
            await others.update_step_status(row.id, StepStatus.RUNNING)
            await others.update_step_status(row.id, StepStatus.COMPLETED, YES)
    assert answers == [YES]


@pytest.mark.parametrize("kind", ["approval", "sleep"])
async def test_a_completed_run_waits_for_nothing_more(
    programs: Programs, workflow: WorkflowDefinition, kind: str
) -> None:
    async def wait(run: Run) -> None:
        await (run.approval("wait") if kind == "approval" else run.sleep("wait", 100))

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open() as run, anyio.create_task_group() as tasks:
            tasks.start_soon(wait, run)
            await programs.until(lambda: programs.rows("wait"))
            tasks.cancel_scope.cancel()
        assert await programs.status() == RunStatus.COMPLETED
        with pytest.raises(bus.StepChanged, match="the run is completed"):
            async with programs.open() as run:
                await wait(run)


async def test_a_step_that_is_cancelled_while_it_is_announced_is_given_back(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    class Slow:
        """Workflows whose answer to an announcement comes late."""

        announced = anyio.Event()

        def __getattr__(self, name: str) -> Any:
            return getattr(programs.workflows, name)

        async def create_step_log(self, *args: Any, **options: Any) -> Any:
            created = await programs.workflows.create_step_log(*args, **options)
            if not self.announced.is_set():
                self.announced.set()
                await anyio.sleep_forever()
            return created

    seen, slow = Seen(), Slow()
    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open(through=slow) as run, anyio.create_task_group() as tasks:
            tasks.start_soon(run.step, "s", seen.double, 1)
            await slow.announced.wait()
            tasks.cancel_scope.cancel()
    given_back, left = await programs.rows()
    assert (given_back.status, given_back.error) == (StepStatus.FAILED, "given back")
    assert (left.status, left.error) == (StepStatus.FAILED, LEFT), "the program went on without it"
    assert not seen.calls


# ── Another run's end ────────────────────────────────────────────────────────────────────────────────────


async def test_another_run_that_is_cancelled_in_a_step_fails_the_step(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def inner() -> None:
        async with programs.open("inner") as run:
            await programs.place.others.update_run_status("inner", RunStatus.CANCELLED)
            await run.save_context()

    async with programs.open() as run:
        with pytest.raises(bus.StepFailed, match="'inner' was cancelled"):
            await run.step("sub", inner)
    assert await programs.status() == RunStatus.COMPLETED
    assert [row.status for row in await programs.rows()] == [StepStatus.FAILED]


# ── A person's hand ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_that_a_person_paused_waits_until_it_is_resumed(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen = Seen()

    async def lose() -> None:
        async with programs.open() as run:
            await run.step("a", seen.double, 1)
            await programs.place.others.update_run_status("r", RunStatus.PAUSED, "paused by bob: lunch")
            await run.step("b", seen.double, 2)

    with pytest.raises(bus.RunLost, match="paused"):
        await lose()
    with pytest.raises(bus.RunBusy, match="paused by bob: lunch"):
        async with programs.open(timeout=0):
            raise AssertionError("it is paused")
    opened = anyio.Event()

    async def go_on() -> None:
        async with programs.open() as run:
            opened.set()
            await run.step("a", seen.double, 1)
            await run.step("b", seen.double, 2)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_on)
            await anyio.wait_all_tasks_blocked()
            stored = await programs.workflows.get_run("r")
            assert stored is not None
            assert (stored.status, stored.error) == (RunStatus.PAUSED, "paused by bob: lunch")
            assert not opened.is_set()
            await programs.place.others.update_run_status("r", RunStatus.PENDING)
    assert seen.calls == {1: 1, 2: 1}
    assert await programs.status() == RunStatus.COMPLETED


async def test_an_answer_does_not_resume_what_a_person_paused(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    answers: list[Any] = []

    async def execute() -> None:
        async with programs.open() as run:
            answers.append(await run.approval("publish"))

    others = programs.place.others
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            row = await programs.until_waiting("publish")
            await others.update_run_status("r", RunStatus.PAUSED, "paused by bob")
            await others.update_step_status(row.id, StepStatus.COMPLETED, YES)
            await anyio.wait_all_tasks_blocked()
            assert (await programs.status(), answers) == (RunStatus.PAUSED, [])
            await others.update_run_status("r", RunStatus.PENDING)
    assert answers == [YES]
    assert await programs.status() == RunStatus.COMPLETED


async def test_a_run_that_is_cancelled_while_it_sleeps_ends_before_it_would_wake(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def execute() -> None:
        with pytest.raises(bus.RunCancelled):
            async with programs.open(lease_seconds=0.06, timing=Timing(clock=programs.clock)) as run:
                await run.sleep(1000)

    with anyio.fail_after(BOUND_SECONDS):  # the clock stands still: the sleep itself never ends
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until(lambda: programs.rows("sleep"))
            await programs.until_status(RunStatus.PAUSED)
            await programs.place.others.update_run_status("r", RunStatus.CANCELLED, "by bob")


# ── Arguments ────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_cannot_be_meant_is_refused_before_anything_is_stored(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    wrong: list[dict[str, Any]] = [{"timeout": float("nan")}, {"timeout": -1}, {"id": ""}, {"id": "r" * 129}]
    for options in wrong:
        with pytest.raises(ValueError, match=r"timeout must be|a run.s id"):
            async with programs.open(**options):
                raise AssertionError("it must not open")
    with pytest.raises(TypeError, match="WorkflowDefinition, not dict"):
        async with programs.open(definition={"id": "w"}):
            raise AssertionError("it must not open")
    assert await programs.workflows.list_all_runs() == []
    async with programs.open() as run:
        with pytest.raises(TypeError, match=r"run\.sleep"):
            await run.sleep(1e18)


async def test_who_waits_for_a_run_waits_no_longer_than_it_said(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    """The pause between two looks is no longer than what is left."""
    seldom = Timing(clock=programs.clock, poll_seconds=10 * BOUND_SECONDS, poll_seconds_max=10 * BOUND_SECONDS)
    executor = Executor(programs.place.others, BOB, 100 * BOUND_SECONDS, seldom)
    async with programs.open():
        with anyio.fail_after(BOUND_SECONDS), pytest.raises(bus.RunBusy, match=ANN):
            async with open_run(executor, "w", Start(id="r"), timeout=0.001):
                raise AssertionError("it is held")
