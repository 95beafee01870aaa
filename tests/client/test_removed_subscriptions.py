"""What a program is told when somebody else ends a subscription that it made."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.testing import Worker
from bus.wire.answers import ListedSubscription

from .fake_worker import FakeWorker
from .test_bot import bodies

pytestmark = pytest.mark.anyio


async def told(bot: bus.Bot) -> tuple[str, str | None]:
    with anyio.fail_after(60):
        with pytest.raises(bus.SubscriptionRemoved) as removed:
            await bot.receive()
    return removed.value.channel, removed.value.group


async def test_what_an_operator_removed_is_told_once(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        await a.subscribe("news")
        await a.subscribe("work", group="team")
        await a.subscribe("logs")
        await a.subscribe("eu.*")
        await operator.remove_subscription("a", "news")
        assert await told(a) == ("news", None)
        await operator.remove_group("work", "team", force=True)
        assert await told(a) == ("work", "team")
        await operator.remove_channel("logs", force=True)
        assert await told(a) == ("logs", None)
        await operator.remove_subscription("a", "eu.*")
        assert await told(a) == ("eu.*", None)
        await a.subscribe("news")
        await operator.publish("news", "again")
        assert await bodies(a, 1) == ["again"]


async def test_what_was_removed_while_nobody_could_be_told_is_told_in_the_next_session(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        await a.subscribe("news")
        await a.subscribe("logs")
        connection = a._caller.connection
        monkeypatch.setattr(connection.wakes, "hear", lambda hint: None)  # as if it had been lost
        await operator.remove_subscription("a", "news")
        await a.bots()  # the hint was sent before
        connection.reconnect()
        assert await told(a) == ("news", None)
        await operator.publish("logs", "still")
        assert await bodies(a, 1) == ["still"]


async def test_it_is_told_after_the_worker_was_killed_too(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await a.subscribe("news")
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        async with worker.connect(bot="operator") as operator:
            await operator.remove_subscription("a", "news")
        assert await told(a) == ("news", None)


async def test_a_channel_of_a_pattern_is_no_loss_and_own_ends_are_not_told(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        await a.subscribe("eu.*")
        await a.subscribe("news")
        await a.subscribe("last")
        await operator.publish("eu.paris", "one")
        assert await bodies(a, 1) == ["one"]
        await operator.remove_channel("eu.paris", force=True)
        await a.unsubscribe("news")
        await operator.publish("eu.paris", "two")
        assert await bodies(a, 1) == ["two"]
        await operator.remove_subscription("a", "last")
        assert await told(a) == ("last", None), "and of nothing before it"


async def test_who_takes_what_has_arrived_loses_nothing_by_it(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        await a.subscribe("news")
        for body in ("one", "two"):
            await operator.send("a", body)
        with anyio.fail_after(60):
            taken = [await a.receive()]
            await operator.remove_subscription("a", "news")
            while not a._inbox._removed:
                await anyio.sleep(0.01)
        while (message := a.receive_nowait()) is not None:
            taken.append(message)
        assert [message.body for message in taken] == ["one", "two"]
        assert await told(a) == ("news", None)


async def test_another_program_of_the_bot_that_unsubscribes_is_told_of(worker: Worker) -> None:
    async with worker.connect(bot="a") as one, worker.connect(bot="a") as two:
        await one.subscribe("news")
        await two.unsubscribe("news")
        assert await told(one) == ("news", None)


async def test_what_was_not_ended_because_that_was_refused_is_told_of_when_it_ends() -> None:
    with FakeWorker("inproc://refused-unsubscribe") as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(worker.welcome, follows_subscriptions=True))
            async with bus.connect(worker.url, bot="a", context=worker.context) as a:
                tasks.start_soon(a.subscribe, "news")
                answer(worker, await worker.receive("subscribe"), channel="news", start_seq=0, created=True)
                news = ListedSubscription("", "a", "news", "", start_seq=0, echo=False, group=None)
                answer(worker, await worker.receive("subscriptions"), subscriptions=[news])
                async with anyio.create_task_group() as ending:
                    for _ in range(2):
                        ending.start_soon(refused_to_end, a, "news")
                    requests = [(await worker.receive("unsubscribe"))["request"] for _ in range(2)]
                    for request in requests:
                        worker.send(op="error", request=request, code="storage_full", message="full", retry=True)
                answer(worker, await worker.receive("subscriptions"), subscriptions=[])
                assert await told(a) == ("news", None)
                tasks.start_soon(worker.farewell)


async def refused_to_end(bot: bus.Bot, channel: str) -> None:
    with pytest.raises(bus.StorageFull):
        await bot.unsubscribe(channel)


def answer(worker: FakeWorker, asked: dict[str, Any], **value: Any) -> None:
    worker.send(op="ok", request=asked["request"], value=value)


async def test_a_serving_bot_goes_on_with_its_other_handlers(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    handled, warned = anyio.Event(), anyio.Event()
    bot = worker.connect(bot="a")

    @bot.on_channel("news")
    async def news(message: bus.Message) -> None:
        raise AssertionError(message)

    @bot.on_channel("logs")
    async def logs(message: bus.Message) -> None:
        handled.set()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "'news' was removed" in record.getMessage():
                warned.set()

    logger, heard = logging.getLogger("posthouse.client"), Heard()
    logger.addHandler(heard)
    try:
        async with worker.connect(bot="operator") as operator, anyio.create_task_group() as tasks:
            await tasks.start(lambda *, task_status: bot.serve(task_status=task_status))
            await operator.remove_subscription("a", "news")
            with anyio.fail_after(60):
                await warned.wait()
                await operator.publish("news", 1)
                await operator.publish("logs", 2)
                await handled.wait()
            bot.stop()
    finally:
        logger.removeHandler(heard)


async def test_an_older_worker_is_asked_nothing(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        connection = a._caller.connection
        assert connection.welcome is not None
        connection.welcome = msgspec.structs.replace(connection.welcome, follows_subscriptions=False)
        await a.subscribe("news")
        await operator.remove_subscription("a", "news")
        await a.subscribe("news")
        await operator.publish("news", "one")
        assert await bodies(a, 1) == ["one"]


def test_the_error_says_what_to_do() -> None:
    removed = bus.SubscriptionRemoved("work", "team")
    assert isinstance(removed, bus.BusError)
    assert str(removed).startswith("the subscription to 'work' in the group 'team' was removed")
