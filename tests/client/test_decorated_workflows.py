"""Decorated workflows: a function executes the runs, with a typed input, and its value is the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 30

# ── The application ──────────────────────────────────────────────────────────────────────────────────────

bot = bus.Bot("digester")


@dataclass
class Order:
    url: str
    copies: int = 1


@dataclass
class Receipt:
    title: str
    paid: bool


calls: list[str] = []


@bot.step()
async def fetch(url: str) -> str:
    calls.append(url)
    return f"about {url}"


@bot.workflow("digest", definition=WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner()))
async def digest(run: bus.Run, order: Order) -> Receipt:
    title = await fetch(order.url)
    await run.approval("pay")
    return Receipt(title * order.copies, paid=True)


@bot.workflow("plain", definition=WorkflowDefinition(id="plain", name="plain", owner=GlobalOwner()))
async def plain(run: bus.Run, input: Any) -> Any:
    return [input, run.id]


# ── The tests ────────────────────────────────────────────────────────────────────────────────────────────


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Wait until something is so, and return it."""
    while True:
        if found := await condition():
            return found
        await anyio.sleep(0.01)


async def until_waiting(asker: bus.Bot, run_id: str) -> bus.WorkflowStepLog:
    """Wait until a run asks, and return the question."""
    [row] = await until(lambda: asker.workflows.list_waiting_approvals(run_id))
    return cast("bus.WorkflowStepLog", row)


async def test_it_is_started_from_anywhere_and_returns_the_result(worker: Worker) -> None:
    calls.clear()
    async with worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.serve(bot):
                handle = await asker.workflows.start("digest", {"url": "a", "copies": 2})
                await until_waiting(asker, handle.id)
            async with worker.serve(bot):  # the program is started again, and goes on
                row = await until_waiting(asker, handle.id)
                await asker.workflows.update_step_status(row.id, bus.StepStatus.COMPLETED, {"approved": True})
                assert await handle.result() == {"title": "about aabout a", "paid": True}
                other = await asker.workflows.start("plain", [1, None])
                assert await other.result() == [[1, None], other.id]
        assert calls == ["a"]


async def test_an_input_of_another_type_pauses_the_run(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.serve(bot):
                handle = await asker.workflows.start("digest", {"uri": "a"})
                await until(lambda: asker.workflows.list_all_runs(RunStatus.PAUSED))
            assert "cannot be read as Order" in ((await handle.run()).error or "")


async def test_a_program_takes_a_run_and_its_input() -> None:
    with pytest.raises(TypeError, match="an async function that takes a run and its input"):
        bot.workflow("other")(lambda run, input: None)  # type: ignore[type-var]

    async def one(run: bus.Run) -> None: ...

    with pytest.raises(TypeError, match="an async function that takes a run and its input"):
        bot.workflow("other")(one)  # type: ignore[type-var]
