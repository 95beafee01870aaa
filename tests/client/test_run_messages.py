"""Runs and the messages that began them: dead letters, and deliveries that failed."""

from __future__ import annotations

import anyio
import pytest

import bus
from bus.model.records import RunStatus
from bus.testing import Worker

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
