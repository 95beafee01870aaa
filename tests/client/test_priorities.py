"""Priorities through a bot's connection: wherever a message to a bot is sent."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread
import pytest

import bus
from bus.client.draft import Draft, publication
from bus.testing import Worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

DIGEST = bus.WorkflowDefinition(id="digest", name="digest", owner=bus.GlobalOwner())


async def received(worker: Worker, name: str, count: int) -> list[tuple[Any, str]]:
    """Return the bodies and priorities of what waits for a bot, in the order of delivery."""
    async with worker.connect(bot=name) as bot:
        found: list[tuple[Any, str]] = []
        with anyio.fail_after(BOUND_SECONDS):
            for _ in range(count):
                async with await bot.receive() as message:
                    found.append((message.body, message.priority))
        return found


async def test_every_way_of_sending_has_priorities(worker: Worker) -> None:
    async with worker.connect(bot="planner", max_in_flight=0), worker.connect(bot="ann") as ann:
        await ann.send("planner", "low", priority="low")
        await ann.send("planner", "normal")
        await ann.send_all([Draft(to="planner", body="draft", priority="high"), Draft(to="planner", body="plain")])
        async with ann.workflows.run("digest", definition=DIGEST) as run, run.commit("c") as tx:
            tx.send("planner", "committed", priority="high")
        await ann.send("ann", "question")
        async with await ann.receive() as message:
            await message.reply("to myself", priority="low")
        async with await ann.receive() as reply:
            assert (reply.body, reply.priority, message.priority) == ("to myself", "low", "normal")
        with pytest.raises(bus.ReplyTimeout):
            await ann.request("planner", "asked", timeout=0.01, priority="high")
    assert await received(worker, "planner", 6) == [
        ("draft", "high"),
        ("committed", "high"),
        ("asked", "high"),
        ("normal", "normal"),
        ("plain", "normal"),
        ("low", "low"),
    ]


async def test_a_reply_that_is_waited_for_comes_at_once_whatever_its_priority(worker: Worker) -> None:
    async with worker.connect(bot="ann", max_in_flight=0) as ann, worker.connect(bot="bob") as bob:
        await bob.send("ann", "urgent", priority="high")

        async def answer() -> None:
            async with await bob.receive() as message:
                await message.reply("answer", priority="low")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            reply = await ann.request("bob", "question", timeout=BOUND_SECONDS)
        assert (reply.body, reply.priority) == ("answer", "low")
    assert await received(worker, "ann", 1) == [("urgent", "high")]


async def test_it_holds_over_a_kill_of_the_worker(worker: Worker) -> None:
    async with worker.connect(bot="planner", max_in_flight=0), worker.connect(bot="ann") as ann:
        for number in range(10):
            await ann.send("planner", f"low {number}", priority="low")
            await ann.send("planner", f"normal {number}")
            await ann.send("planner", f"high {number}", priority="high")
    await anyio.to_thread.run_sync(worker.kill)
    await anyio.to_thread.run_sync(worker.start)
    found = [body for body, _ in await received(worker, "planner", 30)]
    assert found == [f"{name} {number}" for name in ("high", "normal", "low") for number in range(10)]


async def test_a_mailbox_is_shown_in_the_order_of_delivery(worker: Worker) -> None:
    async with worker.connect(bot="planner", max_in_flight=0) as planner:
        await planner.send("planner", 0, priority="low")
        await planner.send("planner", 1)
        await planner.send("planner", 2, priority="high")
        shown = await planner.mailbox()
        assert [(each.message.body, each.message.priority) for each in shown.messages] == [
            (2, "high"),
            (1, "normal"),
            (0, "low"),
        ]
        kept = await planner.find(shown.messages[0].message.id)
        assert kept.message.priority == "high"


@pytest.mark.parametrize("priority", ["urgent", 1, None, "HIGH"])
def test_another_priority_is_refused_before_it_is_sent(priority: Any) -> None:
    with pytest.raises(ValueError, match="priority must be one of 'low', 'normal', 'high'"):
        publication(Draft(to="ann", body=1, priority=priority), "id")


def test_a_channel_has_none() -> None:
    with pytest.raises(ValueError, match="only a message to a bot"):
        publication(Draft(channel="news", body=1, priority="high"), "id")
