"""The tasks of handlers: one handles many messages, of which each finds what it would find in a new task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import pytest

import bus
from bus.client.home import Event
from bus.testing import Worker

from .fake_worker import DELIVERY, WELCOME, FakeWorker
from .test_application import Handled, serving

pytestmark = pytest.mark.anyio


async def test_replies_to_messages_that_arrive_together_share_a_frame_and_so_do_their_acks() -> None:
    """A frame for each would cost the worker as much again for every one of them."""
    seqs = list(range(1, 9))
    direct = DELIVERY | {"recipient": {"type": "direct", "bot": "twice", "bot_id": WELCOME["bot_id"]}}
    deliveries = [
        direct | {"seq": seq, "id": f"01900000-0000-7000-8000-00000000000{seq}", "body": seq} for seq in seqs
    ]
    with FakeWorker("inproc://together") as fake, anyio.fail_after(30):
        bot = bus.connect(fake.url, bot="twice", context=fake.context)

        @bot.on_message()
        async def twice(message: bus.Message) -> int:
            return int(message.body) * 2

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(bot.serve, concurrency=8))
            await fake.welcome()
            fake.send(op="deliver", messages=deliveries)
            published = await fake.receive("publish")
            assert sorted(message["body"] for message in published["messages"]) == [seq * 2 for seq in seqs]
            fake.send(op="published", request=published["request"], seqs=[seq + 10 for seq in seqs])
            assert sorted((await fake.receive("ack"))["seqs"]) == seqs
            bot.stop()
            await fake.farewell()


async def test_a_handler_finds_the_context_that_a_new_task_has(worker: Worker) -> None:
    """Whether the handler before it returned or failed, and although its task may be an earlier one's."""
    bot, handled = worker.connect(bot="writer"), Handled()
    note = ContextVar("note", default="untouched")

    @bot.on_message()
    async def handle(message: bus.Message) -> None:
        handled.note(note.get(), message.body)
        if message.body == "set":
            note.set("left behind")
        elif message.body == "undo":
            note.reset(note.set("left behind"))
        elif message.body == "fail":
            raise RuntimeError("once")

    bodies = ["plain", "set", "undo", "plain", "set", "fail", "plain"]
    async with serving(bot, concurrency=1), worker.connect(bot="boss") as boss:
        for number, body in enumerate(bodies, 1):
            await boss.send("writer", body)
            await handled.wait_for(number)
    assert handled.seen[: len(bodies)] == [("untouched", body) for body in bodies]


async def test_a_task_handles_one_message_after_another(worker: Worker) -> None:
    bot, handled = worker.connect(bot="writer"), Handled()

    @bot.on_message()
    async def handle(message: bus.Message) -> None:
        handled.note(str(anyio.get_current_task().id), message.body)

    async with serving(bot, concurrency=1), worker.connect(bot="boss") as boss:
        for number in range(1, 11):
            await boss.send("writer", number)
            await handled.wait_for(number)
    assert len({task for task, _ in handled.seen}) == 1


class WakesAndCancels:
    def __init__(self, event: Event, cancel: Callable[[], None]) -> None:
        self._event = event
        self._cancel = cancel
        self.wait = event.wait

    def set(self) -> None:
        self._event.set()
        self._cancel()


@pytest.mark.parametrize("given", [False, True], ids=["idle", "with the next message"])
def test_a_task_cancelled_after_its_handler_returned_harms_no_other_message(worker: Worker, given: bool) -> None:
    """Asyncio's tasks can be cancelled by anyone who knows them."""
    bot, handled = worker.connect(bot="writer"), Handled()
    known: list[asyncio.Task[Any] | None] = []

    @bot.on_message()
    async def handle(message: bus.Message) -> None:
        known.append(asyncio.current_task())
        handled.note("handled", message.body)

    def cancel() -> None:
        [task] = known
        assert task is not None
        task.cancel()

    async def main() -> None:
        async with serving(bot, concurrency=1), worker.connect(bot="boss") as boss:
            await boss.send("writer", 1)
            await handled.wait_for(1)
            await anyio.wait_all_tasks_blocked()
            if given:
                service = bot._application._service
                assert service is not None
                [idle] = service._idle
                idle.wake = WakesAndCancels(idle.wake, cancel)
            else:
                cancel()
            await boss.send("writer", 2)
            await handled.wait_for(2)
            [message] = [entry for entry in handled.seen if entry[1] == 2]
            assert message == ("handled", 2)

    anyio.run(main)
