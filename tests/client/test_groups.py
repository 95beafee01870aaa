"""Groups and delays from an author's side, on every backend that the client runs on."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.testing import Worker

from .test_bot import bodies

pytestmark = pytest.mark.anyio


async def test_members_share_what_is_published(worker: Worker) -> None:
    async with (
        worker.connect(bot="sender") as sender,
        worker.connect(bot="ann") as ann,
        worker.connect(bot="bob") as bob,
    ):
        for member in (ann, bob):
            await member.subscribe("jobs", group="workers")
        await sender.send_all([bus.Draft(channel="jobs", body=number) for number in range(10)])
        found: list[Any] = await bodies(ann, 5) + await bodies(bob, 5)
        assert sorted(found) == list(range(10))


async def test_a_member_that_leaves_gives_back_what_it_had(worker: Worker) -> None:
    async with worker.connect(bot="sender") as sender, worker.connect(bot="bob") as bob:
        async with worker.connect(bot="ann") as ann:
            await ann.subscribe("jobs", group="workers")
            await sender.publish("jobs", "one")
            assert (await ann.receive()).group == "workers"
            await bob.subscribe("jobs", group="workers")
        with anyio.fail_after(30):
            async with await bob.receive() as message:
                assert (message.body, message.group, message.attempt) == ("one", "workers", 2)


async def test_a_bot_subscribes_in_one_way(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.subscribe("jobs", group="workers")
        with pytest.raises(bus.Conflict, match="unsubscribe first"):
            await ann.subscribe("jobs")
        assert await ann.unsubscribe("jobs")
        await ann.subscribe("jobs")


async def test_served_bots_share_a_channel(worker: Worker) -> None:
    done: list[tuple[str, int]] = []
    everything = anyio.Event()

    def member(name: str) -> bus.Bot:
        bot = worker.connect(bot=name)

        @bot.on_channel("jobs", group="workers")
        async def work(message: bus.Message) -> None:
            done.append((name, message.body))
            if len(done) == 20:
                everything.set()

        return bot

    with anyio.fail_after(30):
        async with worker.connect(bot="sender") as sender, anyio.create_task_group() as tasks:
            for name in ("ann", "bob"):
                await tasks.start(member(name).serve)
            await sender.send_all([bus.Draft(channel="jobs", body=number) for number in range(20)])
            await everything.wait()
            tasks.cancel_scope.cancel()
    assert sorted(number for _, number in done) == list(range(20))
    assert {name for name, _ in done} == {"ann", "bob"}


async def test_a_delayed_message_is_told_as_scheduled_and_comes(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        receipt = await ann.send("ann", "later", delay=0.2)
        assert (receipt.scheduled, receipt.seq) == (True, 0)
        again = await ann.send("ann", "later", delay=0.2, id=receipt.id)
        assert again.duplicate
        assert await bodies(ann, 1) == ["later"]
        known = await ann.send("ann", "later", id=receipt.id)
        assert (known.duplicate, known.scheduled, known.seq) == (True, False, 1)
