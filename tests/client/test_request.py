"""Requests and replies, on every event loop."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
import uuid_utils

import bus
from bus.testing import Worker

from .test_bot import bodies

pytestmark = pytest.mark.anyio


async def answer(bot: bus.Bot) -> None:
    """Reply to everything with twice its number."""
    async for message in bot.messages():
        async with message:
            await message.reply(message.body * 2)


async def test_a_reply_comes_back(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker, worker.connect(bot="twice") as twice:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer, twice)
            reply = await asker.request("twice", 21)
            assert (reply.body, reply.sender, reply.settled) == (42, "twice", True)
            replies: dict[int, object] = {}

            async def ask(number: int) -> None:
                replies[number] = (await asker.request("twice", number)).body

            async with anyio.create_task_group() as asking:
                for number in range(50):
                    asking.start_soon(ask, number)
            assert replies == {number: number * 2 for number in range(50)}
            tasks.cancel_scope.cancel()
        assert asker.receive_nowait() is None
        history = await asker.history(between=("asker", "twice"), limit=2)
        assert [entry.sender_bot_name for entry in history] == ["twice", "asker"] or len(history) == 2


async def test_a_full_window_does_not_keep_a_reply_out(worker: Worker) -> None:
    async with (
        worker.connect(bot="busy", max_in_flight=1) as busy,
        worker.connect(bot="twice") as twice,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(answer, twice)
        await twice.send_all([bus.Draft(to="busy", body=f"work {number}") for number in range(3000)])
        with anyio.fail_after(30):
            work = await busy.receive()
            reply = await busy.request("twice", 4)
            assert reply.body == 8
            await work.ack()
        seen = await bodies(busy, 2999)
        assert seen == [f"work {number}" for number in range(1, 3000)]
        await busy.status()
        assert busy.receive_nowait() is None, "the reply does not come a second time, when it would be its turn"
        tasks.cancel_scope.cancel()


async def test_two_bots_that_ask_each_other_inside_their_handlers(worker: Worker) -> None:
    answers: dict[str, object] = {}

    async def handle(bot: bus.Bot, other: str) -> None:
        async for message in bot.messages():
            async with message:
                if message.message_type == "deep":
                    await message.reply("bottom")
                else:
                    reply = await bot.request(other, "?", message_type="deep")
                    answers[bot.name] = reply.body
                    await message.reply(reply.body)

    async def serve(bot: bus.Bot, other: str) -> None:
        async with anyio.create_task_group() as handlers:
            for _ in range(2):
                handlers.start_soon(handle, bot, other)

    async with (
        worker.connect(bot="a", max_in_flight=2) as a,
        worker.connect(bot="b", max_in_flight=2) as b,
        worker.connect(bot="c") as c,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(serve, a, "b")
        tasks.start_soon(serve, b, "a")
        async with anyio.create_task_group() as asking:
            asking.start_soon(c.request, "a", "?")
            asking.start_soon(c.request, "b", "?")
        assert answers == {"a": "bottom", "b": "bottom"}
        tasks.cancel_scope.cancel()


async def test_a_timeout_says_how_far_the_message_got(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        async with worker.connect(bot="deaf", max_in_flight=0):
            with pytest.raises(bus.ReplyTimeout, match="not yet delivered") as late:
                await asker.request("deaf", 1, timeout=0.3)
            assert late.value.state == "waiting"
        async with worker.connect(bot="deaf") as deaf:
            message = await deaf.receive()
            with pytest.raises(bus.ReplyTimeout, match="is in flight") as late:
                await asker.request("deaf", 2, timeout=0.3)
            assert late.value.state == "in_flight"
            await message.ack()
            second = await deaf.receive()
            await second.term("no", confirm=True)
            await second.reply("too late")
        [reply] = await bodies(asker, 1)
        assert reply == "too late", "a late reply is an ordinary message"
        with pytest.raises(bus.UnknownBot):
            await asker.request("nobody", 1)


async def test_a_reply_after_the_asker_restarted_is_an_ordinary_message(worker: Worker) -> None:
    async with worker.connect(bot="helper") as helper:
        async with worker.connect(bot="asker") as asker, anyio.create_task_group() as tasks:
            tasks.start_soon(asker.request, "helper", "?")
            question = await helper.receive()
            tasks.cancel_scope.cancel()
        await question.reply("here")
        await question.ack()
        async with worker.connect(bot="asker") as asker:
            assert await bodies(asker, 1) == ["here"]


@pytest.mark.parametrize("answered", [False, True], ids=["open", "answered"])
async def test_the_same_question_is_asked_once(worker: Worker, answered: bool) -> None:
    id = str(uuid_utils.uuid7())
    async with worker.connect(bot="helper") as helper, worker.connect(bot="other") as other:
        async with worker.connect(bot="asker", max_in_flight=0) as asker, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(asker.request, "helper", "?", id=id))
            question = await helper.receive()
            tasks.cancel_scope.cancel()
        if answered:
            await helper.send("other", "not for who asked", reply_to=question.id)
            await question.reply("first")
            await other.send("asker", "other mail", reply_to=str(uuid_utils.uuid7()))
            await question.reply("second")
        replies: list[object] = []

        async with worker.connect(bot="asker", max_in_flight=0) as asker:

            async def ask() -> None:
                replies.append((await asker.request("helper", "?", id=id)).body)

            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    if not answered:
                        await anyio.wait_all_tasks_blocked()
                        await question.reply("first")
                assert (await asker.request("helper", "?", id=id)).body == "first", "once more, and long settled"
            assert replies == ["first"]
            await asker.set_credit(10)
            await question.ack()
            await other.send("asker", "end")
            mail = await bodies(asker, 3 if answered else 1)
            assert mail == (["other mail", "second", "end"] if answered else ["end"])
        await other.send("helper", "end")
        assert await bodies(helper, 1) == ["end"], "the question came once"


async def test_a_question_is_waited_for_once_at_a_time(worker: Worker) -> None:
    id = str(uuid_utils.uuid7())
    async with (
        worker.connect(bot="helper") as helper,
        worker.connect(bot="asker") as asker,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(partial(asker.request, "helper", "?", id=id))
        question = await helper.receive()
        with pytest.raises(RuntimeError, match="is already waiting for its reply"):
            await asker.request("helper", "?", id=id)
        await question.reply("here")
        await question.ack()


async def test_a_request_survives_a_restart_of_the_worker(worker: Worker) -> None:
    async with worker.connect(bot="helper") as helper, worker.connect(bot="asker") as asker:
        replies: list[object] = []

        async def ask() -> None:
            replies.append((await asker.request("helper", "?")).body)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            question = await helper.receive()
            await anyio.to_thread.run_sync(worker.kill)
            await anyio.to_thread.run_sync(worker.start)
            await question.reply("still here")
            await question.ack()
        assert replies == ["still here"]
        assert asker.receive_nowait() is None


async def test_what_expired_is_not_delivered(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        async with worker.connect(bot="b"):
            pass
        short = await a.send("b", "short", ttl=0.05)
        long = await a.send("b", "long", ttl=3600)
        assert (await a.find(long.id))["mailboxes"][0]["state"] == "waiting"
        with anyio.fail_after(30):
            while (state := (await a.find(short.id))["mailboxes"][0]["state"]) != "expired":
                assert state == "waiting"
                await anyio.sleep(0.01)
        async with worker.connect(bot="b") as b:
            assert await bodies(b, 1) == ["long"]
            assert b.receive_nowait() is None
            with anyio.fail_after(30):
                while not (dead := await b.dead_letters()):
                    await anyio.sleep(0.01)
            assert [(letter["seq"], letter["reason"], letter["attempts"]) for letter in dead] == [
                (short.seq, "expired", 0)
            ]
            assert (await a.find(short.id))["mailboxes"][0]["state"] == "expired"
            assert await b.retry_dead_letters([short.seq]) == 1
            await a.send("b", "end")
            assert await bodies(b, 1) == ["end"], "trying again does not make it any younger"


async def test_the_backlog_does_not_count_what_came_early(worker: Worker) -> None:
    async with (
        worker.connect(bot="busy", max_in_flight=1) as busy,
        worker.connect(bot="twice") as twice,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(answer, twice)
        await twice.send_all([bus.Draft(to="busy", body=number) for number in range(3000)])
        await busy.request("twice", 4)
        rows = {row["name"]: row["backlog"] for row in await busy.bots()}
        assert rows["busy"] == 3000
        tasks.cancel_scope.cancel()
