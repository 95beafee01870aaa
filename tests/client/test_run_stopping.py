"""A bot that stops while its handlers wait in runs: they are let go at once, and their runs and messages kept."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.abc
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker
from tests.contract.executing import Seen

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

ORDER = WorkflowDefinition(id="order", name="order", owner=GlobalOwner())

ONE_BY_ONE = WorkflowDefinition(id="slow", name="slow", owner=GlobalOwner(), concurrency=1)


@asynccontextmanager
async def serving(bot: bus.Bot) -> AsyncIterator[None]:
    """Let a bot serve, and stop it; its handlers have all the time that they need."""

    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        await bot.serve(stop_timeout=math.inf, task_status=task_status)

    async with anyio.create_task_group() as tasks:
        await tasks.start(serve)
        yield
        bot.stop()


async def test_a_handler_that_waits_in_its_run_is_let_go(worker: Worker) -> None:
    seen = Seen()
    async with worker.connect(bot="ann") as ann:
        handle = await ann.workflows.start("order", id="later", definition=ORDER)
        for start in range(2):
            async with worker.connect(bot="shop") as shop:

                @shop.on_message("order")
                async def order(message: bus.Message, start: int = start) -> str:
                    async with shop.workflows.run("order", id=message.id, definition=ORDER) as run:
                        seen.note(("asked", start))
                        await run.wait("paid")
                    return "sent"

                @shop.on_run("order")
                async def later(run: bus.Run, start: int = start) -> str:
                    seen.note((run.id, start))
                    return (await run.wait("paid")).name

                with anyio.fail_after(BOUND_SECONDS):
                    async with serving(shop):
                        if start == 0:
                            sent = await ann.send("shop", 1, message_type="order")
                            shop_runs = [ann.workflows.handle(id) for id in (sent.id, "later")]
                        await seen.wait_for(("asked", start))
                        await seen.wait_for(("later", start))
                        for each in shop_runs:
                            await until(partial(rests, each))
                        if start == 1:
                            for each in shop_runs:
                                await each.signal("paid")
                            assert await handle.result() == "paid"
                            assert (await ann.receive()).body == "sent"
                for each in shop_runs:
                    expected = RunStatus.PAUSED if start == 0 else RunStatus.COMPLETED
                    assert await each.status() is expected


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    while True:
        if await condition():
            return
        await anyio.sleep(0.01)


async def rests(handle: bus.RunHandle) -> bool:
    return await handle.status() is RunStatus.PAUSED


async def queues(bot: bus.Bot) -> bool:
    return (await bot.workflows.list_all_runs(RunStatus.PENDING))[0].queued_at is not None


async def test_a_handler_that_comes_to_wait_after_the_stop_is_let_go_then(worker: Worker) -> None:
    seen, goes_on = Seen(), anyio.Event()
    async with worker.connect(bot="shop") as shop:

        @shop.on_run("order", definition=ORDER)
        async def order(run: bus.Run) -> None:
            seen.note("begun")
            await goes_on.wait()
            await run.step("pack", seen.double, 2)
            await run.wait("paid")

        handle = await shop.workflows.start("order", id="r", definition=ORDER)
        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(shop.serve, stop_timeout=math.inf))
                await seen.wait_for("begun")
                shop.stop()
                goes_on.set()
        assert (seen.calls[2], await handle.status()) == (1, RunStatus.PAUSED)


async def test_a_run_that_waits_for_a_slot_gives_up_its_place(worker: Worker) -> None:
    seen = Seen()
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:

        @shop.on_run("slow", definition=ONE_BY_ONE)
        async def slow(run: bus.Run) -> None:
            seen.note("begun")

        with anyio.fail_after(BOUND_SECONDS):
            async with ann.workflows.run("slow", id="first", definition=ONE_BY_ONE):
                async with serving(shop):
                    handle = await ann.workflows.start("slow", id="second")
                    await until(partial(queues, ann))
                assert not seen.calls
                assert await handle.status() is RunStatus.PENDING
