"""Executing a run: the names of steps, and which task may use them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus.model.records import StepStatus, WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Programs, Seen

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


async def test_a_loop_finds_its_steps_again(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()

    async def three(run: Run) -> None:
        for number in range(3):
            await run.step("page", seen.double, number)

    await programs.leave_undone(three)
    async with programs.open() as run:
        assert [await run.step("page", seen.double, number) for number in range(5)] == [0, 2, 4, 6, 8]
    assert set(seen.calls.values()) == {1}
    assert [row.step_id for row in await programs.rows()] == ["page", "page#2", "page#3", "page#4", "page#5"]


async def test_steps_side_by_side_have_names_of_their_own(programs: Programs, workflow: WorkflowDefinition) -> None:
    seen = Seen()
    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open() as run:
            async with anyio.create_task_group() as tasks:
                for number in range(5):
                    tasks.start_soon(run.step, f"s{number}", seen.double, number)
            with pytest.raises(ValueError, match="without '#'"):
                await run.step("same#2", seen.double, 1)
    assert {row.status for row in await programs.rows()} == {StepStatus.COMPLETED}


@pytest.mark.parametrize("overlap", [True, False])
async def test_a_name_of_another_task_is_refused_at_once(
    programs: Programs, workflow: WorkflowDefinition, overlap: bool
) -> None:
    began, ended, leave = anyio.Event(), anyio.Event(), anyio.Event()

    async def fetch() -> None:
        began.set()
        if overlap:
            await leave.wait()

    async def first(run: Run) -> None:
        await run.step("fetch", fetch)
        ended.set()

    async def second(run: Run, refused: list[str]) -> None:
        await (began if overlap else ended).wait()
        for call in (run.step, run.approval, run.sleep, run.commit):
            try:
                call("fetch", *([fetch] if call == run.step else [1] if call == run.sleep else []))
            except RuntimeError as error:
                refused.append(str(error))
        leave.set()

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open() as run, anyio.create_task_group() as tasks:
            refused = list[str]()
            tasks.start_soon(first, run)
            tasks.start_soon(second, run, refused)
    assert len(refused) == 4
    assert all("'fetch' was used by another task" in each for each in refused)
    assert [row.step_id for row in await programs.rows()] == ["fetch"]


async def test_a_branch_has_names_of_its_own(programs: Programs, workflow: WorkflowDefinition) -> None:
    """Whatever the order in which two branches go on, each finds its own records."""

    async def branch(run: Run, name: str, first: bool, met: anyio.Event) -> tuple[Any, Any]:
        if not first:
            await met.wait()
        one = await run.step("fetch", lambda: f"{name} one")
        two = await run.branch("deeper").step("fetch", lambda: f"{name} two")
        met.set()
        return one, two

    async def both(run: Run, *, first: str) -> list[tuple[Any, Any]]:
        met, outputs = anyio.Event(), dict[str, Any]()

        async def keep(name: str) -> None:
            outputs[name] = await branch(run.branch(name), name, name == first, met)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep, "a")
            tasks.start_soon(keep, "b")
        return [outputs["a"], outputs["b"]]

    expected = [("a one", "a two"), ("b one", "b two")]
    with anyio.fail_after(BOUND_SECONDS):
        await programs.leave_undone(lambda run: both(run, first="a"))
        async with programs.open() as run:
            assert await both(run, first="b") == expected
            assert run.branch("c").id == run.id
            with pytest.raises(ValueError, match="without '#'"):
                run.branch("#")
    ids = {row.step_id for row in await programs.rows()}
    assert ids == {"a/fetch", "b/fetch", "a/deeper/fetch", "b/deeper/fetch"}


async def test_calls_of_one_task_are_numbered_in_their_order(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    """As with `gather`: the calls are made in one task, and awaited in others."""

    async def three(run: Run, order: list[int]) -> dict[int, Any]:
        outputs = dict[int, Any]()
        calls = [run.step("fetch", Seen().double, number) for number in range(3)]

        async def keep(number: int) -> None:
            outputs[number] = await calls[number]

        async with anyio.create_task_group() as tasks:
            for number in order:
                tasks.start_soon(keep, number)
        return outputs

    expected = {0: 0, 1: 2, 2: 4}
    with anyio.fail_after(BOUND_SECONDS):
        await programs.leave_undone(lambda run: three(run, [2, 0, 1]))
        async with programs.open() as run:
            assert await three(run, [1, 2, 0]) == expected
    assert {row.step_id: row.output for row in await programs.rows()} == {"fetch": 0, "fetch#2": 2, "fetch#3": 4}
