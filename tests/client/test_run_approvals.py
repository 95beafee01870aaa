"""Approvals that are answered by a message: the bot takes it, and its run goes on at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

ORDER = WorkflowDefinition(id="order", name="order", owner=GlobalOwner())

BOUND_SECONDS = 30

_GLANCE_SECONDS = 0.01

LONG_SECONDS = 600.0
"""Longer than any test: a run that looks so seldom goes on because it is told to."""


class Buyer:
    """A bot that asks before it buys, and handles one message at a time."""

    def __init__(self, bot: bus.Bot) -> None:
        self.bot = bot
        self.answers: list[Any] = []
        self.ended = anyio.Event()
        bot.workflows._backstop_seconds = LONG_SECONDS
        bot.on_message("order")(self.buy)

    async def buy(self, message: bus.Message) -> None:
        async with self.bot.workflows.run("order", id="r", definition=ORDER) as run:
            try:
                self.answers.append(await run.approval("buy", message.body))
            except bus.Rejected as error:
                self.answers.append(error.reason)
        self.ended.set()

    async def asks(self) -> None:
        """Wait until the question is asked, and the run given back."""
        workflows = self.bot.workflows
        while True:
            if await workflows.list_waiting_approvals("r") and await workflows.get_lease("r") is None:
                return
            await anyio.sleep(_GLANCE_SECONDS)


@asynccontextmanager
async def buying(worker: Worker) -> AsyncIterator[tuple[Buyer, bus.Bot]]:
    """Let a bot ask; give it, and the bot of a person."""
    with anyio.fail_after(BOUND_SECONDS):
        async with worker.connect(bot="buyer") as bot, worker.connect(bot="ann") as ann:
            buyer = Buyer(bot)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(bot.serve, concurrency=1))
                await ann.send("buyer", {"price": 9}, message_type="order")
                await buyer.asks()
                yield buyer, ann
                await buyer.ended.wait()
                bot.stop()


async def settled(bot: bus.Bot, id: str) -> str:
    """Wait until a message is done with; give how."""
    while True:
        state = str((await bot.find(id))["mailboxes"][0]["state"])
        if state not in ("waiting", "in_flight"):
            return state
        await anyio.sleep(_GLANCE_SECONDS)


async def reason_of_dead_letter(bot: bus.Bot) -> str:
    """Wait until an answer was given up; give why."""
    while True:
        if dead := await bot.dead_letters(bot="buyer"):
            [letter] = dead
            return str(letter["reason"])
        await anyio.sleep(_GLANCE_SECONDS)


@pytest.mark.parametrize("word", ["approve", "reject"])
async def test_a_message_answers_and_wakes_the_run(worker: Worker, word: str) -> None:
    async with buying(worker) as (buyer, ann):
        said = {"run_id": "r", "step": "buy", "comment": "as agreed"}
        sent = await ann.send("buyer", said, message_type=f"workflow.{word}")
        await buyer.ended.wait()
        assert await settled(ann, sent.id) == "settled"
        again = await ann.send("buyer", said, message_type=f"workflow.{word}")
        assert await settled(ann, again.id) == "settled", "the same answer changes nothing"
    output = {"approved": word == "approve", "by": "ann", "comment": "as agreed"}
    assert buyer.answers == [output if word == "approve" else "rejected by ann: as agreed"]
    async with worker.connect(bot="ann") as ann:
        [row] = await ann.workflows.list_step_logs("r")
        assert row.output == output
        assert row.status == (StepStatus.COMPLETED if word == "approve" else StepStatus.FAILED)
        run = await ann.workflows.get_run("r")
        assert run is not None
        assert run.status == RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("yes", "Expected `object`"),
        ({"run_id": "r"}, "missing required field `step`"),
        ({"run_id": "r", "step": "buy", "commend": "x"}, "unknown field `commend`"),
        ({"run_id": "r", "step": "sell"}, "step sell of run r is not waiting for an approval"),
        ({"run_id": "other", "step": "buy"}, "step buy of run other is not waiting for an approval"),
    ],
)
async def test_a_message_that_answers_nothing_is_a_dead_letter(worker: Worker, body: Any, reason: str) -> None:
    async with buying(worker) as (buyer, ann):
        await ann.send("buyer", body, message_type="workflow.approve")
        assert reason in await reason_of_dead_letter(ann)
        assert buyer.answers == []
        await ann.send("buyer", {"run_id": "r", "step": "buy"}, message_type="workflow.approve")


async def test_the_first_answer_counts(worker: Worker) -> None:
    async with buying(worker) as (buyer, ann):
        for word in ("reject", "approve"):
            await ann.send("buyer", {"run_id": "r", "step": "buy"}, message_type=f"workflow.{word}")
        assert await reason_of_dead_letter(ann) == "step buy of run r is failed: it was answered before"
    assert buyer.answers == ["rejected by ann"]


async def test_a_bot_may_take_answers_itself(worker: Worker) -> None:
    """Its handler writes the answer, and that too is heard at once."""
    async with buying(worker) as (buyer, ann):

        @buyer.bot.on_message("workflow.approve")
        async def take(message: bus.Message) -> None:
            [row] = await buyer.bot.workflows.list_waiting_approvals("r")
            await buyer.bot.workflows.update_step_status(row.id, StepStatus.COMPLETED, "by hand")

        await ann.send("buyer", "go on", message_type="workflow.approve")
    assert buyer.answers == ["by hand"]


async def test_a_step_at_work_is_not_answered(worker: Worker) -> None:
    async with worker.connect(bot="buyer") as bot, worker.connect(bot="ann") as ann:

        async def work() -> None:
            await ann.send("buyer", {"run_id": "r", "step": "s"}, message_type="workflow.approve")
            assert "is not waiting" in await reason_of_dead_letter(ann)

        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bot.serve)
                async with bot.workflows.run("order", id="r", definition=ORDER) as run:
                    await run.step("s", work)
                bot.stop()
