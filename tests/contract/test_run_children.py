"""Runs that a run starts: once, whatever dies, and waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

import bus
from bus.errors import Conflict, Fenced, InvalidValue, NotFound
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRepository
from bus.runs.children import child_id
from bus.runs.replay import LEFT
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Mortal, Programs, Seen, mortal
from .samples import ANN, BOB, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def execute(programs: Programs, body: Callable[[Run], Awaitable[Any]], through: Mortal | None = None) -> None:
    """Open the parent, and let it complete with what its body returns."""
    async with programs.open(through=through) as parent:
        parent.result = await body(parent)


async def result(programs: Programs, id: str = "r") -> Any:
    found = await programs.workflows.get_run(id)
    assert found is not None
    return found.result


# ── The calls of the store ───────────────────────────────────────────────────────────────────────────────


async def test_a_child_is_created_by_who_holds_its_parent(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun
) -> None:
    fence = (await workflows.claim_run("r", ANN)).fence
    child = run("c", parent_run_id="r", context={"input": 1})
    assert await workflows.create_run(child, fence=fence) == child
    claimed = await others.claim_run("c", BOB)
    assert await workflows.create_run(child, fence=fence) == claimed.run, "it is what became of it"
    with pytest.raises(Fenced):
        await workflows.create_run(run("d", parent_run_id="r"), fence=fence + 1)
    assert await workflows.get_run("d") is None
    with pytest.raises(InvalidValue, match="that of the parent"):
        await workflows.create_run(run("d"), fence=fence)
    with pytest.raises(NotFound, match="no run 'never'"):
        await workflows.create_run(run("d", parent_run_id="never"))
    await workflows.create_run(run("d"))
    with pytest.raises(Conflict):
        await workflows.create_run(run("d", parent_run_id="r"), fence=fence)
    [summary] = [each for each in await workflows.list_all_runs() if each.id == "c"]
    assert summary.parent_run_id == "r"


def test_the_id_of_a_child_is_the_same_each_time() -> None:
    assert child_id("r", "ship#2") == "r/ship#2"
    long = child_id("r" * 120, "shipping-it")
    assert long == child_id("r" * 120, "shipping-it")
    assert len(long) == 36


# ── Starting ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_child_is_started_and_not_waited_for(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def body(parent: Run) -> Any:
        handles = [await parent.start("w", number) for number in range(2)]
        named = await parent.start("w", {"a": (1,)}, name="special", concurrency_key="k")
        return [handle.id for handle in (*handles, named)]

    await execute(programs, body)
    ids = ["r/w", "r/w#2", "r/special"]
    assert await result(programs) == ids
    found = [await programs.workflows.get_run(id) for id in ids]
    assert [child and child.context for child in found] == [{"input": 0}, {"input": 1}, {"input": {"a": [1]}}]
    assert {child and child.parent_run_id for child in found} == {"r"}
    assert found[2] is not None
    assert (found[2].status, found[2].concurrency_key, found[2].trigger_type) == (RunStatus.PENDING, "k", "run")
    async with programs.open_as_other("r/w") as child:
        assert child.input == 0
    async with programs.open() as again:
        assert (await again.start("w", 0)).id == "r/w"
        with pytest.raises(bus.StepChanged):
            await again.start("w", 7)
    assert len(await programs.workflows.list_runs("w", None)) == 4


async def test_a_child_of_an_unknown_workflow_is_not_started(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async with programs.open() as parent:
        with pytest.raises(bus.UnknownWorkflow):
            await parent.start("never")
    assert await programs.rows() == []


# ── Calling ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Page:
    title: str


async def calling(
    programs: Programs, body: Callable[[Run], Awaitable[Any]], child: Callable[[Run], Awaitable[Any]]
) -> None:
    """Execute a parent, and its child as another bot once the parent waits."""

    async def parent() -> None:
        await execute(programs, body)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(parent)
            await programs.until_status(RunStatus.PAUSED)
            assert await programs.workflows.get_lease("r") is None
            async with programs.open_as_other("r/w") as opened:
                await child(opened)


async def test_a_call_returns_the_result_of_its_child(programs: Programs, workflow: WorkflowDefinition) -> None:
    pages = list[Any]()

    async def body(parent: Run) -> Any:
        pages.append(await parent.call("w", "url", returns=Page))
        return pages[0].title

    async def child(opened: Run) -> None:
        assert opened.input == "url"
        opened.result = {"title": "posthouse"}

    await calling(programs, body, child)
    assert pages == [Page("posthouse")]
    [row] = await programs.rows()
    assert (row.step_id, row.status, row.output) == ("w", StepStatus.COMPLETED, {"title": "posthouse"})
    async with programs.open() as again:
        assert await again.call("w", "url") == {"title": "posthouse"}


async def test_a_child_that_fails_fails_its_parent_and_both_are_retried(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def fail() -> None:
        async with programs.open_as_other("r/w"):
            raise bus.FailRun("no money")

    async def call() -> None:
        with pytest.raises(bus.RunFailed, match="no money") as caught:
            await execute(programs, lambda parent: parent.call("w"))
        assert caught.value.run_id == "r/w"

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await programs.until_status(RunStatus.PAUSED)
            with pytest.raises(bus.FailRun):
                await fail()
    assert await programs.status() == RunStatus.FAILED
    [row] = await programs.rows()
    assert (row.status, row.error) == (StepStatus.FAILED, "run r/w is failed: FailRun: no money")
    await programs.workflows.retry_run("r")

    async def child(opened: Run) -> None:
        opened.result = "mended"

    await calling(programs, lambda parent: parent.call("w"), child)
    assert await result(programs) == "mended"


async def test_retrying_a_parent_starts_another_child_for_one_that_was_cancelled(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def call(child: str) -> None:
        with pytest.raises(bus.RunCancelled) as caught:
            await execute(programs, lambda parent: parent.call("w"))
        assert caught.value.run_id == child

    with anyio.fail_after(BOUND_SECONDS):
        for child in ("r/w", "r/w#again-2"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, child)
                await programs.until_status(RunStatus.PAUSED)
                await programs.workflows.update_run_status(child, RunStatus.CANCELLED)
            assert await programs.status() == RunStatus.FAILED
            await programs.workflows.retry_run("r")

        async def third(opened: Run) -> None:
            opened.result = opened.id

        async def serve() -> None:
            await programs.until_status(RunStatus.PAUSED)
            async with programs.open_as_other("r/w#again-3") as opened:
                await third(opened)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            await execute(programs, lambda parent: parent.call("w"))
    assert await result(programs) == "r/w#again-3"
    async with programs.open() as again:
        assert await again.call("w") == "r/w#again-3"


async def test_a_started_child_that_was_cancelled_is_started_anew_from_its_step_on(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    for child in ("r/w", "r/w#again-2"):

        async def start(parent: Run) -> None:
            handle = await parent.start("w")
            assert handle.id == child  # noqa: B023
            raise bus.FailRun("it is not wanted so")

        with pytest.raises(bus.FailRun):
            await execute(programs, start)
        await programs.workflows.update_run_status(child, RunStatus.CANCELLED)
        await programs.workflows.retry_run("r")
        with pytest.raises(bus.FailRun):
            await execute(programs, start)  # a plain retry keeps the step
        await programs.workflows.retry_run("r", "w")


async def test_a_parent_may_go_on_without_a_child_that_was_cancelled(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def body(parent: Run) -> Any:
        try:
            return await parent.call("w")
        except bus.RunCancelled as error:
            return [error.run_id, await parent.step("instead", Seen().double, 1)]

    async def parent() -> None:
        await execute(programs, body)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(parent)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.update_run_status("r/w", RunStatus.CANCELLED)
    assert await result(programs) == ["r/w", 2]
    async with programs.open() as again:
        assert await body(again) == ["r/w", 2]


async def test_a_call_that_somebody_else_ended_fails_its_parent_in_words(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def call() -> None:
        async with programs.open() as parent:
            await parent.call("w", name="ship")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        with anyio.fail_after(BOUND_SECONDS):
            while not (rows := await programs.rows()):
                await anyio.sleep(0.002)
        tasks.cancel_scope.cancel()
    [row] = rows
    await programs.workflows.update_step_status(row.id, StepStatus.FAILED, error="by hand")
    with pytest.raises(bus.RunFailed, match="by hand") as failed:
        await call()
    assert failed.value.run_id == "r/ship"


async def test_a_call_that_a_scope_ended_is_recorded(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def body(parent: Run) -> Any:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(parent.call, "w")
                await programs.until_status(RunStatus.PAUSED)
                scope.cancel()
        return await parent.step("after", Seen().double, 1)

    with anyio.fail_after(BOUND_SECONDS):
        await execute(programs, body)
    [row] = await programs.rows("w")
    assert (row.status, row.error) == (StepStatus.FAILED, LEFT)
    assert await programs.status("r/w") == RunStatus.PENDING, "the child goes its own way"


async def test_many_children_side_by_side(programs: Programs, workflow: WorkflowDefinition) -> None:
    results = dict[str, Any]()

    async def body(parent: Run) -> Any:
        async def one(name: str) -> None:
            results[name] = await parent.call("w", name, name=name)

        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(one, name)

    async def parent() -> None:
        await execute(programs, body)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(parent)
            await programs.until_status(RunStatus.PAUSED)
            for name in ("c", "b", "a"):
                async with programs.open_as_other(f"r/{name}") as child:
                    child.result = child.input.upper()
    assert results == {"a": "A", "b": "B", "c": "C"}


# ── Dying anywhere ───────────────────────────────────────────────────────────────────────────────────────

CALLS = 12
"""More than a run makes that starts a child and calls another one."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dies_at", range(1, CALLS + 1))
async def test_a_program_that_dies_anywhere_starts_each_child_once(
    programs: Programs, workflow: WorkflowDefinition, dies_at: int, after: bool
) -> None:
    async def body(parent: Run) -> Any:
        await parent.start("w", 1, name="started")
        return await parent.call("w", 2, name="called")

    async def answer() -> None:
        async def is_there() -> bool:
            return await programs.workflows.get_run("r/called") is not None

        await programs.until(is_there)
        async with programs.open_as_other("r/called") as child:
            child.result = child.input * 10

    await programs.workflows.create_run(run("r"))
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            try:
                await execute(programs, body, mortal(programs.workflows, dies_at, after=after))
            except bus.ClosedError:
                await programs.lapse(1000)
                await execute(programs, body)
    assert await result(programs) == 20
    assert {each.id for each in await programs.workflows.list_runs("w")} == {"r", "r/started", "r/called"}
    assert [row.status for row in await programs.rows()] == [StepStatus.COMPLETED] * 2
