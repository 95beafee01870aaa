"""What the Python client promises, over TCP with a worker process, on every event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

import bus

from .forked_worker import forked_worker
from .wire_worker import Worker

pytestmark = pytest.mark.anyio

IMPATIENT = """
[delivery]
ack_wait_seconds = 0.8
max_deliver = 3
backoff_seconds = [0.2]
heartbeat_seconds = 0.3
session_timeout_seconds = 1.5
"""
SECONDS = 60
"""The longest that a test may take: each takes some."""


@pytest.fixture
def impatient(tmp_path: Path, store_url: str) -> Iterator[Worker]:
    with forked_worker(tmp_path, IMPATIENT, store_url) as running:
        yield running


@asynccontextmanager
async def served(*bots: bus.Bot, **options: Any) -> AsyncIterator[None]:
    """Serve bots around a block, and stop them in order after it."""
    with anyio.fail_after(SECONDS):
        async with anyio.create_task_group() as tasks:
            for bot in bots:
                await tasks.start(_serve, bot, options)
            yield
            for bot in bots:
                bot.stop()


async def _serve(bot: bus.Bot, options: Any, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    await bot.serve(task_status=task_status, **options)


async def test_attempts_grow_over_restarts_of_the_worker_and_none_is_a_failure(impatient: Worker) -> None:
    with anyio.fail_after(SECONDS):
        async with bus.connect(impatient.command, bot="a", max_in_flight=0) as a:
            receipt = await a.send("a", "unlucky")
        attempts: list[int] = []
        for _ in range(4):
            async with bus.connect(impatient.command, bot="a") as a:
                message = await a.receive()
                assert message.seq == receipt.seq
                attempts.append(message.attempt)
                await a.send("a", "marker")
                await (await a.receive()).ack(confirm=True)  # with it goes to disk what else was handed out
                await anyio.to_thread.run_sync(impatient.kill)
                await anyio.to_thread.run_sync(impatient.start)
        assert attempts == sorted(set(attempts))
        assert attempts[0] == 1
        async with bus.connect(impatient.command, bot="a") as a:
            async with await a.receive() as message:
                assert message.attempt > attempts[-1]
            assert await a.dead_letters() == []


async def test_naks_dead_letters_and_their_retry(impatient: Worker) -> None:
    with anyio.fail_after(SECONDS):
        async with bus.connect(impatient.command, bot="a") as a:
            slow, quick = await a.send("a", "slow"), await a.send("a", "quick")
            for message in (await a.receive(), await a.receive()):
                await message.nak(1.0 if message.body == "slow" else 0.0, confirm=True)
            again = [await a.receive(), await a.receive()]
            assert [(message.seq, message.attempt) for message in again] == [(quick.seq, 2), (slow.seq, 2)]
            await again[1].ack(confirm=True)
            await again[0].nak(confirm=True)
            last = await a.receive()
            assert (last.seq, last.attempt) == (quick.seq, 3)
            await last.nak(confirm=True)
            [dead] = await a.dead_letters()
            assert (dead["seq"], dead["attempts"], dead["reason"]) == (quick.seq, 3, "nak; failed 3 times")
            assert await a.retry_dead_letters([quick.seq]) == 1
            async with await a.receive() as message:
                assert (message.seq, message.attempt) == (quick.seq, 1)
            assert await a.dead_letters() == []


async def test_a_handler_may_take_longer_than_the_ack_wait(impatient: Worker) -> None:
    """And another session of its bot, which has nothing to do, is not given its message."""
    bots = [bus.Bot("slow", impatient.command) for _ in range(2)]
    taken: list[tuple[int, int]] = []

    for number, bot in enumerate(bots):

        @bot.on_message()
        async def work(message: bus.Message, number: int = number) -> str:
            taken.append((number, message.attempt))
            await anyio.sleep(2.5)  # three times the ack_wait, and longer than a session may be silent
            return "done"

    async with served(*bots), bus.connect(impatient.command, bot="a") as a:
        assert (await a.request("slow", "work")).body == "done"
        assert len(taken) == 1
        assert taken[0][1] == 1
        assert (await a.status())["counters"]["dead"] == 0


async def test_bots_that_ask_each_other_inside_their_handlers(impatient: Worker) -> None:
    bots = {name: bus.Bot(name, impatient.command) for name in ("one", "other")}
    for bot, asked in ((bots["one"], "other"), (bots["other"], "one")):

        @bot.on_message("outer")
        async def outer(message: bus.Message, bot: bus.Bot = bot, asked: str = asked) -> Any:
            reply = await bot.request(asked, message.body, message_type="inner")
            return [bot.name, reply.body]

        @bot.on_message("inner")
        async def inner(message: bus.Message, bot: bus.Bot = bot) -> Any:
            return [bot.name, message.body]

    answers: list[Any] = []
    async with served(*bots.values(), concurrency=30), bus.connect(impatient.command, bot="c") as c:

        async def ask(name: str, number: int) -> None:
            answers.append((await c.request(name, number, message_type="outer")).body)

        async with anyio.create_task_group() as asking:
            for number in range(20):
                asking.start_soon(ask, "one" if number % 2 else "other", number)
        assert c.receive_nowait() is None
    expected: list[Any] = [
        ["one", ["other", number]] if number % 2 else ["other", ["one", number]] for number in range(20)
    ]
    assert sorted(answers, key=str) == sorted(expected, key=str)


async def test_sessions_share_and_inherit(impatient: Worker) -> None:
    """Of two sessions one vanishes without a word, with its messages: the other one gets them."""
    with anyio.fail_after(SECONDS):
        async with bus.connect(impatient.command, bot="w", max_in_flight=10) as living:
            vanishing = await anyio.to_thread.run_sync(lambda: impatient.session("w", max_in_flight=5))
            receipts = await living.send_all([bus.Draft(to="w", body=number) for number in range(10)])
            taken = await anyio.to_thread.run_sync(lambda: vanishing.take(3))
            await anyio.to_thread.run_sync(vanishing.close)
            attempts: dict[int, int] = {}
            async for message in living.messages():
                async with message:
                    attempts[message.seq] = message.attempt
                if len(attempts) == len(receipts):
                    break
            assert set(attempts) == {receipt.seq for receipt in receipts}
            assert all(attempts[delivery["seq"]] >= 2 for delivery in taken)
            assert await living.dead_letters() == []


async def test_what_a_cancelled_handler_gives_back_another_session_takes(impatient: Worker) -> None:
    with anyio.fail_after(SECONDS):
        async with (
            bus.connect(impatient.command, bot="w", max_in_flight=1) as one,
            bus.connect(impatient.command, bot="w", max_in_flight=0) as other,
        ):
            for number in range(4):  # more often than a message may fail
                await one.send("w", number)
                message = await one.receive()
                await other.set_credit(1)
                await one.set_credit(0)
                with anyio.CancelScope() as scope:
                    async with message:
                        scope.cancel()
                        await anyio.sleep_forever()
                async with await other.receive() as message:
                    assert (message.body, message.attempt) == (number, 2)
                await other.set_credit(0)
                await one.set_credit(1)
            assert await one.dead_letters() == []


async def test_a_watch_goes_on_over_a_killed_worker(impatient: Worker) -> None:
    with anyio.fail_after(SECONDS):
        async with (
            bus.connect(impatient.command, bot="a", tap_url=impatient.tap) as a,
            a.watch("news") as watch,
        ):
            seen: list[object] = []
            for start in range(0, 30, 10):
                await a.send_all([bus.Draft(channel="news", body=number) for number in range(start, start + 10)])
                await anyio.to_thread.run_sync(impatient.kill)
                await anyio.to_thread.run_sync(impatient.start)
                while len(seen) < start + 10:
                    seen.append((await anext(watch)).body)
            assert seen == list(range(30))
