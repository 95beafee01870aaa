"""Starting a run that another program executes, and waiting for its result."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest

import bus
from bus.errors import InvalidTransition, InvalidValue, NotFound, RunNotDue, TooLarge
from bus.model.records import RunStatus, WorkflowDefinition, timestamp
from bus.model.values import OUTPUT_BYTES_MAX
from bus.runs.handle import RunHandle
from bus.runs.starting import Executor, Start, find_or_create

from .conftest import Place
from .executing import BOUND_SECONDS, Programs
from .samples import ANN, BOB, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def start(programs: Programs, **given: Any) -> RunHandle:
    """Start a run as BOB."""
    workflows = programs.place.others
    executor = Executor(workflows, BOB, timing=programs.timing())
    found = await find_or_create(executor, "w", Start(**given))
    return RunHandle(workflows, found.run.id, executor.timing)


async def test_a_result_reaches_who_waits_for_it(programs: Programs, workflow: WorkflowDefinition) -> None:
    handle = await start(programs, id="r", input=3)
    assert await handle.status() == RunStatus.PENDING
    results = list[Any]()

    async def wait() -> None:
        results.append(await handle.result())

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            async with programs.open() as opened:
                assert (opened.input, opened.result) == (3, None)
                opened.result = {"pages": (1, 2)}
                assert opened.result == {"pages": [1, 2]}
    assert results == [{"pages": [1, 2]}]
    async with programs.open() as again:
        again.result = "ignored"
        assert again.result == {"pages": [1, 2]}
    assert await handle.result(timeout=0) == {"pages": [1, 2]}


@pytest.mark.parametrize("value", [None, 0, False, "", [], {}])
async def test_a_result_may_be_any_value(programs: Programs, workflow: WorkflowDefinition, value: Any) -> None:
    handle = await start(programs, id="r")
    async with programs.open() as opened:
        opened.result = value
    result = await handle.result()
    assert (result, type(result)) == (value, type(value))


async def test_a_run_that_does_not_complete_has_no_result(programs: Programs, workflow: WorkflowDefinition) -> None:
    failing, cancelled = await start(programs, id="r"), await start(programs, id="c")

    async def fail() -> None:
        async with programs.open() as opened:
            opened.result = "lost"
            raise bus.FailRun("no")

    with pytest.raises(bus.FailRun):
        await fail()
    with pytest.raises(bus.RunFailed, match="FailRun: no"):
        await failing.result()
    assert (await failing.run()).result is None
    await cancelled.cancel("changed my mind")
    await cancelled.cancel("changed my mind")
    with pytest.raises(bus.RunCancelled):
        await cancelled.result()
    assert (await cancelled.run()).error == "changed my mind"
    with pytest.raises(InvalidTransition):
        await failing.cancel()
    with pytest.raises(NotFound):
        await RunHandle(programs.workflows, "never", programs.timing()).result()


async def test_waiting_for_a_result_ends(programs: Programs, workflow: WorkflowDefinition) -> None:
    handle = await start(programs, id="r")
    with pytest.raises(bus.ResultTimeout, match="it is pending") as late:
        await handle.result(timeout=0)
    assert isinstance(late.value, TimeoutError)
    assert late.value.status == RunStatus.PENDING
    with pytest.raises(ValueError, match="timeout"):
        await handle.result(timeout=-1)


async def test_a_result_is_checked_where_it_is_set(programs: Programs, workflow: WorkflowDefinition) -> None:
    await start(programs, id="r")
    async with programs.open() as opened:
        with pytest.raises(InvalidValue):
            opened.result = object()
        with pytest.raises(TooLarge):
            opened.result = "x" * OUTPUT_BYTES_MAX
        opened.result = "small"
    with pytest.raises(InvalidValue, match="only a run that is completed"):
        await programs.workflows.update_run_status("r", RunStatus.RUNNING, result=1)


async def test_completing_again_needs_the_same_result(programs: Programs, workflow: WorkflowDefinition) -> None:
    workflows = programs.workflows
    await start(programs, id="r")
    fence = (await workflows.claim_run("r", ANN)).fence
    for _ in range(2):  # the first answer may be lost
        done = await workflows.update_run_status("r", RunStatus.COMPLETED, fence=fence, result=[1])
        assert done.result == [1]
    with pytest.raises(InvalidTransition):
        await workflows.update_run_status("r", RunStatus.COMPLETED, fence=fence, result=[2])


async def test_starting_again_starts_nothing_new(programs: Programs, workflow: WorkflowDefinition) -> None:
    await start(programs, id="r", input=1)
    await start(programs, id="r", input=1)
    with pytest.raises(bus.Conflict, match="another input"):
        await start(programs, id="r", input=2)
    assert len(await programs.workflows.list_runs("w")) == 1


async def test_a_run_starts_at_its_time(programs: Programs, workflow: WorkflowDefinition) -> None:
    at = programs.clock.now + timedelta(seconds=60)
    await start(programs, id="r", run_at=at)
    [summary] = await programs.workflows.list_all_runs()
    assert summary.not_before == timestamp(at)
    with pytest.raises(RunNotDue) as early:
        await programs.workflows.claim_run("r", ANN)
    assert early.value.not_before == timestamp(at)
    with pytest.raises(bus.RunBusy, match="not to start before"):
        async with programs.open(timeout=0):
            pass
    opened = anyio.Event()

    async def execute() -> None:
        async with programs.open():
            opened.set()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await anyio.wait_all_tasks_blocked()
            assert not opened.is_set()
            programs.clock.advance(60)
            await opened.wait()


async def test_the_time_of_a_run_is_a_time(programs: Programs, workflow: WorkflowDefinition) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await start(programs, id="r", run_at=datetime(2026, 1, 1))
    with pytest.raises(InvalidValue, match="not_before"):
        await programs.workflows.create_run(run("r", not_before="tomorrow"))
    created = await programs.workflows.create_run(run("r", not_before="2026-06-01T02:00:00+02:00"))
    assert created.not_before == "2026-06-01T00:00:00.000000Z"
    assert await programs.workflows.get_run("r") == created


async def test_a_fork_has_neither_result_nor_time(programs: Programs, workflow: WorkflowDefinition) -> None:
    await start(programs, id="r", run_at=programs.clock.now)
    async with programs.open() as opened:
        opened.result = 1
    forked = await programs.workflows.fork_run("r", "f")
    assert (forked.result, forked.not_before, forked.status) == (None, None, RunStatus.PENDING)
