"""A bot is used in its own event loop; anywhere else a call says so at once, and does not wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio

import bus
from bus.client.home import Home
from bus.client.watch import Watch
from bus.model.records import GlobalOwner, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

HERE = WorkflowDefinition(id="here", name="here", owner=GlobalOwner())

Call = Callable[[bus.Bot], Awaitable[Any]]


async def entering(bot: bus.Bot) -> None:
    async with bot:
        pass


async def watching(bot: bus.Bot) -> None:
    async with bot.watch("news"):
        pass


async def opening(bot: bus.Bot) -> None:
    async with bot.workflows.run("here", definition=HERE):
        pass


async def taking(bot: bus.Bot) -> None:
    bot.receive_nowait()


CALLS: dict[str, Call] = {
    "send": lambda bot: bot.send("a", 1),
    "publish": lambda bot: bot.publish("news", 1),
    "send_all": lambda bot: bot.send_all([bus.Draft(to="a", body=1)]),
    "request": lambda bot: bot.request("a", 1),
    "subscribe": lambda bot: bot.subscribe("news"),
    "unsubscribe": lambda bot: bot.unsubscribe("news"),
    "receive": lambda bot: bot.receive(),
    "receive_nowait": taking,
    "messages": lambda bot: anext(bot.messages()),
    "set_credit": lambda bot: bot.set_credit(5),
    "history": lambda bot: bot.history(channel="news"),
    "find": lambda bot: bot.find("01900000-0000-7000-8000-00000000000a"),
    "bots": lambda bot: bot.bots(),
    "status": lambda bot: bot.status(),
    "dead_letters": lambda bot: bot.dead_letters(),
    "retry_dead_letters": lambda bot: bot.retry_dead_letters([1]),
    "watch": watching,
    "serve": lambda bot: bot.serve(),
    "enter": entering,
    "list_definitions": lambda bot: bot.workflows.list_definitions(),
    "commit": lambda bot: bot.workflows.commit(),
    "run": opening,
}

PLACES = ["asyncio", "trio", "none"]


def elsewhere(call: Callable[..., Awaitable[Any]], *args: Any, place: str) -> str:
    """Make a call in this thread, in an event loop of its own or in none; return what the error says."""

    async def bounded() -> None:
        with anyio.fail_after(30):
            await call(*args)

    def made() -> None:
        if place == "none":
            next(call(*args).__await__())
        else:
            anyio.run(bounded, backend=place)

    said = "connected in the event loop of thread"
    if place == "none":
        said += "|Not currently running on any"  # which anyio says itself
    with pytest.raises(RuntimeError, match=said) as refused:
        made()
    return str(refused.value)


@pytest.mark.parametrize("place", PLACES)
async def test_a_call_from_another_thread_is_refused_at_once(worker: Worker, place: str) -> None:
    async with worker.connect(bot="a") as bot:
        for name, call in CALLS.items():
            told = await anyio.to_thread.run_sync(partial(elsewhere, call, bot, place=place))
            assert place == "none" or ("bot 'a'" in told and "anyio.from_thread.run" in told), name
        assert (await bot.send("a", "here")).seq == 1, "nothing was stored before"


@pytest.mark.parametrize("place", PLACES)
async def test_a_message_is_settled_in_the_loop_of_its_bot(worker: Worker, place: str) -> None:
    async def in_a_block(message: bus.Message) -> None:
        async with message:
            pass

    ways: list[Callable[[bus.Message], Awaitable[Any]]] = [
        lambda message: message.ack(),
        lambda message: message.ack(confirm=True),
        lambda message: message.nak(),
        lambda message: message.release(),
        lambda message: message.term("no"),
        in_a_block,
    ]
    async with worker.connect(bot="a") as bot:
        await bot.send("a", 1)
        message = await bot.receive()
        for way in ways:
            await anyio.to_thread.run_sync(partial(elsewhere, way, message, place=place))
        assert not message.settled
        await message.ack(confirm=True)


@pytest.mark.parametrize("place", PLACES)
async def test_a_run_works_in_the_loop_of_its_bot(worker: Worker, place: str) -> None:
    called: list[str] = []

    async def committing(run: bus.Run) -> None:
        async with run.commit("commit"):
            called.append("commit")

    ways: list[Callable[[bus.Run], Awaitable[Any]]] = [
        lambda run: run.step("step", called.append, "step"),
        lambda run: run.sleep(0),
        lambda run: run.approval("ask"),
        lambda run: run.save_context(),
        committing,
    ]
    async with worker.connect(bot="a") as bot, bot.workflows.run("here", definition=HERE) as run:
        for way in ways:
            await anyio.to_thread.run_sync(partial(elsewhere, way, run, place=place))
        assert called == []
        await run.step("step", called.append, "step")
    assert called == ["step"]


async def test_a_watch_is_read_in_the_loop_of_its_bot(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot, bot.watch("news") as messages:
        await anyio.to_thread.run_sync(partial(elsewhere, Watch.__anext__, messages, place="asyncio"))


async def test_a_thread_calls_by_way_of_the_loop(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        receipt = await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(bot.send, "a", 1))
        assert receipt.seq == 1


async def test_serving_is_stopped_in_its_own_loop(worker: Worker) -> None:
    bot = worker.connect(bot="a")
    bot.on_message()(ignore)
    async with anyio.create_task_group() as tasks:
        await tasks.start(bot.serve)

        def stop() -> None:
            with pytest.raises(RuntimeError, match=r"anyio\.from_thread\.run"):
                bot.stop()
            anyio.from_thread.run_sync(bot.stop)

        with anyio.fail_after(30):
            await anyio.to_thread.run_sync(stop)


async def ignore(message: bus.Message) -> None:
    """Do nothing."""


async def test_a_bot_that_is_not_connected_says_so(worker: Worker) -> None:
    bot = worker.connect(bot="a")
    for name in ("send", "receive", "receive_nowait", "messages", "watch", "status", "set_credit"):
        with pytest.raises(RuntimeError, match="is not connected"), anyio.fail_after(30):
            await CALLS[name](bot)


async def test_a_closed_bot_says_so_wherever_it_is_asked(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        pass

    async def closed() -> None:
        with pytest.raises(bus.ClosedError):
            await bot.receive()
        with pytest.raises(bus.ClosedError):
            await bot.send("a", 1)

    await closed()
    await anyio.to_thread.run_sync(anyio.run, closed)


def test_a_loop_in_a_loop_is_another_place() -> None:
    """Asyncio runs inside of trio, and trio inside of asyncio, in one thread."""

    async def inside(home: Home) -> None:
        with pytest.raises(RuntimeError, match="outside of it"):
            home.check()

    async def trio_inside() -> None:
        home = Home("bot 'a'")
        home.enter()
        trio.run(inside, home)
        home.check()

    async def asyncio_inside() -> None:
        home = Home("bot 'a'")
        home.enter()
        asyncio.run(inside(home))
        home.check()

    asyncio.run(trio_inside())
    trio.run(asyncio_inside)
