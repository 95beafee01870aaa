"""A bot's last will from its author's side, on every backend that the client runs on."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest

import bus
from bus.testing import Worker

from .fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

WILL = bus.Draft(channel="deaths", body="gone")


async def test_a_bot_that_says_goodbye_leaves_nothing(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve:
        await eve.subscribe("deaths")
        async with worker.connect(bot="ann") as ann:
            await ann.will(WILL, delay=0)
        await eve.publish("deaths", "the end", id=None)
        await eve.subscribe("more")
        async with worker.connect(bot="bob") as bob:
            await bob.publish("deaths", "of bob")
        with anyio.fail_after(30):
            message = await eve.receive()
    assert (message.sender, message.body) == ("bob", "of bob")


async def test_what_cannot_be_sent_is_refused(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        with pytest.raises(bus.UnknownBot):
            await ann.will(bus.Draft(to="nobody", body=1))
        with pytest.raises(ValueError, match="delay"):
            await ann.will(bus.Draft(channel="deaths", body=1, delay=3))
        for delay in (float("nan"), float("inf"), -1):  # JSON has null for the first two, which is the default
            with pytest.raises(ValueError, match="delay must be a number of seconds"):
                await ann.will(WILL, delay=delay)
        await ann.will(WILL)
        await ann.will(None)


@contextlib.asynccontextmanager
async def connected(name: str) -> AsyncIterator[tuple[FakeWorker, bus.Bot]]:
    """Connect a bot to a worker that does what the test says."""
    with FakeWorker(f"inproc://wills-{name}") as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(worker.welcome)
            async with bus.connect(worker.url, bot="b", context=worker.context) as bot:
                yield worker, bot
                tasks.start_soon(worker.farewell)


async def refused(bot: bus.Bot, draft: bus.Draft | None) -> None:
    with pytest.raises(bus.Forbidden):
        await bot.will(draft)


async def ok(worker: FakeWorker) -> object:
    """Accept a will, and return what it says."""
    asked = await worker.receive("will")
    worker.send(op="ok", request=asked["request"], value={})
    return None if asked["message"] is None else asked["message"]["body"]


def refuse(worker: FakeWorker, request: int) -> None:
    worker.send(op="error", request=request, code="forbidden", message="no", retry=False)


async def next_session(worker: FakeWorker) -> None:
    worker.send(op="error", code="unknown_session", message="say hello first", retry=True)
    await worker.welcome()


async def left_again(worker: FakeWorker) -> object:
    """Begin another session, and return the will that is left again."""
    await next_session(worker)
    with anyio.fail_after(30):
        return await ok(worker)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_wills_that_are_refused_side_by_side_leave_the_one_before(order: tuple[int, int]) -> None:
    async with connected(f"{order}") as (worker, bot):
        async with anyio.create_task_group() as asking:
            asking.start_soon(bot.will, WILL)
            assert await ok(worker) == "gone"
        async with anyio.create_task_group() as asking:
            for body in ("not this", "nor that"):
                asking.start_soon(refused, bot, bus.Draft(channel="deaths", body=body))
            requests = [(await worker.receive("will"))["request"] for _ in range(2)]
            for each in order:
                refuse(worker, requests[each])
        assert await left_again(worker) == "gone"


async def test_one_that_is_refused_beside_one_that_is_not_leaves_that_one() -> None:
    async with connected("beside") as (worker, bot):
        async with anyio.create_task_group() as asking:
            asking.start_soon(bot.will, WILL)
            first = await worker.receive("will")
            asking.start_soon(refused, bot, None)
            second = await worker.receive("will")
            refuse(worker, second["request"])
            worker.send(op="ok", request=first["request"], value={})
        assert await left_again(worker) == "gone"


async def test_one_that_is_being_asked_for_is_not_overtaken_by_the_one_before() -> None:
    async with connected("overtaken") as (worker, bot):
        async with anyio.create_task_group() as asking:
            asking.start_soon(bot.will, WILL)
            await ok(worker)
        async with anyio.create_task_group() as asking:
            asking.start_soon(refused, bot, bus.Draft(channel="deaths", body="not this"))
            await worker.receive("will")
            await next_session(worker)
            repeated = await worker.receive("will")
            assert repeated["message"]["body"] == "not this"
            refuse(worker, repeated["request"])
            with anyio.fail_after(30):
                assert await ok(worker) == "gone", "after the one that was refused"
        async with anyio.create_task_group() as asking:
            asking.start_soon(bot.will, bus.Draft(channel="deaths", body="later"))
            await worker.receive("will")
            await next_session(worker)
            assert await ok(worker) == "later"
        assert await left_again(worker) == "later"


async def test_one_without_an_answer_is_taken_for_left() -> None:
    async with connected("unanswered") as (worker, bot):
        async with anyio.create_task_group() as asking:
            asking.start_soon(bot.will, WILL)
            await worker.receive("will")
            asking.cancel_scope.cancel()
        assert await left_again(worker) == "gone"
