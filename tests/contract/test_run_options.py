"""Executing a run: what a step and its retries can be told, and what a second start may say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.errors import Conflict
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition
from bus.runs.run import Run
from bus.runs.timing import wait

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def test_a_function_may_have_arguments_by_name(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def fetch(url: str, *, depth: int) -> list[Any]:
        return [url, depth]

    async def body(run: Run, depth: int) -> Any:
        return await run.step("fetch", fetch, "u", kwargs={"depth": depth})

    await programs.leave_undone(lambda run: body(run, 2))
    async with programs.open() as run:
        assert await body(run, 2) == ["u", 2]
    [row] = await programs.rows("fetch")
    assert row.input == {"args": ["u"], "kwargs": {"depth": 2}}
    async with programs.open() as run:
        with pytest.raises(bus.StepChanged):
            await body(run, 3)


async def test_an_error_that_is_not_worth_it_is_not_retried(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen = Seen()

    async def fetch() -> None:
        seen.note("fetch")
        raise PermissionError("who are you")

    retry = bus.Retry(max_attempts=5, delay=0, never=(PermissionError,))
    for _ in range(2):
        async with programs.open() as run:
            with pytest.raises(bus.StepFailed, match="failed once: PermissionError: who are you"):
                await run.step("fetch", fetch, retry=retry)
            raised = await run.step("instead", seen.double, 1)
            assert raised == 2
    assert seen.calls == {"fetch": 1, 1: 1}
    with pytest.raises(TypeError, match="never must be"):
        bus.Retry(never=PermissionError)  # type: ignore[arg-type]


async def test_a_service_says_when_to_retry(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen, began = Seen(), programs.clock.now

    async def fetch() -> str:
        seen.note("fetch")
        if seen.calls["fetch"] == 1:
            raise LookupError("30")
        return "page"

    retry = bus.Retry(delay=1000, jitter=0, retry_after=lambda error: float(str(error)))

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open() as run, anyio.create_task_group() as tasks:
            tasks.start_soon(_move_on, programs, seen)
            assert await run.step("fetch", fetch, retry=retry) == "page"
            tasks.cancel_scope.cancel()
    assert programs.clock.now < began + timedelta(seconds=1000)
    assert retry.wait_after(LookupError("30")) == 30
    assert bus.Retry().wait_after(LookupError("30")) is None


async def _move_on(programs: Programs, seen: Seen) -> None:
    """Move the clock until the step is done: the wait which was asked for ends long before the usual one."""
    await seen.wait_for("fetch")
    while True:
        programs.clock.advance(1)
        await anyio.sleep(0.01)


async def test_a_clock_that_is_put_back_makes_no_sleep_longer(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    timing = msgspec.structs.replace(programs.timing(), wait=wait)

    async def put_back() -> None:
        await programs.until(lambda: programs.rows("nap"))
        programs.clock.now -= timedelta(hours=1)

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open(timing=timing) as run, anyio.create_task_group() as tasks:
            tasks.start_soon(put_back)
            await run.sleep("nap", 0.5)
    [row] = await programs.rows("nap")
    assert row.status == StepStatus.COMPLETED


async def test_a_second_start_with_another_input_is_a_conflict(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async with programs.open(input={"n": 1, "m": (2,)}):
        pass
    for same in ({"m": [2], "n": 1}, None):
        async with programs.open(input=same) as run:
            assert run.input == {"n": 1, "m": [2]}
    with pytest.raises(Conflict, match="another input"):
        async with programs.open(input={"n": 2}):
            raise AssertionError("it must not open")
    assert await programs.status() == RunStatus.COMPLETED
