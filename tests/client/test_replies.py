"""A request returns its answer whichever session of the bot the reply was delivered to, on every event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
import uuid_utils

import bus
from bus.testing import Worker
from bus.transport import connect_command

from ..engines import sqlite_only
from .conftest import BACKENDS
from .fake_worker import WELCOME, FakeWorker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 120


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that no event tells of."""
    while not condition():
        await anyio.sleep(0.002)


@asynccontextmanager
async def away(bot: bus.Bot) -> AsyncIterator[None]:
    """Keep a bot without a session throughout a block; at the end it has the next one."""
    connection = bot._connection
    endpoint, sessions = bot._endpoint, connection.sessions
    vars(endpoint)["open_command"] = lambda: connect_command(endpoint.sockets, "inproc://nobody-is-here")
    connection._lost.set()
    await until(lambda: not connection._open)
    yield
    del vars(endpoint)["open_command"]
    connection._lost.set()
    await until(lambda: connection.sessions > sessions)


async def restart(worker: Worker) -> None:
    await anyio.to_thread.run_sync(worker.kill)
    await anyio.to_thread.run_sync(worker.start)


async def ask(bot: bus.Bot, number: int, replies: dict[int, bus.Message]) -> None:
    replies[number] = await bot.request("helper", number, timeout=BOUND_SECONDS)


async def receive(bot: bus.Bot, count: int) -> list[bus.Message]:
    return [await bot.receive() for _ in range(count)]


async def answer(questions: list[bus.Message]) -> None:
    """Reply to questions, and settle them."""
    async with anyio.create_task_group() as tasks:
        for question in questions:
            tasks.start_soon(question.reply, question.body)
    for question in questions:
        await question.ack()


# ── With a worker ────────────────────────────────────────────────────────────────────────────────────────


LOST = pytest.mark.parametrize("what", ["the connection", "the worker"])


@LOST
async def test_a_reply_that_another_process_got_is_returned_to_its_asker(worker: Worker, what: str) -> None:
    await returned_to_their_asker(worker, what, 1)


@LOST
@sqlite_only("what takes time is the client")
@pytest.mark.parametrize("anyio_backend", [BACKENDS["asyncio"]], ids=["asyncio"])
async def test_as_many_replies_as_a_window_has_are_returned_to_their_asker(worker: Worker, what: str) -> None:
    await returned_to_their_asker(worker, what, 1000)


async def returned_to_their_asker(worker: Worker, what: str, requests: int) -> None:
    replies: dict[int, bus.Message] = {}
    with anyio.fail_after(BOUND_SECONDS):
        async with (
            worker.connect(bot="helper", max_in_flight=1000) as helper,
            worker.connect(bot="asker", max_in_flight=1000) as other,
            worker.connect(bot="asker") as asker,
            anyio.create_task_group() as tasks,
        ):
            for number in range(requests):
                tasks.start_soon(ask, asker, number, replies)
            questions = await receive(helper, requests)
            async with away(asker):
                if what == "the worker":
                    await restart(worker)
                await answer(questions)
                mail = await receive(other, requests)
                assert not replies
                ids = {question.id: question.body for question in questions}
                assert {ids[str(message.reply_to)]: message.body for message in mail} == dict(
                    enumerate(range(requests))
                )
                await mail[0].ack(confirm=True)
            await until(lambda: len(replies) == requests)
            assert {number: reply.body for number, reply in replies.items()} == dict(enumerate(range(requests)))
            assert all(reply.settled for reply in replies.values())
            for message in mail[1:]:
                await message.ack()
            await mail[-1].ack(confirm=True)
            assert asker.receive_nowait() is None
            [row] = [row for row in await asker.bots() if row["name"] == "asker"]
            assert (row["backlog"], row["in_flight"]) == (0, 0)


async def test_a_reply_is_returned_to_a_bot_without_credit(worker: Worker) -> None:
    """Nobody else gets it either: it waits in the mailbox, and the bot that asks takes no mail."""
    replies: dict[int, bus.Message] = {}
    with anyio.fail_after(BOUND_SECONDS):
        async with (
            worker.connect(bot="helper") as helper,
            worker.connect(bot="asker", max_in_flight=0) as asker,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ask, asker, 1, replies)
            questions = await receive(helper, 1)
            async with away(asker):
                await answer(questions)
            await until(lambda: replies)
            await asker.set_credit(10)
            await helper.send("asker", "the next")
            assert (await asker.receive()).body == "the next", "the reply is dropped when it is its turn"
            [row] = [row for row in await asker.bots() if row["name"] == "asker"]
            assert (row["backlog"], row["in_flight"]) == (1, 1)


