"""Runs and the messages that began them: dead letters, and deliveries that failed."""

from __future__ import annotations

from contextlib import suppress

import anyio
import pytest

import bus
from bus.model.records import RunStatus
from bus.settings import Settings, Workflows
from bus.testing import Worker
from bus.wire.message_answers import FoundMessage

from .test_application import DIGEST, Handled, serving

pytestmark = pytest.mark.anyio


async def test_a_retried_dead_letter_lets_its_run_go_on(impatient_worker: Worker) -> None:
    """Whether the run failed or its program had a mistake: a step that was recorded is not carried out again."""
    bot, handled, mended = impatient_worker.connect(bot="digester"), Handled(), list[bool]()

    async def charge() -> str:
        handled.note("charge", len(mended))
        if not mended:
            raise ValueError("no money")
        return "charged"

    @bot.on_message()
    async def digest(message: bus.Message) -> None:
        async with bot.workflows.run("digest", id=message.id, definition=DIGEST) as run:
            await run.step("fetch", lambda: handled.note(message.body, 1))
            if message.body == "mistaken" and not mended:
                raise LookupError("a mistake")
            await run.step("charge", charge)

    async with impatient_worker.connect(bot="a") as a, serving(bot):
        with anyio.fail_after(60):
            sent = {body: await a.send("digester", body) for body in ("failing", "mistaken")}
            while len(dead := await a.dead_letters(bot="digester")) < 2:
                await anyio.sleep(0.01)
            statuses = {body: await a.workflows.get_run(each.id) for body, each in sent.items()}
            assert {body: run and run.status for body, run in statuses.items()} == {
                "failing": RunStatus.FAILED,
                "mistaken": RunStatus.PAUSED,
            }
            mended.append(True)
            assert await a.retry_dead_letters([each.seq for each in dead], bot="digester") == 2
            for each in sent.values():
                while (run := await a.workflows.get_run(each.id)) is None or run.status != RunStatus.COMPLETED:
                    await anyio.sleep(0.01)
    assert sorted(handled.seen) == [("charge", 0), ("charge", 1), ("charge", 1), ("failing", 1), ("mistaken", 1)]


async def test_a_delivery_whose_run_made_progress_is_no_failed_one(impatient_worker: Worker) -> None:
    bot, done = impatient_worker.connect(bot="digester"), anyio.Event()

    @bot.on_message()
    async def digest(message: bus.Message) -> None:
        async with bot.workflows.run("digest", id=message.id, definition=DIGEST) as run:
            for number in range(6):  # more than max_deliver
                recorded = await run.step(f"{number}", lambda: message.attempt)
                if recorded == message.attempt:
                    raise LookupError("after one more step")
        done.set()

    async with impatient_worker.connect(bot="a") as a, serving(bot):
        with anyio.fail_after(60):
            await a.send("digester", 1)
            await done.wait()
        assert await a.dead_letters(bot="digester") == []


async def test_a_run_that_lost_its_holder_too_often_is_not_tried_again(impatient_worker: Worker) -> None:
    bot, attempts = impatient_worker.connect(bot="digester"), list[int]()

    @bot.on_message()
    async def digest(message: bus.Message) -> None:
        attempts.append(message.attempt)
        raise bus.RunGivenUp(message.id, 6)

    async with impatient_worker.connect(bot="a") as a, serving(bot):
        with anyio.fail_after(60):
            await a.send("digester", 1)
            while not (dead := await a.dead_letters(bot="digester")):
                await anyio.sleep(0.01)
    assert "lost its holder 6 times" in dead[0].reason
    assert attempts == [1]


async def done_with(bot: bus.Bot, seq: int) -> FoundMessage:
    """Return a message of the log once it is there, and settled or dead."""
    while True:
        with suppress(bus.RequestError):
            found = await bot.find(seq)
            if found.mailboxes[0].state in ("settled", "dead"):
                return found
        await anyio.sleep(0.01)


@pytest.mark.parametrize("handlers", ["none", "one of all messages", "its own"])
async def test_a_notice_of_a_lost_holder_is_left_to_the_message_that_began_the_run(
    store_url: str, handlers: str
) -> None:
    """It opens the run when it comes again. Nobody does that for a run which no message of the bot began."""
    took, begun, finish = list[str](), anyio.Event(), anyio.Event()
    with Worker(store_url, Settings(workflows=Workflows(sweep_seconds=0.1))) as worker:
        bot = worker.connect(bot="digester")

        @bot.on_message("digest")
        async def digest(message: bus.Message) -> None:
            for run_id in (message.id, "alone"):
                await bot.workflows.start("digest", id=run_id)
                await bot.workflows.claim_run(run_id, bot.name, lease_seconds=0.1)
            begun.set()
            await finish.wait()

        async def take(message: bus.Message) -> None:
            took.append(message.body["run_id"])

        if handlers != "none":
            bot.on_message(None if handlers == "one of all messages" else "workflow.crashed")(take)
        async with worker.connect(bot="a") as a, serving(bot):
            with anyio.fail_after(60):
                await a.workflows.save_definition(DIGEST)
                sent = await a.send("digester", 1, message_type="digest")
                await begun.wait()
                notices = [await done_with(a, seq) for seq in (2, 3)]
                finish.set()
    states = {notice.message.body["run_id"]: notice.mailboxes[0].state for notice in notices}
    assert states == {sent.id: "settled", "alone": "dead" if handlers == "none" else "settled"}
    assert set(took) == {"none": set(), "one of all messages": {"alone"}, "its own": {sent.id, "alone"}}[handlers]
