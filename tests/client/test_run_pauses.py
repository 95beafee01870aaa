"""Handlers whose run waits for a time, or was paused by a person: they keep no place from others."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

ORDER = WorkflowDefinition(id="order", name="order", owner=GlobalOwner())

BOUND_SECONDS = 30

LONG_SECONDS = 100_000.0


class Shop:
    """A bot that handles one message at a time: an order, which sleeps, or a greeting."""

    def __init__(self, bot: bus.Bot, seconds: float) -> None:
        self.bot = bot
        self.seconds = seconds
        self.greeted = anyio.Event()
        self.ended = anyio.Event()
        self.failure: Exception | None = None
        bot.on_message("order")(self.order)
        bot.on_message("greeting")(self.greet)

    async def order(self, message: bus.Message) -> None:
        try:
            async with self.bot.workflows.run("order", id="r", definition=ORDER, lease_seconds=0.3) as run:
                await run.sleep(self.seconds)
        except bus.RunCancelled as error:
            self.failure = error
        self.ended.set()

    async def greet(self, message: bus.Message) -> None:
        self.greeted.set()


async def test_a_handler_that_sleeps_lends_its_place_and_hears_that_its_run_was_cancelled(worker: Worker) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with worker.connect(bot="shop") as bot, worker.connect(bot="ann") as ann:
            shop = Shop(bot, LONG_SECONDS)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(bot.serve, concurrency=1))
                await ann.send("shop", 1, message_type="order")
                await ann.send("shop", 2, message_type="greeting")
                await shop.greeted.wait()
                await ann.workflows.update_run_status("r", RunStatus.CANCELLED, "by ann")
                await shop.ended.wait()
                bot.stop()
            assert isinstance(shop.failure, bus.RunCancelled)


async def test_a_handler_that_waits_for_a_paused_run_lends_its_place(worker: Worker) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with worker.connect(bot="shop") as bot, worker.connect(bot="ann") as ann:
            shop = Shop(bot, 0)
            try:
                async with bot.workflows.run("order", id="r", definition=ORDER):
                    raise bus.WorkerUnavailable("no answer")
            except bus.WorkerUnavailable:
                await ann.workflows.update_run_status("r", RunStatus.PAUSED, "paused by ann")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(bot.serve, concurrency=1))
                await ann.send("shop", 1, message_type="order")
                await ann.send("shop", 2, message_type="greeting")
                await shop.greeted.wait()
                assert not shop.ended.is_set()
                await ann.workflows.update_run_status("r", RunStatus.PENDING)
                await shop.ended.wait()
                bot.stop()
        async with worker.connect(bot="ann") as ann:
            run = await ann.workflows.get_run("r")
            assert run is not None
            assert run.status == RunStatus.COMPLETED