async def test_a_reply_that_lies_in_the_inbox_is_taken_from_there(
    worker: Worker,
) -> None:
    id = str(uuid_utils.uuid7())
    with anyio.fail_after(BOUND_SECONDS):
        async with worker.connect(bot="helper") as helper, worker.connect(bot="asker") as asker:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(asker.request, "helper", 1, id=id))
                questions = await receive(helper, 1)
                tasks.cancel_scope.cancel()
            await answer(questions)
            await until(lambda: asker._inbox)
            reply = await asker.request("helper", 1, id=id)
            assert reply.body == 1
            await reply.ack(confirm=True)
            assert asker.receive_nowait() is None


# ── What no real worker can be made to do on purpose ─────────────────────────────────────────────────────


class Stage:
    """A bot that came back while a request waits, and the worker's end of its connection."""

    def __init__(self, worker: FakeWorker, bot: bus.Bot) -> None:
        self.worker = worker
        self.bot = bot
        self.question = ""
        self.replies: list[bus.Message] = []
        self.asking = anyio.CancelScope()
        self.ended = anyio.Event()

    async def ask(self) -> None:
        with self.asking:
            self.replies.append(await self.bot.request("helper", 1, timeout=BOUND_SECONDS))
        self.ended.set()

    def stored(self, number: int = 1) -> dict[str, Any]:
        """Return a reply as it is in the log."""
        return {
            "seq": 10 + number,
            "id": f"01900000-0000-7000-8000-00000000000{number}",
            "sender_bot_id": "01900000-0000-7000-8000-0000000000aa",
            "sender_bot_name": "helper",
            "recipient": {"type": "direct", "bot_id": WELCOME["bot_id"]},
            "message_type": "message",
            "body": number,
            "reply_to": self.question,
            "headers": {},
            "timestamp": "2026-01-01T00:00:00.000000Z",
        }

    def deliver(self, number: int = 1) -> None:
        self.worker.send(op="deliver", messages=[self.stored(number) | {"attempt": 1}])

    def find(self, history: dict[str, Any], *numbers: int) -> None:
        """Answer a question with these replies."""
        assert history["thread"] == self.question
        messages = [self.stored(number) for number in sorted(numbers, reverse=True)]
        self.worker.send(op="ok", request=history["request"], value={"messages": messages, "more": False})

    async def acked(self) -> list[int]:
        """Return the seqs that were acked until the bot had taken everything that was sent to it."""
        seqs: list[int] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.bot.bots)
            while (frame := await self.worker.next_frame())["op"] != "bots":
                seqs += frame.get("seqs", []) if frame["op"] == "ack" else []
            self.worker.send(op="ok", request=frame["request"], value={"bots": []})
        return seqs


@asynccontextmanager
async def returned(url: str) -> AsyncIterator[tuple[Stage, dict[str, Any]]]:
    """Give a bot that came back while a request waits, and the question that it asked about that."""
    with FakeWorker(url) as worker, anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                stage = Stage(worker, bot)
                tasks.start_soon(stage.ask)
                [stage.question] = await worker.publish()
                worker.send(op="closing")
                await worker.welcome()
                yield stage, await worker.receive("history")
                tasks.start_soon(worker.farewell)


async def test_a_reply_that_is_found_and_delivered_is_returned_once_and_settled() -> None:
    async with returned("inproc://found-first") as (stage, history):
        stage.find(history, 1, 2)
        await stage.ended.wait()
        assert [reply.body for reply in stage.replies] == [1], "the first one"
        stage.deliver()
        assert await stage.acked() + await stage.acked() == [11]
        assert stage.bot.receive_nowait() is None


async def test_a_reply_that_is_delivered_and_found_is_returned_once_and_settled() -> None:
    async with returned("inproc://delivered-first") as (stage, history):
        stage.deliver()
        stage.find(history, 1)
        await stage.ended.wait()
        assert [reply.body for reply in stage.replies] == [1]
        assert await stage.acked() == [11]
        assert stage.bot.receive_nowait() is None


