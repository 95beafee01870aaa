"""Executing a run: what is recorded of its steps, and what is carried out again after the program ended."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.errors import ClosedError, Conflict, InvalidValue, TooLarge
from bus.model.records import (
    BotOwner,
    RetryPolicy,
    RunStatus,
    StepStatus,
    StepType,
    WorkflowDefinition,
    WorkflowStep,
)
from bus.runs.replay import INTERRUPTIONS_MAX, Retry
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen, mortal
from .samples import ANN, definition, owned

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def fail(error: Exception) -> None:
    raise error


def type_name(value: object) -> str:
    return type(value).__name__


async def five(run: Run, seen: Seen) -> list[int]:
    return [await run.step(f"s{number}", seen.double, number) for number in range(1, 6)]


# ── From beginning to end ────────────────────────────────────────────────────────────────────────────────


async def test_a_run_is_completed_with_its_steps_and_context(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen = Seen()
    async with programs.open(input={"url": "x"}, context={"a": 1}, trigger_payload=[1]) as run:
        assert (run.id, run.workflow, run.fence, run.completed, run.resumed) == ("r", "w", 1, False, False)
        assert (run.input, run.trigger_payload) == ({"url": "x"}, [1])
        assert await programs.status() == RunStatus.RUNNING
        assert await five(run, seen) == [2, 4, 6, 8, 10]
        run.context["b"] = 2
        assert "held fence=1" in repr(run)
    stored = await programs.workflows.get_run("r")
    assert stored is not None
    assert stored.status == RunStatus.COMPLETED
    assert stored.context == {"a": 1, "b": 2, "input": {"url": "x"}}
    assert await programs.workflows.get_lease("r") is None
    rows = await programs.rows()
    assert [(row.step_id, row.status, row.attempt, row.input, row.output) for row in rows] == [
        (f"s{number}", StepStatus.COMPLETED, 1, [number], number * 2) for number in range(1, 6)
    ]


async def test_a_run_that_was_completed_answers_as_it_is_recorded(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen = Seen()
    async with programs.open() as run:
        await five(run, seen)
        run.context["kept"] = True
    async with programs.open() as run:
        assert run.completed
        assert run.context == {"kept": True}
        assert await five(run, seen) == [2, 4, 6, 8, 10]
        await run.save_context()
        with pytest.raises(bus.StepChanged, match="completed"):
            await run.step("new", seen.double, 9)
    assert set(seen.calls.values()) == {1}
    assert seen.calls[9] == 0


async def test_a_run_that_its_program_fails_cannot_go_on(programs: Programs, workflow: WorkflowDefinition) -> None:
    with pytest.raises(bus.FailRun, match="no such page"):
        async with programs.open():
            raise bus.FailRun("no such page")
    stored = await programs.workflows.get_run("r")
    assert stored is not None
    assert (stored.status, stored.error) == (RunStatus.FAILED, "FailRun: no such page")
    with pytest.raises(bus.RunFailed, match="no such page"):
        async with programs.open():
            raise AssertionError("it must not open")


async def test_a_cancelled_run_is_given_back(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen, reached = Seen(), anyio.Event()

    async def hang() -> None:
        reached.set()
        await anyio.sleep_forever()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def execute() -> None:
                async with programs.open() as run:
                    await run.step("s1", seen.double, 1)
                    await run.step("s2", hang)

            tasks.start_soon(execute)
            await reached.wait()
            tasks.cancel_scope.cancel()
    assert await programs.status() == RunStatus.PENDING
    assert [(row.status, row.error) for row in await programs.rows("s2")] == [(StepStatus.FAILED, "given back")]
    async with programs.open() as run:
        assert run.resumed
        assert await run.step("s1", seen.double, 1) == 2
        assert await run.step("s2", seen.double, 2) == 4
    assert seen.calls == {1: 1, 2: 1}


@pytest.mark.parametrize("announce", [True, False])
async def test_a_program_that_is_cancelled_begins_no_step(
    programs: Programs, workflow: WorkflowDefinition, announce: bool
) -> None:
    seen = Seen()
    async with programs.open() as run:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await run.step("s", seen.double, 1, announce=announce)
        assert await programs.rows() == []
    assert seen.calls == {}


async def test_a_worker_that_is_away_fails_no_run(programs: Programs, workflow: WorkflowDefinition) -> None:
    with pytest.raises(bus.WorkerUnavailable):
        async with programs.open():
            raise bus.WorkerUnavailable("no answer")
    assert await programs.status() == RunStatus.PENDING


async def test_a_step_fails_whose_error_cannot_be_turned_into_text(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    class Speechless(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    async with programs.open() as run:
        with pytest.raises(bus.StepFailed, match="Speechless"):
            await run.step("s", fail, Speechless(), input=None)
    [row] = await programs.rows()
    assert (row.status, row.error) == (StepStatus.FAILED, "Speechless")


# ── After the process was lost ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_run_goes_on_from_wherever_its_process_died(
    programs: Programs, workflow: WorkflowDefinition, after: bool
) -> None:
    died = 0
    for dies_at in range(1, 100):
        id, seen = f"r{dies_at}", Seen()
        dying = mortal(programs.workflows, dies_at, after=after)
        try:
            async with programs.open(id, through=dying) as run:
                await five(run, seen)
        except ClosedError:
            died += 1
        if not dying.dead:
            break
        await programs.lapse(16, id)
        async with programs.open(id) as run:
            assert await five(run, seen) == [2, 4, 6, 8, 10]
        assert await programs.status(id) == RunStatus.COMPLETED
        for number in range(1, 6):
            rows = await programs.rows(f"s{number}", id)
            interrupted = [row for row in rows if row.error == "interrupted"]
            assert [row.status for row in rows if row not in interrupted] == [StepStatus.COMPLETED]
            assert seen.calls[number] <= 1 + len(interrupted)
        assert sum(seen.calls.values()) <= 6, "at most one step was at work"
    assert died >= 12, "it died at each of its calls"


async def test_a_step_that_ends_its_process_each_time_is_given_up(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    for _ in range(INTERRUPTIONS_MAX):
        dying = mortal(programs.workflows)

        async def crash(dying: Any = dying) -> None:
            dying.die()

        with pytest.raises(ClosedError):
            async with programs.open(through=dying) as run:
                await run.step("bomb", crash)
        await programs.lapse(16)
        await programs.place.recover_runs()
        await programs.workflows.update_run_status("r", RunStatus.PENDING)  # a person insists
    with pytest.raises(bus.StepFailed, match="the process was lost"):
        async with programs.open() as run:
            await run.step("bomb", fail, AssertionError("it is not called again"), input=None)


# ── Failing and trying again ─────────────────────────────────────────────────────────────────────────────


async def test_a_step_without_retry_fails_once(programs: Programs, workflow: WorkflowDefinition) -> None:
    with pytest.raises(bus.StepFailed) as caught:
        async with programs.open() as run:
            await run.step("s", fail, ValueError("broken"), input=None)
    assert (caught.value.step_id, caught.value.attempts) == ("s", 1)
    assert isinstance(caught.value.__cause__, ValueError)
    assert await programs.status() == RunStatus.FAILED
    assert [(row.status, row.error) for row in await programs.rows()] == [(StepStatus.FAILED, "ValueError: broken")]


async def test_attempts_and_the_wait_between_survive_a_restart(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    retry, seen = Retry(max_attempts=3, delay=100, factor=3, jitter=0), Seen()

    async def flaky() -> str:
        seen.note("flaky")
        if seen.calls["flaky"] < 3:
            raise OSError("not yet")
        return "done"

    async def execute(through: Any) -> None:
        async with programs.open(through=through) as run:
            assert await run.step("s", flaky, retry=retry) == "done"

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            dying = mortal(programs.workflows)
            tasks.start_soon(execute, dying)
            await programs.until_status(RunStatus.PAUSED)  # it waits, for longer than its lease
            dying.die()
            tasks.cancel_scope.cancel()
        await programs.lapse(60)
        assert seen.calls["flaky"] == 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute, None)
            await programs.until_status(RunStatus.PAUSED)  # 40 s are left
            programs.clock.advance(41)
            await seen.wait_for("flaky", 2)
            await programs.until_status(RunStatus.PAUSED)  # now 300 s
            programs.clock.advance(290)
            await anyio.wait_all_tasks_blocked()
            assert seen.calls["flaky"] == 2
            programs.clock.advance(11)
    assert [(row.attempt, row.status) for row in await programs.rows()] == [
        (1, StepStatus.FAILED),
        (2, StepStatus.FAILED),
        (3, StepStatus.COMPLETED),
    ]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_step_that_meets_a_limit_fails_no_run(
    programs: Programs, workflow: WorkflowDefinition, attempts: int
) -> None:
    seen = Seen()

    async def send() -> str:
        seen.note("send")
        if seen.calls["send"] <= attempts:
            raise bus.StorageFull("the disk is full")
        return "sent"

    async def execute() -> None:
        async with programs.open() as run:
            assert await run.step("s", send, retry=Retry(max_attempts=attempts, delay=0)) == "sent"

    with pytest.raises(bus.StorageFull):
        await execute()
    assert await programs.status() == RunStatus.PENDING
    await execute()
    assert [row.error for row in await programs.rows()][-2:] == ["given back", None]


async def test_a_group_of_errors_that_pass_fails_no_run(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def execute(*errors: Exception) -> None:
        async with programs.open():
            raise ExceptionGroup("several", errors)

    with pytest.raises(ExceptionGroup):
        await execute(bus.WorkerUnavailable("no answer"), bus.WorkerUnavailable("no answer"))
    assert await programs.status() == RunStatus.PENDING
    for other in (ValueError("broken"), bus.FailRun("no page")):
        with pytest.raises(ExceptionGroup):
            await execute(bus.WorkerUnavailable("no answer"), other)
        assert await programs.status() == RunStatus.PAUSED
    with pytest.raises(ExceptionGroup):
        await execute(bus.FailRun("no page"), bus.StepFailed("r", "s", 1, "broken"))
    assert await programs.status() == RunStatus.FAILED


async def test_a_failure_that_was_caught_is_there_again(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def flaky() -> None:
        seen.note("flaky")
        raise ValueError("broken")

    async def body(run: Run) -> None:
        with pytest.raises(bus.StepFailed, match="ValueError: broken"):
            await run.step("s", flaky, retry=Retry(max_attempts=2, delay=0))
        await run.step("instead", seen.double, 1)

    await programs.leave_undone(body)
    async with programs.open() as run:
        await body(run)
    assert seen.calls == {"flaky": 2, 1: 1}


async def test_the_definition_says_how_often_a_step_is_tried(programs: Programs) -> None:
    step = WorkflowStep(
        id="s", name="S", type=StepType.CODE, config={"type": "code"}, retry=RetryPolicy(max_attempts=2)
    )
    seen = Seen()

    async def flaky() -> str:
        seen.note("flaky")
        if seen.calls["flaky"] == 1:
            raise OSError("not yet")
        return "done"

    async def failed() -> bool:
        return any(row.status == StepStatus.FAILED for row in await programs.rows("s"))

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:

            async def execute() -> None:
                async with programs.open(definition=definition("w", steps=(step,))) as run:
                    assert await run.step("s", flaky) == "done"

            tasks.start_soon(execute)
            await seen.wait_for("flaky")
            await programs.until(failed)
            programs.clock.advance(2)
    assert seen.calls["flaky"] == 2


# ── What a step is asked, and what it gives ──────────────────────────────────────────────────────────────


async def test_another_input_is_refused_unless_the_program_says_otherwise(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen = Seen()

    async def body(run: Run) -> None:
        await run.step("a", seen.double, 1)
        await run.step("b", seen.double, 2, input={"v": 1, "w": 2})

    await programs.leave_undone(body)
    async with programs.open() as run:
        with pytest.raises(bus.StepChanged, match=r"recorded for the input \[1\].*called with \[5\]"):
            await run.step("a", seen.double, 5)
        assert await run.step("b", seen.double, 7, input={"w": 2, "v": 1}) == 4
    assert seen.calls == {1: 1, 2: 1}


@pytest.mark.parametrize(("on_changed", "gives"), [("reuse", 2), ("again", 10)])
async def test_a_program_may_take_another_input(
    programs: Programs, workflow: WorkflowDefinition, on_changed: Any, gives: int
) -> None:
    seen = Seen()
    await programs.leave_undone(lambda run: run.step("a", seen.double, 1))
    for _ in range(2):
        async with programs.open() as run:
            assert await run.step("a", seen.double, 5, on_changed=on_changed) == gives
    assert seen.calls[5] == (1 if on_changed == "again" else 0)


async def test_the_output_is_what_json_gives_back_the_first_time_too(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async with programs.open() as run:
        assert await run.step("a", lambda: {"pair": (1, 2)}) == {"pair": [1, 2]}
        assert await run.step("b", lambda: None) is None


@pytest.mark.parametrize(("value", "error"), [(object(), InvalidValue), ("x" * (16 * 1024 * 1024), TooLarge)])
async def test_what_cannot_be_recorded_is_refused_by_name(
    programs: Programs, workflow: WorkflowDefinition, value: Any, error: type[Exception]
) -> None:
    async with programs.open() as run:
        with pytest.raises(error, match="output of step 'a'"):
            await run.step("a", lambda: value)
        with pytest.raises(error, match="input of step 'b'"):
            await run.step("b", len, value)
        assert await run.step("c", type_name, value, input="short") is not None
    assert [(row.step_id, row.status) for row in await programs.rows()] == [
        ("a", StepStatus.FAILED),
        ("c", StepStatus.COMPLETED),
    ]


# ── Which workflow ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_bots_own_workflow_goes_before_a_global_one(programs: Programs) -> None:
    await programs.place.add_bots(ANN)
    await programs.workflows.save_definition(definition("global", name="w"))
    async with programs.open("1") as run:
        assert run.workflow == "w"
    await programs.workflows.save_definition(owned("mine", ANN, name="w"))
    async with programs.open("2"), programs.open("3", "global"):
        pass
    found = [await programs.workflows.get_run(id) for id in "123"]
    assert [run and run.workflow_id for run in found] == ["global", "mine", "global"]


async def test_a_workflow_that_is_not_there_says_what_to_do(programs: Programs) -> None:
    with pytest.raises(bus.UnknownWorkflow, match=r"save_definition.*definition="):
        async with programs.open():
            raise AssertionError("it must not open")


async def test_a_definition_may_be_saved_on_the_way(programs: Programs) -> None:
    await programs.place.add_bots(ANN)
    given = WorkflowDefinition(id="d", name="digest", owner=BotOwner(bot_id=ANN))
    for _ in range(2):
        async with programs.open(workflow="digest", definition=given) as run:
            assert run.workflow == "digest"
    assert await programs.workflows.get_definition("d") == given
    with pytest.raises(ValueError, match="'digest', not 'other'"):
        async with programs.open("new", "other", definition=given):
            raise AssertionError("it must not open")
    with pytest.raises(Conflict, match="'digest', not to 'other'"):
        async with programs.open(workflow="other"):
            raise AssertionError("it must not open")
