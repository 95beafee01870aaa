"""A bot whose connection breaks, or whose worker restarts, keeps what it holds; a confirmation is never none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

import bus
from bus.client.connection import Connection
from bus.testing import Worker
from bus.wire.frames import StoredMessage

from .fake_worker import DELIVERY, FakeWorker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


async def breaks(bot: bus.Bot) -> None:
    """Let a bot lose its session and have the next one."""
    sessions = bot._connection.sessions
    bot._connection._lost.set()
    while bot._connection.sessions == sessions:
        await anyio.sleep(0.002)


async def state_of(bot: bus.Bot, message: bus.Message) -> str:
    state: str = (await bot.find(message.id))["mailboxes"][0]["state"]
    return state


@pytest.mark.parametrize("max_in_flight", [0, 10])
@pytest.mark.parametrize("what", ["the connection", "the worker"])
async def test_a_confirmed_ack_holds_after_a_break(worker: Worker, what: str, max_in_flight: int) -> None:
    async with worker.connect(bot="s", max_in_flight=0) as s:
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.connect(bot="b") as b:
                await s.send("b", "pay 100")
                message = await b.receive()
                await b.set_credit(max_in_flight)
                if what == "the connection":
                    await breaks(b)
                else:
                    await anyio.to_thread.run_sync(worker.kill)
                    await anyio.to_thread.run_sync(worker.start)
                await message.ack(confirm=True)
                assert await state_of(s, message) == "settled"
            async with worker.connect(bot="b") as b:
                await s.send("b", "the next")
                assert (await b.receive()).body == "the next"


async def test_a_message_at_work_outlives_any_number_of_breaks(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="b") as b, impatient_worker.connect(bot="b", max_in_flight=0):
        with anyio.fail_after(BOUND_SECONDS):
            await b.send("b", "a long job")
            message = await b.receive()
            for _ in range(6):
                await breaks(b)
                assert await state_of(b, message) == "in_flight"
            await message.ack(confirm=True)
            assert await state_of(b, message) == "settled"
        assert await b.dead_letters() == []


async def test_what_another_session_has_is_not_confirmed(impatient_worker: Worker) -> None:
    async with (
        impatient_worker.connect(bot="b", max_in_flight=1) as first,
        impatient_worker.connect(bot="b", max_in_flight=0) as second,
    ):
        with anyio.fail_after(BOUND_SECONDS):
            await first.send("b", 1)
            message = await first.receive()
            first._inbox.max_in_flight = 0
            first._connection._token = "not that of its last session"
            await breaks(first)
            await second.set_credit(1)
            again = await second.receive()
            for settle in (message.ack, message.term):
                with pytest.raises(bus.NotInFlight, match="another session") as caught:
                    await settle(confirm=True)
                assert caught.value.details == {"state": "in_flight"}
            await again.ack(confirm=True)


@pytest.mark.parametrize("state", ["dead", "in_flight", "unknown", "something new"])
async def test_what_the_worker_passed_over_is_not_confirmed(state: str) -> None:
    with FakeWorker(f"inproc://passed-over-{state}") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                worker.send(op="deliver", messages=[DELIVERY])
                message = await bot.receive()

                async def refuse() -> None:
                    ack = await worker.receive("ack")
                    passed_over = [{"seq": 1, "state": state}]
                    worker.send(op="ok", request=ack["request"], value={"passed_over": passed_over})

                for _ in range(2):  # however often it is asked for
                    tasks.start_soon(refuse)
                    with anyio.fail_after(BOUND_SECONDS), pytest.raises(bus.NotInFlight) as caught:
                        await message.ack(confirm=True)
                    assert caught.value.details == {"state": state}
                tasks.start_soon(worker.farewell)


async def test_an_ack_is_repeated_in_the_next_session() -> None:
    """The bot holds its message there, and does not return before it is answered."""
    with FakeWorker("inproc://confirm") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                worker.send(op="deliver", messages=[DELIVERY])
                message = await bot.receive()
                confirmed = anyio.Event()

                async def ack() -> None:
                    await message.ack(confirm=True)
                    confirmed.set()

                tasks.start_soon(ack)
                first = await worker.receive("ack")
                worker.send(op="closing")
                hello = await worker.receive("hello")
                assert (hello["holds"], hello["epoch"]) == ([1], "00000000-0000-7000-8000-000000000002")
                worker.welcome_to(hello)
                assert await worker.receive("ack") == first
                assert not confirmed.is_set()
                worker.send(op="ok", request=first["request"])
                with anyio.fail_after(BOUND_SECONDS):
                    await confirmed.wait()
                tasks.start_soon(worker.farewell)


async def test_a_client_proves_that_it_is_the_same() -> None:
    tokens: list[dict[str, Any]] = []
    with FakeWorker("inproc://token") as worker:
        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                bot = bus.connect(worker.url, bot="b", context=worker.context)

                async def serve() -> None:
                    for closing in (True, False):
                        hello = await worker.receive("hello")
                        tokens.append(hello["token"])
                        worker.welcome_to(hello)
                        if closing:
                            worker.send(op="closing")

                tasks.start_soon(serve)
                async with bot:
                    with anyio.fail_after(BOUND_SECONDS):
                        while bot._connection.sessions < 2:
                            await anyio.sleep(0.002)
                    tasks.start_soon(worker.farewell)
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]


async def test_each_session_gets_its_own_replies(worker: Worker) -> None:
    """Also with many sessions of one bot, whose credit differs."""
    async with anyio.create_task_group() as tasks, worker.connect(bot="oracle") as oracle:

        async def answer() -> None:
            async for message in oracle.messages():
                async with message:
                    await message.reply(message.body)

        tasks.start_soon(answer)
        with anyio.fail_after(BOUND_SECONDS):
            async with (
                worker.connect(bot="asker", max_in_flight=1) as first,
                worker.connect(bot="asker", max_in_flight=50) as second,
                worker.connect(bot="asker", max_in_flight=0) as third,
            ):
                for number in range(10):
                    for bot in (first, second, third):
                        reply = await bot.request("oracle", number, timeout=BOUND_SECONDS)
                        assert reply.body == number
                for bot in (first, second, third):
                    assert bot.receive_nowait() is None
        tasks.cancel_scope.cancel()


async def test_a_reply_that_comes_as_its_asker_gives_up_is_ordinary_mail(worker: Worker) -> None:
    async with worker.connect(bot="oracle") as oracle, worker.connect(bot="asker") as asker:
        deliver, returned = asker._connection._deliver, []
        with anyio.fail_after(BOUND_SECONDS), anyio.CancelScope() as scope:

            def give_up(messages: Sequence[StoredMessage]) -> None:
                deliver(messages)
                scope.cancel()

            asker._connection._deliver = give_up
            async with anyio.create_task_group() as tasks:

                async def answer() -> None:
                    await (await oracle.receive()).reply("answer")

                tasks.start_soon(answer)
                returned.append(await asker.request("oracle", 1, timeout=BOUND_SECONDS))
        with anyio.fail_after(BOUND_SECONDS):
            reply = returned[0] if returned else await asker.receive()
        assert reply.body == "answer"
        await reply.ack(confirm=True)


async def test_a_session_is_lost_even_if_the_socket_has_something_to_read(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left unread keeps the socket ready: a bot that waited for it would never be interrupted."""
    drain = Connection._drain
    with anyio.fail_after(BOUND_SECONDS):
        async with worker.connect(bot="reader") as reader, worker.connect(bot="writer") as writer:
            connection = reader._connection
            with monkeypatch.context() as deaf:
                deaf.setattr(Connection, "_drain", lambda self: None if self is connection else drain(self))
                await writer.send_all([bus.Draft(to="reader", body=number) for number in range(10)])
                connection._lost.set()
                while connection._lost.is_set():  # until the next session begins
                    await anyio.sleep(0.002)
            assert sorted([(await reader.receive()).body for _ in range(10)]) == list(range(10))
