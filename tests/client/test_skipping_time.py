"""Time that a test skips: sleeps, timeouts, retries, begins and leases pass at once, in their order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition, parse_timestamp
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())
BOUND_SECONDS = 60
HOUR = 3600.0


async def never() -> None:
    await anyio.sleep_forever()


async def test_sleeps_of_several_runs_pass_in_their_order(worker: Worker) -> None:
    woken: list[str] = []

    async def sleep(bot: bus.Bot, name: str, seconds: float) -> None:
        async with bot.workflows.run("digest", id=name, definition=DIGEST) as run:
            await run.sleep(seconds)
            woken.append(name)
            await run.sleep("again", 30 * 24 * HOUR)
            woken.append(name)

    async with worker.connect(bot="a") as bot:
        await bot.workflows.save_definition(DIGEST)
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.skipping_time(), anyio.create_task_group() as tasks:
                for name, seconds in [("late", 5 * HOUR), ("soon", 10.0), ("later", 9 * HOUR)]:
                    tasks.start_soon(sleep, bot, name, seconds)
        assert woken == ["soon", "late", "later", "soon", "late", "later"]
        stored = await bot.workflows.get_run("later")
        assert stored is not None
        assert stored.completed_at is not None
        assert parse_timestamp(stored.completed_at) > datetime.now(UTC) + timedelta(days=30)


async def test_timeouts_and_retries_pass_and_a_held_run_is_not_lost(worker: Worker) -> None:
    calls: list[str] = []

    async def flaky() -> str:
        calls.append("flaky")
        if len(calls) < 3:
            raise OSError("away")
        return "done"

    async def outer(run: bus.Run) -> str:
        """Hold the run for as long as the sleep of another one takes, and more."""
        with pytest.raises(bus.StepFailed, match="not done within 7200 s"):
            await run.step("hang", never, timeout=2 * HOUR)
        with pytest.raises(bus.ApprovalTimedOut):
            await run.approval("ok?", timeout=HOUR)
        with pytest.raises(bus.WaitTimedOut):
            await run.wait("paid", timeout=HOUR)
        answer: str = await run.step("flaky", flaky, retry=bus.Retry(delay=600, delay_max=600))
        return answer

    async with worker.connect(bot="a") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.skipping_time(), bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                assert await outer(run) == "done"
        assert (await bot.workflows.handle("r").status(), run.fence > 1) == (RunStatus.COMPLETED, True)
        assert calls == ["flaky"] * 3


async def test_runs_begin_when_their_time_has_come_and_lost_ones_crash(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        await bot.workflows.save_definition(DIGEST)
        async with worker.connect(bot="gone") as gone:
            await bot.workflows.start("digest", id="lost")
            await gone.workflows.claim_run("lost", "gone", 600)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await bot.workflows.start("digest", id="tomorrow", run_at=tomorrow)
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.skipping_time():
                async with bot.workflows.run("digest", id="tomorrow", timeout=None) as run:
                    assert run.id == "tomorrow"
                assert await bot.workflows.handle("lost").status() == RunStatus.CRASHED


async def test_schedules_start_their_runs(worker: Worker) -> None:
    started: list[str] = []
    async with worker.connect(bot="a") as bot:
        await bot.workflows.save_definition(DIGEST)
        times = bus.IntervalTimes(seconds=6 * HOUR)
        await bot.workflows.save_schedule(
            bus.WorkflowSchedule(id="often", workflow_id="digest", times=times, bot="a", overlap=bus.Overlap.ALLOW)
        )
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.skipping_time():
                while len(started) < 3:
                    message = await bot.receive()
                    started.append(message.body["at"])
                    await message.ack()
    first, *later = [parse_timestamp(at) for at in started]
    assert later == [first + timedelta(hours=6), first + timedelta(hours=12)]


async def test_nothing_is_skipped_outside_of_the_block_or_while_nothing_waits(worker: Worker) -> None:
    began = datetime.now(UTC)
    async with worker.connect(bot="a") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.skipping_time(), bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                await run.step("look", anyio.sleep, 0.2)
        [row] = await bot.workflows.list_step_logs("r")
        assert row.started_at is not None
        assert parse_timestamp(row.started_at) < began + timedelta(seconds=BOUND_SECONDS)


async def test_a_worker_with_a_clock_of_the_tests_skips_nothing(store_url: str) -> None:
    async def fail(worker: Worker) -> None:
        async with worker.skipping_time():
            raise AssertionError("it must not begin")

    async def check(worker: Worker) -> None:
        with pytest.raises(RuntimeError, match="which has to move it"):
            await fail(worker)

    async def raise_within(worker: Worker) -> None:
        async with worker.skipping_time():
            raise ZeroDivisionError

    now: Any = lambda: datetime(2026, 1, 1, tzinfo=UTC)  # noqa: E731
    with Worker(store_url, clock=now) as worker:
        await check(worker)
    with Worker(store_url) as worker, pytest.raises(ZeroDivisionError):
        await raise_within(worker)
