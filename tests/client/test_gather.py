"""Requests to whoever is free, and many requests together."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

import bus
from bus.testing import Worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


async def answer(bot: bus.Bot, *, name: str = "") -> None:
    """Reply to everything with twice its number, and the name of who replies."""
    async for message in bot.messages():
        async with message:
            if message.body is not None:
                await message.reply([message.body * 2, name or bot.name])


async def test_one_member_of_a_group_answers(worker: Worker) -> None:
    async with (
        worker.connect(bot="asker") as asker,
        worker.connect(bot="one") as one,
        worker.connect(bot="two") as two,
        anyio.create_task_group() as tasks,
    ):
        for bot in (one, two):
            await bot.subscribe("jobs", group="workers")
            tasks.start_soon(answer, bot)
        with anyio.fail_after(BOUND_SECONDS):
            for number in range(10):
                reply = await asker.request(channel="jobs", body=number, timeout=BOUND_SECONDS)
                assert reply.body[0] == number * 2
                assert (reply.sender in ("one", "two"), reply.settled) == (True, True)
        assert asker.receive_nowait() is None, "each was answered once"
        tasks.cancel_scope.cancel()


async def test_another_member_answers_if_the_first_one_vanishes(worker: Worker) -> None:
    replies: list[bus.Message] = []
    async with (
        worker.connect(bot="asker") as asker,
        worker.connect(bot="two", max_in_flight=0) as two,
        anyio.create_task_group() as tasks,
    ):
        await two.subscribe("jobs", group="workers")

        async def ask() -> None:
            replies.append(await asker.request(channel="jobs", body=4, timeout=BOUND_SECONDS))

        with anyio.fail_after(BOUND_SECONDS):
            async with worker.connect(bot="one") as one:
                await one.subscribe("jobs", group="workers")
                tasks.start_soon(ask)
                await one.receive()
            await two.set_credit(5)
            async with await two.receive() as message:
                await message.reply("done")
    assert [(reply.body, reply.sender) for reply in replies] == [("done", "two")]


async def test_a_channel_to_which_nobody_is_subscribed_says_so(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        stored = await asker.publish("deserted", 1)
        with pytest.raises(bus.ReplyTimeout, match="nobody is subscribed to deserted") as late:
            await asker.request(channel="deserted", body=1, timeout=0.05, id=stored.id)
        assert (late.value.state, late.value.bot) == ("nobody", "deserted")


async def test_somebody_or_somewhere_is_asked(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        with pytest.raises(ValueError, match="either a bot or a channel"):
            await asker.request(body=1)
        with pytest.raises(ValueError, match="either a bot or a channel"):
            await asker.request("asker", 1, channel="jobs")


async def test_all_answers_come_in_the_order_of_the_questions(worker: Worker) -> None:
    async with (
        worker.connect(bot="asker") as asker,
        worker.connect(bot="twice") as twice,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(answer, twice)
        questions = [bus.Inquiry(to="twice", body=number, timeout=BOUND_SECONDS) for number in range(50)]
        questions += [
            bus.Inquiry(to="twice", body=None, timeout=0.05),
            bus.Inquiry(to="stranger", body=1),
            bus.Inquiry(body=1),
        ]
        with anyio.fail_after(BOUND_SECONDS):
            answers = await asker.gather(questions)
        assert [answer.index for answer in answers] == list(range(53))
        assert [answer.message().body[0] for answer in answers[:50]] == [number * 2 for number in range(50)]
        assert [type(answer.error) for answer in answers[50:]] == [bus.ReplyTimeout, bus.UnknownBot, ValueError]
        assert all(answer.reply is None for answer in answers[50:])
        with pytest.raises(bus.UnknownBot):
            answers[51].message()
        assert await asker.gather([]) == []
        tasks.cancel_scope.cancel()


async def test_answers_are_taken_as_they_come(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker, worker.connect(bot="slow") as slow:
        questions = [bus.Inquiry(to="slow", body=number, timeout=BOUND_SECONDS) for number in range(3)]
        with anyio.fail_after(BOUND_SECONDS):
            async with asker.gather(questions) as answers:
                messages = {message.body: message for message in [await slow.receive() for _ in questions]}
                for number in (2, 0):
                    await messages[number].reply(number)
                    answered = await anext(answers)
                    assert (answered.index, answered.message().body) == (number, number)
            # One is left: it is answered late, and its reply is an ordinary message.
            await messages[1].reply("late")
            assert (await asker.receive()).body == "late"


async def test_an_error_of_the_block_leaves_it_as_it_is(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker, worker.connect(bot="silent"):
        gathering = asker.gather([bus.Inquiry(to="silent", body=1)])
        with pytest.raises(LookupError, match="mine"):
            async with gathering:
                raise LookupError("mine")
        with pytest.raises(RuntimeError, match="gather them anew"):
            await gathering
        with pytest.raises(RuntimeError, match="async with"):
            await anext(asker.gather([bus.Inquiry(to="silent", body=1)]))


async def test_handlers_gather_while_others_work(worker: Worker) -> None:
    bot = worker.connect(bot="leader")

    @bot.on_message("ask")
    async def ask(message: bus.Message) -> list[int]:
        questions = [bus.Inquiry(to="leader", message_type="add", body=n, timeout=BOUND_SECONDS) for n in range(5)]
        return [answer.message().body for answer in await bot.gather(questions)]

    @bot.on_message("add")
    async def add(message: bus.Message) -> int:
        return int(message.body) + 1

    async with worker.connect(bot="asker") as asker, anyio.create_task_group() as tasks:
        await tasks.start(partial(bot.serve, concurrency=1))
        with anyio.fail_after(BOUND_SECONDS):
            reply = await asker.request("leader", None, message_type="ask", timeout=BOUND_SECONDS)
        assert reply.body == [1, 2, 3, 4, 5]
        tasks.cancel_scope.cancel()
