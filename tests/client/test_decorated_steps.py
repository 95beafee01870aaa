"""Decorated steps: recorded in the block of a run, plain functions elsewhere."""

from __future__ import annotations

import threading
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, StepStatus, WorkflowDefinition
from bus.runs.decorating import Step
from bus.testing import Worker

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())
BOUND_SECONDS = 30

bot = bus.Bot("digester", "inproc://nowhere")


@dataclass
class Page:
    title: str
    size: int = 0


calls: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_was_called() -> None:
    calls.clear()


@bot.step()
async def fetch(url: str, *, depth: int = 1) -> Page:
    calls.append((url, depth))
    return Page(url.upper(), depth)


@bot.step(name="measure it", retry=bus.Retry(max_attempts=2, delay=0))
def measure(page: Page) -> tuple[str, bool]:
    calls.append(page)
    if calls.count(page) == 1:
        raise ValueError("too soon")
    return page.title, threading.current_thread() is threading.main_thread()


@bot.step()
async def both(url: str) -> list[Page]:
    return [await fetch(url), await fetch(url, depth=2)]


@bot.step()
async def hidden() -> Decimal:
    raise NotImplementedError


@bot.step(returns=dict[str, Page])
async def untyped():  # type: ignore[no-untyped-def]
    return {"a": {"title": "A"}}


async def test_outside_of_a_run_it_is_the_plain_function() -> None:
    page = await fetch("a", depth=3)
    assert page == Page("A", 3)
    calls.append(page)
    assert await measure(page) == ("A", False)
    assert (fetch.name, fetch.__doc__) == ("fetch", None)
    assert isinstance(fetch, Step)


async def test_in_a_run_it_is_recorded_with_the_type_of_its_output(worker: Worker) -> None:
    async def body() -> list[Any]:
        page = await fetch("a")
        title, in_main = await measure(page)
        again = await fetch(url="a", depth=2)
        return [page, title, in_main, again, await both("b"), await untyped()]

    async def leave_undone(opened: AbstractAsyncContextManager[bus.Run]) -> None:
        async with opened:
            assert await body() == expected
            raise bus.WorkerUnavailable("no answer")

    expected = [Page("A", 1), "A", False, Page("A", 2), [Page("B", 1), Page("B", 2)], {"a": Page("A")}]
    async with worker.connect(bot="digester") as connected:
        opened = connected.workflows.run
        with anyio.fail_after(BOUND_SECONDS):
            with pytest.raises(bus.WorkerUnavailable):
                await leave_undone(opened("digest", id="r", definition=DIGEST))
            before = list(calls)
            async with opened("digest", id="r"):
                assert await body() == expected
            assert calls == before
            async with opened("digest", id="r"):
                assert await body() == expected
        rows = await connected.workflows.list_step_logs("r")
    assert [(row.step_id, row.attempt, row.status, row.input) for row in rows] == [
        ("fetch", 1, StepStatus.COMPLETED, ["a"]),
        ("measure it", 1, StepStatus.FAILED, [{"title": "A", "size": 1}]),
        ("measure it", 2, StepStatus.COMPLETED, [{"title": "A", "size": 1}]),
        ("fetch#2", 1, StepStatus.COMPLETED, {"args": ["a"], "kwargs": {"depth": 2}}),
        ("both", 1, StepStatus.COMPLETED, ["b"]),
        ("untyped", 1, StepStatus.COMPLETED, None),
    ]


async def test_tasks_of_a_run_use_its_branches(worker: Worker) -> None:
    found: dict[str, Page] = {}

    async def look(run: bus.Run, url: str) -> None:
        found[url] = await fetch.on(run.branch(url))(url)

    async def in_another_task() -> None:
        errors: list[RuntimeError] = []

        async def call() -> None:
            try:
                await fetch("d")
            except RuntimeError as error:
                errors.append(error)

        async with anyio.create_task_group() as inner:
            inner.start_soon(call)
        raise errors[0]

    async with worker.connect(bot="digester") as connected:
        async with connected.workflows.run("digest", id="r", definition=DIGEST) as run:
            async with anyio.create_task_group() as inner:
                inner.start_soon(look, run, "a")
                inner.start_soon(look, run, "b")
            await fetch("c")
            with pytest.raises(RuntimeError, match="used by another task"):
                await in_another_task()
        assert sorted(await connected.workflows.get_completed_step_ids("r")) == ["a/fetch", "b/fetch", "fetch"]
    assert found == {"a": Page("A", 1), "b": Page("B", 1)}
    assert await fetch("e") == Page("E", 1), "the run is over"


async def test_a_type_that_is_not_known_is_refused_before_the_call(worker: Worker) -> None:
    wrongly: Any = fetch
    async with worker.connect(bot="digester") as connected:
        async with connected.workflows.run("digest", id="r", definition=DIGEST):
            with pytest.raises(TypeError, match="what step 'hidden' returns is not known"):
                await hidden()
            with pytest.raises(TypeError):
                await wrongly("a", "b")
        assert await connected.workflows.list_step_logs("r") == []
    with pytest.raises(TypeError, match="with parentheses"):
        bot.step()("fetch")  # type: ignore[call-overload]
