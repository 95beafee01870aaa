"""Executing a run: waits and steps that end before they are done, and that this is recorded."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import bus
from bus.errors import InvalidTransition
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.approvals import Answer, Unanswerable
from bus.runs.replay import LEFT
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


# ── Approvals ────────────────────────────────────────────────────────────────────────────────────────────


class Asking:
    """A program that asks a person, and escalates if nobody answers within a minute."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.seen = Seen()
        self.answers = list[Any]()

    async def body(self, run: Run) -> None:
        try:
            self.answers.append(await run.approval("sure", timeout=60))
        except bus.ApprovalTimedOut:
            self.answers.append(await run.step("escalate", self.seen.double, 1))

    async def wait(self, seconds: float) -> None:
        """Let the program wait so long, and end it if it still waits."""
        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.run)
                await self.programs.until_waiting("sure")
                self.programs.clock.advance(seconds)
                if seconds < 60:
                    tasks.cancel_scope.cancel()

    async def run(self) -> None:
        async with self.programs.open() as run:
            await self.body(run)


async def test_an_approval_that_nobody_gives_times_out(programs: Programs, workflow: WorkflowDefinition) -> None:
    asking = Asking(programs)
    await asking.wait(60)
    assert await programs.status() == RunStatus.COMPLETED
    assert asking.answers == [2]
    [row] = await programs.rows("sure")
    assert (row.status, row.error) == (StepStatus.FAILED, "timed out")
    with pytest.raises(InvalidTransition):
        await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
    await asking.run()
    assert asking.answers == [2, 2]
    assert asking.seen.calls == {1: 1}


async def test_a_restart_waits_only_for_the_rest(programs: Programs, workflow: WorkflowDefinition) -> None:
    asking = Asking(programs)
    await asking.wait(40)
    assert asking.answers == []
    programs.clock.advance(20)
    with anyio.fail_after(BOUND_SECONDS):
        await asking.run()
    assert asking.answers == [2]


async def test_an_answer_after_the_time_changes_nothing(programs: Programs, workflow: WorkflowDefinition) -> None:
    asking = Asking(programs)
    await asking.wait(40)
    programs.clock.advance(21)
    [row] = await programs.rows("sure")
    with pytest.raises(Unanswerable, match="could be answered until"):
        await Answer(True, "ann").give(programs.workflows, row)
    await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
    await asking.run()
    assert asking.answers == [2]


async def test_an_answer_in_time_counts_whenever_it_is_read(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    asking = Asking(programs)
    await asking.wait(40)
    [row] = await programs.rows("sure")
    await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
    programs.clock.advance(1000)
    await asking.run()
    assert asking.answers == [{"approved": True}]


async def test_an_approval_that_times_out_fails_a_run_that_does_not_expect_it(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def execute() -> None:
        with pytest.raises(bus.ApprovalTimedOut):
            async with programs.open() as run:
                await run.approval("sure", timeout=60)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until_waiting("sure")
            programs.clock.advance(60)
    assert await programs.status() == RunStatus.FAILED


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("announce", [True, False])
async def test_an_attempt_that_takes_too_long_fails(
    programs: Programs, workflow: WorkflowDefinition, announce: bool
) -> None:
    seen = Seen()

    async def hang() -> None:
        seen.note("called")
        await anyio.sleep_forever()

    for _ in range(2):
        with anyio.fail_after(BOUND_SECONDS):
            async with programs.open() as run:
                with pytest.raises(bus.StepFailed, match=r"TimeoutError: not done within 0\.01 s"):
                    await run.step(
                        "s", hang, timeout=0.01, announce=announce, retry=bus.Retry(max_attempts=2, delay=0)
                    )
                await run.step("instead", seen.double, 1)
    assert seen.calls == {"called": 2, 1: 1}
    assert [row.status for row in await programs.rows("s")] == [StepStatus.FAILED] * 2


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 1e12])
async def test_what_is_no_timeout_is_refused(
    programs: Programs, workflow: WorkflowDefinition, timeout: float
) -> None:
    async with programs.open() as run:
        with pytest.raises(ValueError, match="timeout must be"):
            await run.step("s", int, timeout=timeout)
        with pytest.raises(ValueError, match="timeout must be"):
            await run.approval("a", timeout=timeout)


# ── Cancel scopes ────────────────────────────────────────────────────────────────────────────────────────


Body = Callable[[], Awaitable[None]]

CALLS: dict[str, Callable[[Run, Body], Awaitable[Any]]] = {
    "approval": lambda run, _: run.approval("call"),
    "sleep": lambda run, _: run.sleep("call", 1000),
    "long sleep": lambda run, _: run.sleep("call", 1),
    "step": lambda run, body: run.step("call", body),
    "unannounced step": lambda run, body: run.step("call", body, announce=False),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_a_scope_ended_is_left_again(
    programs: Programs, workflow: WorkflowDefinition, name: str
) -> None:
    """Even if the answer has come, the time has passed, or the function would return by now."""
    seen, paths, called = Seen(), list[list[str]](), anyio.Event()

    async def stay() -> None:
        called.set()
        await anyio.sleep_forever()

    async def has_begun() -> bool:
        return called.is_set() if "step" in name else bool(await programs.rows("call"))

    async def leave(scope: anyio.CancelScope) -> None:
        await programs.until(has_begun)
        scope.cancel()

    async def body(run: Run) -> None:
        path: list[str] = []
        paths.append(path)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                if len(paths) == 1:
                    tasks.start_soon(leave, scope)
                else:
                    scope.deadline = anyio.current_time() + 0.1
                await CALLS[name](run, stay)
                path.append("done")
                tasks.cancel_scope.cancel()
        await run.step("fallback", seen.double, 1)
        path.append("left")

    with anyio.fail_after(BOUND_SECONDS):
        await programs.leave_undone(body)
        [*_, row] = await programs.rows("call")
        assert (row.status, row.error) == (StepStatus.FAILED, LEFT)
        assert await programs.workflows.list_waiting_approvals("r") == []
        with pytest.raises(InvalidTransition):
            await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
        programs.clock.advance(10_000)
        await programs.leave_undone(body)
    assert paths == [["left"], ["left"]]
    assert seen.calls == {1: 1}


async def test_a_question_is_left_even_if_it_is_answered_meanwhile(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    paths = list[str]()

    async def body(run: Run) -> None:
        with anyio.CancelScope() as scope:

            async def leave() -> None:
                row = await programs.until_waiting("call")
                scope.cancel()
                await programs.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})

            async with anyio.create_task_group() as tasks:
                if not paths:
                    tasks.start_soon(leave)
                else:
                    scope.deadline = anyio.current_time() + 0.1
                with anyio.CancelScope() as inner:
                    await run.approval("call")
                    paths.append("answered")
                inner.cancel()
        await run.step("fallback", lambda: 1)
        paths.append("left")

    with anyio.fail_after(BOUND_SECONDS):
        await programs.leave_undone(body)
        await programs.leave_undone(body)
    assert paths == ["left", "left"]


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_the_end_of_the_program_cancelled_goes_on(
    programs: Programs, workflow: WorkflowDefinition, name: str
) -> None:
    reached = anyio.Event()

    async def execute() -> None:
        async with programs.open() as run:
            reached.set()
            await CALLS[name](run, anyio.sleep_forever)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await reached.wait()
            if name != "unannounced step":
                await programs.until(lambda: programs.rows("call"))
            tasks.cancel_scope.cancel()
    assert [row for row in await programs.rows("call") if row.error == LEFT] == []
    assert await programs.status() in (RunStatus.PENDING, RunStatus.PAUSED)