async def test_a_reply_that_is_found_and_delivered_in_one_turn_is_returned_once_and_settled() -> None:
    async with returned("inproc://in-one-turn") as (stage, history):
        give = stage.bot._replies._give

        def deliver_too(reply: Any, message: bus.Message, *, found: bool) -> None:
            give(reply, message, found=found)
            if found:
                stage.bot._connection._delivered([message.stored])

        stage.bot._replies._give = deliver_too  # type: ignore[method-assign]
        stage.find(history, 1)
        await stage.ended.wait()
        assert [reply.body for reply in stage.replies] == [1]
        assert await stage.acked() == [11]
        assert stage.bot.receive_nowait() is None


async def test_a_reply_that_is_found_after_its_request_ended_is_ordinary_mail() -> None:
    async with returned("inproc://ended") as (stage, history):
        stage.asking.cancel()
        await stage.ended.wait()
        stage.find(history, 1)
        assert await stage.acked() == []
        stage.deliver()
        message = await stage.bot.receive()
        assert (message.body, message.settled, stage.replies) == (1, False, [])
        assert await stage.acked() == []


async def test_a_reply_that_is_found_as_its_asker_gives_up_is_ordinary_mail() -> None:
    async with returned("inproc://gives-up") as (stage, history):
        give = stage.bot._replies._give

        def give_up(reply: Any, message: bus.Message, *, found: bool) -> None:
            stage.asking.cancel()
            give(reply, message, found=found)

        stage.bot._replies._give = give_up  # type: ignore[method-assign]
        stage.find(history, 1)
        await stage.ended.wait()
        stage.deliver()
        if stage.replies:  # the reply was faster
            assert await stage.acked() + await stage.acked() == [11]
        else:
            assert (await stage.bot.receive()).body == 1
            assert await stage.acked() == []


@pytest.mark.parametrize("code", ["bad_request", "internal", "a new one"])
async def test_a_worker_that_cannot_tell_delivers_the_reply_all_the_same(code: str) -> None:
    async with returned(f"inproc://cannot-tell-{code}") as (stage, history):
        stage.worker.send(op="error", code=code, message="no", request=history["request"], retry=False)
        stage.deliver()
        await stage.ended.wait()
        assert [reply.body for reply in stage.replies] == [1]


async def test_a_busy_worker_is_asked_again() -> None:
    async with returned("inproc://busy") as (stage, history):
        for _ in range(2):
            stage.worker.send(op="error", code="busy", message="wait", request=history["request"], retry=True)
            history = await stage.worker.receive("history")
        stage.find(history, 1)
        await stage.ended.wait()
        assert [reply.body for reply in stage.replies] == [1]


async def test_a_question_whose_answer_was_lost_is_asked_again() -> None:
    async with returned("inproc://lost") as (stage, _):
        stage.worker.send(op="closing")
        await stage.worker.welcome()
        stage.find(await stage.worker.receive("history"), 1)
        await stage.ended.wait()
        assert [reply.body for reply in stage.replies] == [1]


async def test_few_questions_are_on_their_way_at_a_time() -> None:
    """A bot that is closed then waits for none of them."""
    requests = 100
    with FakeWorker("inproc://few") as worker, anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                async with anyio.create_task_group() as asking:
                    for number in range(requests):
                        asking.start_soon(bot.request, "helper", number)
                    ids: list[str] = []
                    while len(ids) < requests:
                        ids += await worker.publish(first_seq=1 + len(ids))
                    worker.send(op="closing")
                    await worker.welcome()
                    asked: list[str] = []
                    open_questions: list[int] = []
                    while len(asked) < requests // 2:
                        asking.start_soon(bot.bots)
                        while (frame := await worker.next_frame())["op"] != "bots":
                            if frame["op"] == "history":
                                asked.append(frame["thread"])
                                open_questions.append(frame["request"])
                        worker.send(op="ok", request=frame["request"], value={"bots": []})
                        assert len(open_questions) <= 8
                        if open_questions:
                            nothing = {"messages": [], "more": False}
                            worker.send(op="ok", request=open_questions.pop(0), value=nothing)
                    assert asked == ids[: len(asked)], "the oldest first, and each once"
                    asking.cancel_scope.cancel()
                tasks.start_soon(worker.farewell)
