"""Executing a run: functions that block are called in threads."""

from __future__ import annotations

import contextvars
import threading
from functools import partial
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import BOUND_SECONDS, Programs

pytestmark = pytest.mark.anyio

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


class Blocking:
    """A function that blocks its thread until it is let go."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._let_go = threading.Event()

    def __call__(self) -> bool:
        self._begun.set()
        return self._let_go.wait(BOUND_SECONDS)

    async def begun(self) -> None:
        await anyio.to_thread.run_sync(self._begun.wait, BOUND_SECONDS)

    def let_go(self) -> None:
        self._let_go.set()


async def test_a_blocking_function_stops_nothing_else(programs: Programs, workflow: WorkflowDefinition) -> None:
    blocking = Blocking()

    async def let_go() -> None:
        await blocking.begun()
        blocking.let_go()

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open() as run, anyio.create_task_group() as tasks:
            tasks.start_soon(let_go)
            assert await run.step("s", blocking) is True


async def test_a_blocking_function_sees_the_context(programs: Programs, workflow: WorkflowDefinition) -> None:
    variable.set("here")
    async with programs.open() as run:
        assert await run.step("s", variable.get) == "here"


async def test_a_blocking_function_is_abandoned_when_it_is_cancelled(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    blocking = Blocking()

    async def cancel(run: Run) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.step, "s", blocking)
            await blocking.begun()
            tasks.cancel_scope.cancel()

    try:
        with anyio.fail_after(BOUND_SECONDS):
            await programs.leave_undone(cancel)
            async with programs.open() as run:
                assert await run.step("s", lambda: 2) == 2, "what the abandoned one returns is ignored"
    finally:
        blocking.let_go()


async def test_asynchronous_functions_are_called_in_the_loop(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def function(*_: Any) -> int:
        return threading.get_ident()

    class Callable:
        async def __call__(self) -> int:
            return threading.get_ident()

    here = threading.get_ident()
    functions: list[Any] = [function, partial(function, 1), Callable(), partial(Callable())]
    async with programs.open() as run:
        for number, each in enumerate(functions):
            assert await run.step(f"{number}", each) == here
        assert await run.step("blocking", threading.get_ident) != here
        assert await run.step("gives an awaitable", lambda: function()) == here


async def test_threads_are_bounded(programs: Programs, workflow: WorkflowDefinition) -> None:
    first, second = Blocking(), Blocking()
    bus.step_threads().total_tokens = 1
    try:
        with anyio.fail_after(BOUND_SECONDS):
            async with programs.open() as run, anyio.create_task_group() as tasks:
                tasks.start_soon(run.step, "first", first)
                await first.begun()
                tasks.start_soon(run.step, "second", second)

                async def waits() -> bool:
                    return bus.step_threads().statistics().tasks_waiting == 1

                await programs.until(waits)
                first.let_go()
                await second.begun()
                second.let_go()
    finally:
        bus.step_threads().total_tokens = 40
        first.let_go()
        second.let_go()
