"""Budgets of threads, as a bot's author meets them: who answers for ever ends, and an author is told why."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.model.records import RunStatus
from bus.testing import Worker

from .test_application import serving

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 30


def answers_for_ever(bot: bus.Bot) -> None:
    @bot.on_message()
    async def answer(message: bus.Message) -> Any:
        return bus.Reply(message.body + 1, headers=message.headers)


async def test_two_agents_that_answer_each_other_for_ever_end(worker: Worker) -> None:
    ann, ben = worker.connect(bot="ann"), worker.connect(bot="ben")
    answers_for_ever(ann)
    answers_for_ever(ben)
    async with worker.connect(bot="eve") as eve, serving(ann), serving(ben):
        await eve.subscribe("posthouse.events")
        first = await ann.send("ben", 0, hops=9, deadline=600)
        event = await eve.receive(timeout=BOUND_SECONDS)
        while event.message_type != "thread.ended":
            await event.ack()
            event = await eve.receive(timeout=BOUND_SECONDS)
        thread = (await eve.history(thread=first.id))[::-1]
        assert [(message.body, message.budget.hops) for message in thread] == [(n, 9 - n) for n in range(10)]
        assert len({message.budget.deadline for message in thread}) == 1
        assert (event.body["bot"], event.body["reply_to"]) == ("ann", thread[-1].id)
        while (await eve.find(thread[-1].id))["mailboxes"][0]["state"] != "settled":
            await anyio.sleep(0.01)
        assert await ann.dead_letters() == []
        assert await ben.dead_letters() == []


async def test_a_message_says_what_is_left_of_its_thread(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.send("ann", 1)
        await ann.send("ann", 2, hops=3, deadline=60)
        free, bound = await ann.receive(), await ann.receive()
        assert (free.hops, free.deadline) == (None, None)
        assert bound.hops == 3
        assert bound.deadline is not None
        assert 59 < (bound.deadline - bound.timestamp).total_seconds() < 61


async def test_an_author_who_answers_is_told_that_nothing_is_left(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.send("ann", 1, hops=0)
        async with await ann.receive() as message:
            with pytest.raises(bus.BudgetSpent, match="no hops are left in its thread") as refused:
                await message.reply(2)
            assert (refused.value.code, refused.value.retry) == ("budget_spent", False)
            assert (refused.value.reply_to, refused.value.deadline) == (message.id, None)
            assert (await ann.send("ann", "a new thread")).seq == 2


async def test_a_handler_that_does_not_expect_it_is_not_called_again(worker: Worker) -> None:
    ann = worker.connect(bot="ann")
    calls: list[int] = []

    @ann.on_message()
    async def answer(message: bus.Message) -> None:
        calls.append(message.attempt)
        await message.reply(2)

    async with serving(ann):
        await ann.send("ann", 1, hops=0)
        dead: list[bus.ListedDeadLetter] = []
        while not dead:
            await anyio.sleep(0.01)
            dead = await ann.dead_letters()
        assert calls == [1]
        assert "no hops are left" in dead[0].reason


async def test_a_run_that_answers_too_late_fails(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(bus.WorkflowDefinition(id="w", name="w", owner=bus.GlobalOwner()))
        await ann.send("ann", 1, hops=0)
        message = await ann.receive()
        with pytest.raises(bus.BudgetSpent):
            async with message, ann.workflows.run("w", id="r") as run, run.commit("answer") as tx:
                tx.reply(message, 2)
        stored = await ann.workflows.get_run("r")
        assert stored is not None
        assert stored.status is RunStatus.FAILED
        assert "no hops are left" in (stored.error or "")
        while not (dead := await ann.dead_letters()):
            await anyio.sleep(0.01)
        assert [each.seq for each in dead] == [message.seq]


async def test_a_reply_uses_one_hop_of_a_request(worker: Worker) -> None:
    ben = worker.connect(bot="ben")

    @ben.on_message()
    async def answer(message: bus.Message) -> Any:
        return message.hops

    async with worker.connect(bot="ann") as ann, serving(ben):
        assert (await ann.request("ben", 1, hops=1, timeout=BOUND_SECONDS)).hops == 0


async def test_it_ends_whatever_is_killed_meanwhile(worker: Worker) -> None:
    """A reply may be sent twice, by a handler that is called again. Each branch ends."""
    hops, last = 60, anyio.Event()
    ann, ben = worker.connect(bot="ann"), worker.connect(bot="ben")
    for bot in (ann, ben):

        @bot.on_message()
        async def answer(message: bus.Message) -> Any:
            if message.body == hops:
                last.set()
            return message.body + 1

    async with serving(ann), serving(ben):
        with anyio.fail_after(BOUND_SECONDS):
            first = await ann.send("ben", 0, hops=hops)
            for kill_at in (10, 30):
                while not any(message.body >= kill_at for message in await ann.history(between=("ann", "ben"))):
                    await anyio.sleep(0.002)
                await anyio.to_thread.run_sync(worker.kill)
                await anyio.to_thread.run_sync(worker.start)
            await last.wait()
            while any(one.backlog for one in await ann.bots()):
                await anyio.sleep(0.01)
        thread = await ann.history(thread=first.id, limit=1000)
        assert {message.body for message in thread} == {*range(hops + 1)}
        assert all(message.body + (message.budget.hops or 0) == hops for message in thread)
        assert await ann.dead_letters() == []
        assert await ben.dead_letters() == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hops": -1}, "hops must be"),
        ({"hops": True}, "hops must be"),
        ({"hops": 1.0}, "hops must be"),
        ({"deadline": 0}, "deadline must be"),
        ({"deadline": float("nan")}, "deadline must be"),
        ({"deadline": 5, "delay": 5}, "the delay must be shorter than the deadline"),
    ],
)
async def test_a_budget_that_cannot_be_is_refused_before_it_is_sent(
    worker: Worker, options: dict[str, Any], text: str
) -> None:
    async with worker.connect(bot="ann") as ann:
        with pytest.raises(ValueError, match=text):
            await ann.send("ann", 1, **options)
