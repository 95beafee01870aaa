"""Executing a run: an error of the program pauses it, and the mended program goes on."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import Programs, Seen

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def misuse_a_name(run: Run) -> None:
    await run.step("not#allowed", lambda: 1)


async def change_an_input(run: Run) -> None:
    await run.step("once", lambda value: value, 2)


async def pass_an_input_that_is_no_json(run: Run) -> None:
    await run.step("next", lambda value: value, object())


async def have_a_bug(run: Run) -> None:
    {}["page"]  # type: ignore[index]


async def lose_a_connection(run: Run) -> None:
    raise ConnectionResetError("the peer is gone")


async def keep_too_large_a_context(run: Run) -> None:
    run.context["text"] = "x" * (10 * 1024 * 1024)


async def keep_a_context_that_is_no_json(run: Run) -> None:
    run.context["number"] = math.nan


@pytest.mark.parametrize(
    ("mistake", "kind", "reason"),
    [
        (misuse_a_name, ValueError, "a step's name must"),
        (change_an_input, bus.StepChanged, "step 'once'"),
        (pass_an_input_that_is_no_json, bus.InvalidValue, "input of step 'next'"),
        (have_a_bug, KeyError, "'page'"),
        (lose_a_connection, ConnectionResetError, "the peer is gone"),
        (keep_too_large_a_context, bus.TooLarge, "context"),
        (keep_a_context_that_is_no_json, bus.InvalidValue, "context"),
    ],
)
async def test_an_error_of_the_program_pauses_the_run(
    programs: Programs,
    workflow: WorkflowDefinition,
    mistake: Callable[[Run], Awaitable[None]],
    kind: type[Exception],
    reason: str,
) -> None:
    seen = Seen()
    await programs.leave_undone(lambda run: run.step("once", seen.double, 1))
    with pytest.raises(kind, match=reason):
        async with programs.open() as run:
            await mistake(run)
    stored = await programs.workflows.get_run("r")
    assert stored is not None
    assert stored.status == RunStatus.PAUSED
    assert f"{kind.__name__}: " in (stored.error or "")
    async with programs.open_as_other() as run:
        assert await run.step("once", seen.double, 1) == 2
    assert await programs.status() == RunStatus.COMPLETED
    assert seen.calls == {1: 1}


@pytest.mark.parametrize(
    "output", [object(), math.nan, "x" * (16 * 1024 * 1024 + 1)], ids=["object", "nan", "large"]
)
async def test_what_returned_no_record_is_not_called_again_before_the_run_is_retried(
    programs: Programs, workflow: WorkflowDefinition, output: Any
) -> None:
    seen = Seen()

    async def pay(result: Any) -> Any:
        seen.note("paid")
        return result

    for _ in range(2):
        with pytest.raises((bus.InvalidValue, bus.TooLarge), match="output of step 'pay'"):
            async with programs.open() as run:
                await run.step("pay", pay, output, input=None, retry=bus.Retry(max_attempts=5, delay=0))
        assert await programs.status() == RunStatus.PAUSED
    assert seen.calls == {"paid": 1}
    await programs.workflows.retry_run("r")
    async with programs.open() as run:
        assert await run.step("pay", pay, "receipt", input=None) == "receipt"
    assert seen.calls == {"paid": 2}


@pytest.mark.parametrize("how", ["a step failed", "it was rejected", "the program says so"])
async def test_a_failure_that_is_meant_fails_the_run_and_a_retry_lets_it_go_on(
    programs: Programs, workflow: WorkflowDefinition, how: str
) -> None:
    seen, mended = Seen(), list[bool]()

    async def charge() -> str:
        if not mended:
            raise ValueError("no money")
        return "charged"

    async def body(run: Run) -> Any:
        await run.step("reserve", seen.double, 1)
        if how == "a step failed":
            return await run.step("charge", charge, retry=bus.Retry(max_attempts=2, delay=0))
        if how == "it was rejected":
            return await run.approval("sure")
        if not mended:
            raise bus.FailRun("no money")
        return "charged"

    async def execute() -> Any:
        async with programs.open() as run:
            return await body(run)

    async def answer(approved: bool) -> None:
        row = await programs.until_waiting("sure")
        status = StepStatus.COMPLETED if approved else StepStatus.FAILED
        await programs.workflows.update_step_status(row.id, status, {"approved": approved})

    async with answering(how, partial(answer, False)):
        with pytest.raises((bus.StepFailed, bus.Rejected, bus.FailRun)):
            await execute()
    assert await programs.status() == RunStatus.FAILED
    with pytest.raises(bus.RunFailed, match="posthouse retry r"):
        await execute()
    mended.append(True)
    retried = await programs.workflows.retry_run("r")
    assert (retried.status, retried.error, retried.completed_at) == (RunStatus.PENDING, None, None)
    assert await programs.workflows.retry_run("r") == retried
    async with answering(how, partial(answer, True)):
        assert await execute() in ("charged", {"approved": True})
    assert seen.calls == {1: 1}


@asynccontextmanager
async def answering(how: str, answer: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Answer the question meanwhile, if there is one."""
    async with anyio.create_task_group() as tasks:
        if how == "it was rejected":
            tasks.start_soon(answer)
        yield


async def test_a_fork_has_the_records_before_a_step(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def body(run: Run) -> list[Any]:
        return [await run.step(name, seen.double, number) for number, name in enumerate("abc")]

    async with programs.open(input={"n": 1}) as run:
        await body(run)
    await programs.workflows.fork_run("r", "forked", "c")
    async with programs.open("forked") as run:
        assert run.input == {"n": 1}
        assert await body(run) == [0, 2, 4]
    assert seen.calls == {0: 1, 1: 1, 2: 2}
    assert await programs.status() == await programs.status("forked") == RunStatus.COMPLETED
