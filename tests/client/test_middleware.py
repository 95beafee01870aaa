"""Middleware: what it sees and changes, around everything that a bot sends and handles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.client.middleware import HandleNext
from bus.client.sending import SendNext
from bus.model.records import GlobalOwner, WorkflowDefinition
from bus.testing import Worker
from tests.engines import sqlite_only

from .test_application import Handled, serving

pytestmark = [pytest.mark.anyio, sqlite_only("the client alone calls it")]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

Log = list[tuple[Any, ...]]


class Noting(bus.Middleware):
    """Notes what passes, in one list for all, and marks what is sent."""

    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.log = log

    async def send(self, sending: bus.Sending, call_next: SendNext) -> Sequence[bus.Receipt]:
        self.log.append((self.name, sending.operation, [draft.body for draft in sending.drafts]))
        try:
            receipts = await call_next(sending.with_headers({"by": self.name, self.name: "1"}))
        except Exception as error:
            self.log.append((self.name, sending.operation, type(error)))
            raise
        assert [receipt.id for receipt in receipts] == [draft.id for draft in sending.drafts]
        self.log.append((self.name, sending.operation, "sent"))
        return receipts

    async def handle(self, message: bus.Message, call_next: HandleNext) -> Any:
        self.log.append((self.name, "handle", message.body))
        try:
            value = await call_next(message)
        except Exception as error:
            self.log.append((self.name, "handle", type(error)))
            raise
        self.log.append((self.name, "handle", "returned", value))
        return value


async def test_everything_that_is_sent_passes_it(worker: Worker) -> None:
    bot, log = worker.connect(bot="a"), Log()
    bot.use(Noting("m", log))
    async with bot, worker.connect(bot="b") as b:
        await bot.send("b", 1, headers={"by": "me"})
        await bot.publish("news", 2)
        await bot.send_all([bus.Draft(to="b", body=3), bus.Draft(channel="news", body=4)])
        assert await bot.send_all([]) == []
        await b.send("a", "question")
        await (await bot.receive(timeout=30)).reply(5)
        await bot.workflows.commit(messages=[bus.Draft(to="b", body=6)])
        await bot.workflows.commit()
        async with bot.workflows.run("digest", definition=DIGEST) as run:
            await run.step("send", bot.send, "b", 7)
            async with run.commit("done") as tx:
                tx.send("b", 8)
                tx.publish("news", 9)
        with pytest.raises(bus.UnknownBot):
            await bot.send("nobody", 10)
        received: list[bus.Message] = []

        async def answer() -> None:
            received.extend([await b.receive(timeout=30) for _ in range(7)])
            await received[-1].reply("yes")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            assert (await bot.request("b", 11)).body == "yes"
        public = await b.history(channel="news")
    assert [entry[1:] for entry in log if entry[2] != "sent"] == [
        ("send", [1]),
        ("publish", [2]),
        ("send_all", [3, 4]),
        ("reply", [5]),
        ("commit", [6]),
        ("send", [7]),
        ("commit", [8, 9]),
        ("send", [10]),
        ("send", bus.UnknownBot),
        ("request", [11]),
    ]
    assert [(message.body, message.headers["by"]) for message in received] == [
        (1, "m"),
        (3, "m"),
        (5, "m"),
        (6, "m"),
        (7, "m"),
        (8, "m"),
        (11, "m"),
    ]
    assert [(stored.body, stored.headers["m"]) for stored in reversed(public)] == [(2, "1"), (4, "1"), (9, "1")]


async def test_the_first_is_outermost(worker: Worker) -> None:
    bot, log = worker.connect(bot="a"), Log()
    bot.use(Noting("one", log))
    bot.use(Noting("two", log))

    @bot.on_message()
    async def twice(message: bus.Message) -> Any:
        return message.body * 2

    async with worker.connect(bot="b") as b, serving(bot):
        reply = await b.request("a", 2)
        assert (reply.body, reply.headers) == (4, {"one": "1", "two": "1", "by": "two"})
        with anyio.fail_after(30):
            while len(log) < 8:
                await anyio.lowlevel.checkpoint()
    assert log == [
        ("one", "handle", 2),
        ("two", "handle", 2),
        ("one", "reply", [4]),
        ("two", "reply", [4]),
        ("two", "reply", "sent"),
        ("one", "reply", "sent"),
        ("two", "handle", "returned", 4),
        ("one", "handle", "returned", 4),
    ]


class Goal(msgspec.Struct):
    text: str


async def test_it_sees_errors_and_they_settle_the_message(impatient_worker: Worker) -> None:
    bot, log, handled = impatient_worker.connect(bot="a"), Log(), Handled()
    bot.use(Noting("m", log))

    @bot.on_message("fails")
    async def fails(message: bus.Message) -> None:
        handled.note("fails", message.attempt)
        if message.attempt == 1:
            raise ZeroDivisionError

    @bot.on_message("goal")
    async def goal(message: bus.Message[Goal]) -> None:
        handled.note("goal", message.body)

    async with impatient_worker.connect(bot="b") as b, serving(bot, concurrency=1):
        await b.send("a", 1, message_type="fails")
        await handled.wait_for(2)
        await b.send("a", 2, message_type="goal")
        with anyio.fail_after(30):
            while not await b.dead_letters(bot="a"):
                await anyio.sleep(0.01)
    assert handled.seen == [("fails", 1), ("fails", 2)]
    assert [entry for entry in log if entry[1] == "handle"] == [
        ("m", "handle", 1),
        ("m", "handle", ZeroDivisionError),
        ("m", "handle", 1),
        ("m", "handle", "returned", None),
        ("m", "handle", 2),
        ("m", "handle", bus.UnfitBody),
    ]


class Forgiving(bus.Middleware):
    async def handle(self, message: bus.Message, call_next: HandleNext) -> Any:
        try:
            return await call_next(message)
        except ZeroDivisionError:
            return None


async def test_an_error_that_it_keeps_acks(impatient_worker: Worker) -> None:
    bot, handled = impatient_worker.connect(bot="a"), Handled()
    bot.use(Forgiving())

    @bot.on_message()
    async def fails(message: bus.Message) -> None:
        handled.note("fails", message.body)
        if message.body == 1:
            raise ZeroDivisionError

    async with impatient_worker.connect(bot="b") as b:
        async with serving(bot, concurrency=1):
            await b.send_all([bus.Draft(to="a", body=1), bus.Draft(to="a", body=2)])
            await handled.wait_for(2)
        [row] = [each for each in await b.bots() if each.name == "a"]
        assert (handled.seen, row.backlog) == ([("fails", 1), ("fails", 2)], 0)


class Swallowing(bus.Middleware):
    async def send(self, sending: bus.Sending, call_next: SendNext) -> Sequence[bus.Receipt]:
        return [bus.Receipt(draft.id or "", 0) for draft in sending.drafts]


async def test_a_commit_that_was_not_sent_says_so(worker: Worker) -> None:
    bot = worker.connect(bot="a")
    bot.use(Swallowing())
    async with bot:
        with pytest.raises(RuntimeError, match="nothing was committed"):
            await bot.workflows.commit(messages=[bus.Draft(to="a", body=1)])
        assert (await bot.status()).last_seq == 0


class Tracing(bus.Middleware):
    def __init__(self) -> None:
        self.count = 0

    async def send(self, sending: bus.Sending, call_next: SendNext) -> Sequence[bus.Receipt]:
        self.count += 1
        return await call_next(sending.with_headers({"traceparent": str(self.count), "lang": "en"}))


async def test_a_commit_that_is_repeated_in_another_span_is_the_same(worker: Worker) -> None:
    bot = worker.connect(bot="a")
    bot.use(Tracing())
    commit_id, message_id = (f"01900000-0000-7000-8000-{number:012}" for number in (1, 2))
    draft = bus.Draft(to="a", body=1, id=message_id)
    async with bot:
        first = await bot.workflows.commit(id=commit_id, messages=[draft])
        assert await bot.workflows.commit(id=commit_id, messages=[draft]) == first
        other = msgspec.structs.replace(draft, headers={"tenant": "acme"})
        with pytest.raises(bus.Conflict):
            await bot.workflows.commit(id=commit_id, messages=[other])
        [stored] = await bot.history(between=("a", "a"))
    assert stored.headers == {"traceparent": "1", "lang": "en"}


def test_only_middleware_is_used() -> None:
    for wrong in (bus.Middleware, object(), None):
        with pytest.raises(TypeError, match=re.escape("pass an object of a subclass of bus.Middleware")):
            bus.Bot("a").use(wrong)  # type: ignore[arg-type]


async def test_a_program_that_is_served_in_a_test_keeps_it(worker: Worker) -> None:
    bot, log = bus.Bot("a"), Log()
    bot.use(Noting("m", log))

    @bot.on_message()
    async def direct(message: bus.Message) -> Any:
        return 1

    for _ in range(2):
        async with worker.serve(bot), worker.connect(bot="b") as b:
            assert (await b.request("a", 0)).headers["by"] == "m"
