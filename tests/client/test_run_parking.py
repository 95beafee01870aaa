"""A handler whose runs only wait holds neither credit nor a place: other messages of its bot flow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, StepStatus, WorkflowDefinition
from bus.testing import Worker
from tests.contract.executing import Seen

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

ORDER = WorkflowDefinition(id="order", name="order", owner=GlobalOwner())

ONE_BY_ONE = WorkflowDefinition(id="slow", name="slow", owner=GlobalOwner(), concurrency=1)


async def until(condition: Any) -> None:
    """Wait until something is so."""
    while True:
        if condition():
            return
        await anyio.sleep(0.01)


def parked(bot: bus.Bot) -> int:
    """Return how many messages a bot has parked."""
    return len(bot._connection.deliveries.parked)


@asynccontextmanager
async def serving(bot: bus.Bot, concurrency: int = 2) -> AsyncIterator[None]:
    """Let a bot serve."""
    bot.workflows._backstop_seconds = 3000.0
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: bot.serve(concurrency=concurrency, task_status=task_status))
        yield
        bot.stop()


async def test_runs_that_wait_leave_the_bot_to_its_other_messages(worker: Worker) -> None:
    waiting = 40
    seen = Seen()
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:

        @shop.on_message("order")
        async def order(message: bus.Message) -> None:
            async with shop.workflows.run("order", id=message.id, definition=ORDER) as run:
                answer = await run.approval("buy")
            seen.note(("bought", answer["by"]))

        @shop.on_message("ping")
        async def ping(message: bus.Message) -> str:
            return "pong"

        with anyio.fail_after(BOUND_SECONDS):
            async with serving(shop):
                sent = [await ann.send("shop", number, message_type="order") for number in range(waiting)]
                await until(lambda: parked(shop) == waiting)
                assert (await ann.request("shop", None, message_type="ping")).body == "pong"
                for receipt in sent:
                    body = {"run_id": receipt.id, "step": "buy"}
                    await ann.send("shop", body, message_type="workflow.approve")
                await seen.wait_for(("bought", "ann"), waiting)
                await until(lambda: not shop._connection.deliveries.held)
                assert parked(shop) == 0
        [row] = [bot for bot in await ann.bots() if bot["name"] == "shop"]
        assert (row["backlog"], await ann.dead_letters(bot="shop")) == (0, [])


@pytest.mark.parametrize("wait", ["sleep", "slot"])
async def test_a_time_and_a_slot_are_waited_for_in_the_same_way(worker: Worker, wait: str) -> None:
    leave = anyio.Event()
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:

        @shop.on_message()
        async def work(message: bus.Message) -> None:
            definition = ORDER if wait == "sleep" else ONE_BY_ONE
            async with shop.workflows.run(
                definition.name, id=message.id, definition=definition, timeout=None
            ) as run:
                if wait == "sleep":
                    await run.sleep(3000)
                await leave.wait()

        with anyio.fail_after(BOUND_SECONDS):
            async with serving(shop):
                for number in range(10):
                    await ann.send("shop", number)
                await until(lambda: parked(shop) == (10 if wait == "sleep" else 9))
                if wait == "slot":
                    leave.set()
                    await until(lambda: not shop._connection.deliveries.held)
                else:
                    shop.stop()
                    shop.stop()


async def test_a_run_that_goes_on_has_its_message_in_flight_again(worker: Worker) -> None:
    seen, leave = Seen(), anyio.Event()
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:

        @shop.on_message()
        async def order(message: bus.Message) -> None:
            async with shop.workflows.run("order", id=message.id, definition=ORDER) as run:
                await run.approval("buy")
                seen.note("goes on")
                await leave.wait()

        with anyio.fail_after(BOUND_SECONDS):
            async with serving(shop):
                sent = await ann.send("shop", None)
                await until(lambda: parked(shop) == 1)
                [row] = await ann.workflows.list_waiting_approvals(sent.id)
                await ann.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
                await seen.wait_for("goes on")
                assert parked(shop) == 0
                assert len(shop._connection.deliveries.held) == 1
                leave.set()
                await until(lambda: not shop._connection.deliveries.held)


async def test_a_message_is_not_parked_while_another_run_of_its_handler_is_held(worker: Worker) -> None:
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:

        @shop.on_message()
        async def order(message: bus.Message) -> None:
            async with (
                shop.workflows.run("order", id=f"{message.id}-outer", definition=ORDER),
                shop.workflows.run("order", id=message.id, definition=ORDER) as run,
            ):
                await run.approval("buy")

        with anyio.fail_after(BOUND_SECONDS):
            async with serving(shop):
                sent = await ann.send("shop", None)
                while not await ann.workflows.list_waiting_approvals(sent.id):
                    await anyio.sleep(0.002)
                for _ in range(10):
                    await ann.status()
                    assert parked(shop) == 0
                [row] = await ann.workflows.list_waiting_approvals(sent.id)
                await ann.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
                await until(lambda: not shop._connection.deliveries.held)


async def test_parked_messages_outlive_the_worker(worker: Worker) -> None:
    seen = Seen()
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:

        @shop.on_message()
        async def order(message: bus.Message) -> None:
            seen.note(("opened", message.attempt))
            async with shop.workflows.run("order", id=message.id, definition=ORDER) as run:
                await run.approval("buy")
            seen.note("bought")

        with anyio.fail_after(BOUND_SECONDS):
            async with serving(shop):
                for number in range(5):
                    await ann.send("shop", number)
                await until(lambda: parked(shop) == 5)
                await anyio.to_thread.run_sync(worker.stop)
                await anyio.to_thread.run_sync(worker.start)
                for row in await ann.workflows.list_waiting_approvals():
                    await ann.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
                await seen.wait_for("bought", 5)
                await until(lambda: not shop._connection.deliveries.held)
        assert seen.calls == {("opened", 1): 5, "bought": 5}


async def test_a_worker_that_does_not_park_is_not_asked_to(worker: Worker) -> None:
    async with worker.connect(bot="shop") as shop, worker.connect(bot="ann") as ann:
        welcome = shop._connection.welcome
        assert welcome is not None
        object.__setattr__(shop._connection, "welcome", None)
        await ann.send("shop", None)
        message = await shop.receive()
        assert not shop._inbox.park(message)
        shop._connection.welcome = welcome
        assert shop._inbox.park(message)
        shop._inbox.unpark(message)
        await message.ack()
