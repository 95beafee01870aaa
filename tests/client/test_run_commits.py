"""Commits of a run, as a bot's program says them: what one takes, what is too much for it, and what is kept."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.errors import InvalidValue, TooLarge
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition
from bus.runs.replay import COMMIT
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

BOUND_SECONDS = 30

NO_ID = "01900000-0000-7000-8000-000000000001"


# ── Too much ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_commit_that_is_too_large_also_in_parts_is_refused_at_once(worker: Worker) -> None:
    """Without a timeout it would be waited for for ever: the worker cannot say which request it refuses."""
    drafts = [bus.Draft(channel="news", body="x" * 250_000) for _ in range(150)]

    sent: list[bus.Draft] = []

    async def commit_all(bot: bus.Bot) -> None:
        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run, run.commit("c") as tx:
            for draft in drafts:
                sent.append(draft)
                tx.message(draft)

    async with worker.connect(bot="a", timeout=None) as bot:
        with anyio.fail_after(BOUND_SECONDS):
            with pytest.raises(TooLarge, match="the frame has"):
                await bot.workflows.commit(messages=drafts)
            with pytest.raises(TooLarge, match="the frame of commit 'c' has"):
                await commit_all(bot)
            with pytest.raises(bus.TooLarge, match="the frame has"):
                await bot.retry_dead_letters(range(10**6))
            await bot.publish("news", "still here")
        assert [stored.body for stored in await bot.history(channel="news")] == ["still here"]
        stored = await bot.workflows.get_run("r")
        assert stored is not None
        assert stored.status == RunStatus.PAUSED
        assert 140 < len(sent) < 150, "it is refused by the call that makes it too large"
        assert "TooLarge" in (stored.error or "")


async def test_a_commit_of_too_many_messages_says_so(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        with pytest.raises(InvalidValue, match="at most 1000, not 1001"):
            await bot.workflows.commit(messages=[bus.Draft(channel="news", body=n) for n in range(1001)])


@pytest.mark.parametrize("announce", [True, False])
async def test_a_step_whose_output_is_too_large_has_failed(worker: Worker, announce: bool) -> None:
    async with worker.connect(bot="a") as bot, bot.workflows.run("digest", id="r", definition=DIGEST) as run:
        with pytest.raises(TooLarge):
            await run.step("s", lambda: "o" * 17_000_000, announce=announce)
        [row] = await bot.workflows.list_step_logs("r")
        assert (row.status, row.output) == (StepStatus.FAILED, None)
        assert "TooLarge" in (row.error or "")


# ── What a commit takes ──────────────────────────────────────────────────────────────────────────────────


async def test_a_commit_takes_nothing_outside_its_block(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            early = run.commit("early")
            async with run.commit("c") as late:
                late.publish("news", 1)
            for tx in (early, late):
                says: list[Any] = [
                    lambda tx=tx: tx.publish("news", 2),
                    lambda tx=tx: tx.context({"a": 1}),
                    tx.complete,
                ]
                for say in says:
                    with pytest.raises(RuntimeError, match="only be used inside its block"):
                        say()
        assert [stored.body for stored in await bot.history(channel="news")] == [1]


async def test_a_message_is_acked_once_however_often_it_is_said(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot, worker.connect(bot="asker") as asker:
        await asker.send("a", 1)
        with anyio.fail_after(BOUND_SECONDS):
            message = await bot.receive()
            async with bot.workflows.run("digest", definition=DIGEST) as run, run.commit("c") as tx:
                tx.ack(message)
                tx.ack(message)
        assert message.settled


async def test_an_error_needs_a_status(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        with pytest.raises(InvalidValue, match="pass a status too"):
            await bot.workflows.commit(id=NO_ID, error="boom")


# ── What is kept ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_commit_that_is_asked_otherwise_is_refused(worker: Worker) -> None:
    async def leave_undone(bot: bus.Bot) -> None:
        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            async with run.commit("c", input={"n": 1}) as tx:
                tx.publish("news", 1)
            await run.step("s", lambda: 1, input=None)
            raise bus.WorkerUnavailable("no answer")

    async with worker.connect(bot="a") as bot:
        with pytest.raises(bus.WorkerUnavailable):
            await leave_undone(bot)
        async with bot.workflows.run("digest", id="r") as run:
            with pytest.raises(bus.StepChanged, match=r'\{"n":1\}'):
                async with run.commit("c", input={"n": 2}):
                    raise AssertionError("it must not open")
            with pytest.raises(bus.StepChanged, match="'step', not 'commit'"):
                async with run.commit("s"):
                    raise AssertionError("it must not open")
        [row] = [row for row in await bot.workflows.list_step_logs("r") if row.step_id == "c"]
        assert row.idempotency_key == COMMIT
        assert row.started_at == row.completed_at


async def test_a_commit_that_was_cancelled_too_late_is_known(worker: Worker) -> None:
    """Its context is the run's: what the run keeps when it completes must not take that back."""
    async with worker.connect(bot="a") as bot:
        commit, committed = bot.workflows.commit, anyio.Event()

        async def slow(**options: Any) -> Any:
            receipt = await commit(**options)
            if not committed.is_set():
                committed.set()
                await anyio.sleep_forever()
            return receipt

        bot.workflows.commit = slow  # type: ignore[method-assign]
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                async with anyio.create_task_group() as tasks:

                    async def pay() -> None:
                        async with run.commit("pay", output=1) as tx:
                            tx.context({"paid": True})

                    tasks.start_soon(pay)
                    await committed.wait()
                    tasks.cancel_scope.cancel()
                assert run.context == {"paid": True}
        stored = await bot.workflows.get_run("r")
        assert stored is not None
        assert (stored.status, stored.context) == (RunStatus.COMPLETED, {"paid": True})
        assert await bot.workflows.get_completed_step_ids("r") == ["pay"]
