"""Subscriptions to patterns from an author's side, on every backend that the client runs on."""

from __future__ import annotations

import anyio
import pytest

import bus
from bus.testing import Worker

from .test_bot import bodies

pytestmark = pytest.mark.anyio


async def test_a_bot_receives_channels_that_come_later(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve, worker.connect(bot="ann") as ann:
        assert await ann.subscribe("orders.*") == 0
        await eve.publish("orders.new", 1)
        await eve.publish("orders.new.eu", 2)
        await eve.publish("orders.old", 3)
        assert await bodies(ann, 2) == [1, 3]
        [pattern] = await ann.patterns()
        assert (pattern.bot, pattern.pattern, pattern.channels, pattern.group) == ("ann", "orders.*", 2, None)
        assert [each.pattern for each in await ann.subscriptions()] == ["orders.*", "orders.*"]
        assert await ann.unsubscribe("orders.*")
        assert (await ann.patterns(), await ann.subscriptions()) == ([], [])


async def test_a_channels_own_handler_comes_before_those_of_patterns(worker: Worker) -> None:
    handled: list[tuple[str, str | None]] = []
    done = anyio.Event()
    bot = worker.connect(bot="clerk")

    def note(name: str, message: bus.Message) -> None:
        handled.append((name, message.channel))
        if len(handled) == 5:
            done.set()

    @bot.on_channel("orders.new")
    async def on_new(message: bus.Message) -> None:
        note("new", message)

    @bot.on_channel("orders.*", "alarm")
    async def on_alarm(message: bus.Message) -> None:
        note("alarm", message)

    @bot.on_channel("orders.*")
    async def on_order(message: bus.Message) -> None:
        note("order", message)

    @bot.on_channel("**")
    async def on_rest(message: bus.Message) -> None:
        note("rest", message)

    async with anyio.create_task_group() as tasks, bot, worker.connect(bot="eve") as eve:
        await tasks.start(bot.serve)
        await eve.publish("orders.new", 1, message_type="alarm")
        await eve.publish("orders.old", 2, message_type="alarm")
        await eve.publish("orders.old", 3)
        await eve.publish("orders.old.eu", 4)
        await eve.publish("news", 5)
        with anyio.fail_after(30):
            await done.wait()
        tasks.cancel_scope.cancel()
    assert sorted(handled, key=str) == [
        ("alarm", "orders.old"),
        ("new", "orders.new"),
        ("order", "orders.old"),
        ("rest", "news"),
        ("rest", "orders.old.eu"),
    ]
