"""A bot as an application: dispatch, settling, how many at once, and how it stops."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

from .test_bot import bodies

pytestmark = pytest.mark.anyio

Seen = list[tuple[str, object]]

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())


@asynccontextmanager
async def serving(bot: bus.Bot, **options: Any) -> AsyncIterator[None]:
    """Serve around a block, and stop in order after it."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:

            async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                await bot.serve(task_status=task_status, **options)

            await tasks.start(serve)
            yield
            bot.stop()


class Handled:
    """What handlers saw; a test waits for it instead of sleeping."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self._changed = anyio.Event()

    def note(self, name: str, value: object) -> None:
        self.seen.append((name, value))
        self._changed.set()

    async def wait_for(self, count: int) -> None:
        with anyio.fail_after(30):
            while len(self.seen) < count:
                self._changed = anyio.Event()
                await self._changed.wait()


async def test_the_most_specific_handler_gets_it(worker: Worker) -> None:
    bot, handled = worker.connect(bot="writer"), Handled()

    @bot.on_message("question")
    async def question(message: bus.Message) -> None:
        handled.note("question", message.body)

    @bot.on_message()
    async def direct(message: bus.Message) -> None:
        handled.note("direct", message.body)

    @bot.on_channel("news")
    async def news(message: bus.Message) -> None:
        handled.note("news", message.body)

    @bot.on_channel("news", "alarm")
    async def alarm(message: bus.Message) -> None:
        handled.note("alarm", message.body)

    async with worker.connect(bot="a") as a, serving(bot, concurrency=1):
        await a.send("writer", 1, message_type="question")
        await a.send("writer", 2)
        await a.publish("news", 3, message_type="alarm")
        await a.publish("news", 4, message_type="question")
        await handled.wait_for(4)
    assert handled.seen == [("question", 1), ("direct", 2), ("alarm", 3), ("news", 4)]
    async with worker.connect(bot="writer") as again:
        assert (await again.bots())[1]["backlog"] == 0


async def test_what_is_returned_is_a_reply(worker: Worker) -> None:
    bot, handled = worker.connect(bot="twice"), Handled()

    @bot.on_message()
    async def direct(message: bus.Message) -> Any:
        return message.body * 2

    @bot.on_channel("numbers")
    async def numbers(message: bus.Message) -> Any:
        return message.body * 3

    @bot.on_message("quiet")
    async def quiet(message: bus.Message) -> None:
        handled.note("quiet", message.body)

    async with worker.connect(bot="a") as a, serving(bot):
        assert (await a.request("twice", 0)).body == 0, "only None is no reply"
        assert (await a.request("twice", 21)).body == 42
        published = await a.publish("numbers", 5)
        reply = await a.receive()
        assert (reply.body, reply.reply_to, reply.channel) == (15, published.id, None)
        await reply.ack()
        await a.send("twice", "hush", message_type="quiet")
        await handled.wait_for(1)
        assert a.receive_nowait() is None


async def test_subscribing_at_the_start_with_a_past(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await a.send_all([bus.Draft(channel="news", body=number) for number in range(3)])
    bot, handled = worker.connect(bot="reader"), Handled()

    @bot.on_channel("news", start="all", echo=True)
    async def news(message: bus.Message) -> None:
        handled.note("news", message.body)

    async with serving(bot, concurrency=1):
        await bot.publish("news", 3)
        await handled.wait_for(4)
    assert handled.seen == [("news", number) for number in range(4)]


async def test_a_handler_that_raises_gives_the_message_back(
    impatient_worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    bot, handled = impatient_worker.connect(bot="clumsy"), Handled()

    @bot.on_message()
    async def direct(message: bus.Message) -> None:
        handled.note("attempt", message.attempt)
        if message.attempt == 1:
            raise RuntimeError("dropped it")

    @bot.on_message("unsayable")
    async def unsayable(message: bus.Message) -> object:
        handled.note("unsayable", message.attempt)
        return object() if message.attempt == 1 else None

    async with impatient_worker.connect(bot="a") as a:
        with caplog.at_level(logging.ERROR, "posthouse.client"):
            async with serving(bot):
                await a.send("clumsy", "vase")
                await handled.wait_for(2)
        [record] = caplog.records
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "dropped it"
        assert await a.dead_letters(bot="clumsy") == []
        async with serving(bot := _again(bot, impatient_worker)):
            await a.send("clumsy", "vase", message_type="unsayable")
            await handled.wait_for(4)
    assert handled.seen == [("attempt", 1), ("attempt", 2), ("unsayable", 1), ("unsayable", 2)]


async def test_a_run_that_has_ended_is_not_tried_again(
    impatient_worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    bot, handled, long = impatient_worker.connect(bot="digester"), Handled(), "no such\npage " * 200

    @bot.on_message("fails")
    async def fails(message: bus.Message) -> None:
        handled.note("fails", message.attempt)
        async with bot.workflows.run("digest", id=message.id, definition=DIGEST):
            raise bus.FailRun(long)

    @bot.on_message("is cancelled")
    async def is_cancelled(message: bus.Message) -> None:
        handled.note("is cancelled", message.attempt)
        async with bot.workflows.run("digest", id=message.id, definition=DIGEST) as run:
            await bot.workflows.update_run_status(run.id, RunStatus.CANCELLED, "by hand")
            await run.save_context()

    async with impatient_worker.connect(bot="a") as a:
        with caplog.at_level(logging.WARNING, "posthouse.client"):
            async with serving(bot):
                dead: dict[str, str] = {}
                for message_type in ("fails", "is cancelled"):
                    sent = await a.send("digester", 1, message_type=message_type)
                    while sent.id not in dead:  # it is on disk with one of the next batches
                        await anyio.sleep(0.01)
                        rows = await a.dead_letters(bot="digester")
                        dead |= {row["message"]["id"]: row["reason"] for row in rows}
                await bot.status()
    assert handled.seen == [("fails", 1), ("fails", 2), ("is cancelled", 1)]
    failed, cancelled = dead.values()
    assert re.fullmatch(
        r"run '\S+' failed before \('posthouse retry \S+' lets it go on\): FailRun: no such\npage [^…]*…", failed
    )
    assert len(failed) == 1024, "the longest reason"
    assert re.fullmatch(r"run '\S+' was cancelled", cancelled)
    assert [(record.levelname, record.exc_info is not None) for record in caplog.records] == [
        ("ERROR", True),
        ("WARNING", False),
        ("WARNING", False),
    ]
    assert "\n" not in caplog.records[1].getMessage()


def _again(bot: bus.Bot, worker: Worker) -> bus.Bot:
    """Give a bot with the same handlers; one context is entered once."""
    other = worker.connect(bot=bot.name)
    other._application.share(bot._application)
    return other


async def test_what_nobody_handles_is_a_dead_letter_that_says_so(worker: Worker) -> None:
    bot = worker.connect(bot="writer")

    @bot.on_message("question")
    async def question(message: bus.Message) -> str:
        return "an answer"

    async with worker.connect(bot="writer") as before:
        await before.subscribe("old")
    async with worker.connect(bot="a") as a, serving(bot, concurrency=1):
        await a.send("writer", 1, message_type="riddle")
        await a.publish("old", 2)
        assert (await a.request("writer", 3, message_type="question")).body == "an answer"
        dead_letters: list[bus.ListedDeadLetter] = []
        while len(dead_letters) < 2:  # a settle that nobody waits for is on disk with one of the next batches
            await anyio.sleep(0.01)
            dead_letters = await a.dead_letters(bot="writer")
        assert [(dead["message"]["body"], dead["reason"]) for dead in dead_letters] == [
            (2, "no handler for message_type 'message' on channel 'old'"),
            (1, "no handler for message_type 'riddle'"),
        ]


async def test_never_more_handlers_than_that_at_once(worker: Worker) -> None:
    bot, handled, go = worker.connect(bot="busy", max_in_flight=100), Handled(), anyio.Event()
    running = most = 0

    @bot.on_message()
    async def direct(message: bus.Message) -> None:
        nonlocal running, most
        await message.ack(confirm=True)  # the credit is free again, and the handler is not
        running += 1
        most = max(most, running)
        handled.note("began", message.body)
        await go.wait()
        running -= 1

    async with worker.connect(bot="a") as a:
        async with worker.connect(bot="busy", max_in_flight=0):
            await a.send_all([bus.Draft(to="busy", body=number) for number in range(10)])
        async with serving(bot, concurrency=3):
            await handled.wait_for(3)
            await bot.status()  # whatever was delivered before it is here now
            assert (running, len(handled.seen)) == (3, 3)
            go.set()
            await handled.wait_for(10)
    assert most == 3
    assert sorted(handled.seen, key=str) == [("began", number) for number in range(10)]


async def test_stopping_lets_handlers_finish_and_takes_nothing_new(worker: Worker) -> None:
    bot, handled, go = worker.connect(bot="busy"), Handled(), anyio.Event()

    @bot.on_message()
    async def direct(message: bus.Message) -> str:
        handled.note("began", message.body)
        await go.wait()
        return "done"

    async with worker.connect(bot="a") as a:
        async with anyio.create_task_group() as tasks:
            await tasks.start(_serve, bot, 1)
            first = await a.send("busy", 1)
            await a.send("busy", 2)
            await handled.wait_for(1)
            bot.stop()
            await a.status()
            go.set()
        reply = await a.receive()
        assert (reply.body, reply.reply_to) == ("done", first.id)
        assert handled.seen == [("began", 1)]
        [row] = [row for row in await a.bots() if row["name"] == "busy"]
        assert (row["online"], row["backlog"]) == (False, 1)
        async with worker.connect(bot="busy") as busy:
            left = await busy.receive()
            assert (left.body, left.attempt) == (2, 1), "what was not begun was not even delivered"


async def _serve(
    bot: bus.Bot, concurrency: int, stop_timeout: float = 20, *, task_status: anyio.abc.TaskStatus[None]
) -> None:
    with anyio.fail_after(30):
        await bot.serve(concurrency=concurrency, stop_timeout=stop_timeout, task_status=task_status)


async def test_cancelling_is_a_stop_too(worker: Worker) -> None:
    bot, handled, go = worker.connect(bot="busy"), Handled(), anyio.Event()
    outcome: list[bool] = []

    @bot.on_message()
    async def direct(message: bus.Message) -> str:
        handled.note("began", message.body)
        await go.wait()
        return "done"

    async def serve(*, task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await bot.serve()
        outcome.append(scope.cancelled_caught)

    async with worker.connect(bot="a") as a, worker.connect(bot="busy", max_in_flight=0):
        async with anyio.create_task_group() as tasks:
            scope = await tasks.start(serve)
            await a.send("busy", 1)
            await handled.wait_for(1)
            scope.cancel()
            await a.status()
            go.set()
        with anyio.fail_after(30):
            assert (await a.receive()).body == "done"
    assert outcome == [True]


@pytest.mark.parametrize("how", ["timeout", "again"])
async def test_a_handler_that_does_not_end_is_cancelled_without_a_failure(
    impatient_worker: Worker, how: str
) -> None:
    """Six times, and three failures would have made it a dead letter: none of these was one."""
    worker = impatient_worker
    async with worker.connect(bot="a") as a, worker.connect(bot="slow", max_in_flight=0):
        await a.send("slow", "work")
        for attempt in range(1, 7):
            bot, handled = worker.connect(bot="slow"), Handled()

            @bot.on_message()
            async def direct(message: bus.Message, handled: Handled = handled) -> None:
                handled.note("attempt", message.attempt)
                await anyio.sleep_forever()

            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    await tasks.start(_serve, bot, 1, 0 if how == "timeout" else 1000)
                    await handled.wait_for(1)
                    assert handled.seen == [("attempt", attempt)]
                    bot.stop()
                    if how == "again":
                        bot.stop()
        assert await a.dead_letters(bot="slow") == []


async def test_a_cancelled_context_says_goodbye(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await a.send("a", 0)
        async with anyio.create_task_group() as tasks:

            async def work(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                async with worker.connect(bot="b"):
                    task_status.started()
                    await anyio.sleep_forever()

            await tasks.start(work)
            tasks.cancel_scope.cancel()
        assert [row["online"] for row in await a.bots()] == [True, False]


async def test_serving_inside_a_context_leaves_the_bot_connected(worker: Worker) -> None:
    async with worker.connect(bot="a", max_in_flight=7) as a:
        handled = Handled()

        @a.on_message("task")
        async def task(message: bus.Message) -> None:
            handled.note("task", message.body)

        async with serving(a):
            with pytest.raises(RuntimeError, match="already serving"):
                await a.serve()
            await a.send("a", 1, message_type="task")
            await handled.wait_for(1)
        await a.send("a", 2)
        assert await bodies(a, 1) == [2]


async def test_a_service_survives_a_restart_of_the_worker(worker: Worker) -> None:
    bot = worker.connect(bot="twice")

    @bot.on_message()
    async def direct(message: bus.Message) -> Any:
        return message.body * 2

    async with worker.connect(bot="a") as a, serving(bot):
        assert (await a.request("twice", 1)).body == 2
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        assert (await a.request("twice", 2)).body == 4


async def test_nobody_to_serve_with(worker: Worker) -> None:
    worker.stop()
    bot = worker.connect(bot="a", wait=0.1)
    bot.stop()
    with pytest.raises(bus.WorkerUnavailable):
        await bot.serve()
    worker.start()


async def test_what_is_no_handler(worker: Worker) -> None:
    bot = worker.connect(bot="a")

    @bot.on_message()
    async def direct(message: bus.Message) -> None: ...

    with pytest.raises(ValueError, match="direct messages, any type"):
        bot.on_message()(direct)
    bot.on_channel("news")(direct)
    with pytest.raises(ValueError, match="different start"):
        bot.on_channel("news", "alarm", start="all")
    with pytest.raises(TypeError, match="async function"):
        bot.on_message("x")(lambda message: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="parentheses"):
        bot.on_message(direct)  # type: ignore[call-overload]
    for concurrency in (0, 1001):
        with pytest.raises(ValueError, match="1 to 1000"):
            await bot.serve(concurrency=concurrency)


async def test_bots_that_ask_each_other_in_their_only_handlers_go_on(worker: Worker) -> None:
    """Each question needs a handler at the other end, while that one's handler asks."""

    def asking(name: str, other: str) -> bus.Bot:
        bot = worker.connect(bot=name)

        @bot.on_message("start")
        async def start(message: bus.Message) -> object:
            reply = await bot.request(other, 3, message_type="count", timeout=30)
            return reply.body

        @bot.on_message("count")
        async def count(message: bus.Message) -> object:
            if message.body == 0:
                return [name]
            reply = await bot.request(other, message.body - 1, message_type="count", timeout=30)
            return [name, *reply.body]

        return bot

    async with worker.connect(bot="caller") as caller, anyio.create_task_group() as tasks:
        for name, other in (("ann", "bob"), ("bob", "ann")):
            await tasks.start(partial(asking(name, other).serve, concurrency=1))
        found: dict[str, object] = {}

        async def ask(name: str) -> None:
            found[name] = (await caller.request(name, None, message_type="start", timeout=30)).body

        with anyio.fail_after(30):
            async with anyio.create_task_group() as asks:
                asks.start_soon(ask, "ann")
                asks.start_soon(ask, "bob")
        assert found == {"ann": ["bob", "ann", "bob", "ann"], "bob": ["ann", "bob", "ann", "bob"]}
        tasks.cancel_scope.cancel()
