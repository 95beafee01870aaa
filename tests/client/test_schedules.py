"""Schedules in a worker: a bot is told of each run that the clock starts, and opens it."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

W = WorkflowDefinition(id="w", name="w", owner=GlobalOwner())


async def test_a_bot_is_told_of_each_run_and_carries_it_out(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot, worker.connect(bot="ann", max_in_flight=0) as ann:
        await ann.workflows.save_definition(W)
        every_second = bus.WorkflowSchedule(
            id="s", workflow_id="w", times=bus.IntervalTimes(seconds=1), input="go", bot="digester"
        )
        saved = await ann.workflows.save_schedule(every_second)
        times: list[str] = []
        with anyio.fail_after(60):
            async for message in bot.messages():
                body = message.body
                assert (message.sender, message.message_type) == ("posthouse", "workflow.start")
                assert (body["workflow_name"], body["schedule"]) == ("w", "s")
                async with bot.workflows.run("w", id=body["run_id"]) as run:
                    assert run.input == "go"
                await message.ack()
                times.append(body["at"])
                if len(times) == 3:
                    break
        assert times == sorted(set(times))
        assert times[0] == saved.next_at
        runs = await ann.workflows.list_all_runs(RunStatus.COMPLETED)
        assert {run.id for run in runs} == {f"s@{time}" for time in times}


async def test_schedules_go_on_after_a_kill_of_the_worker(store_url: str) -> None:
    with Worker(store_url) as worker:
        async with worker.connect(bot="ann", max_in_flight=0) as ann:
            await ann.workflows.save_definition(W)
            overlap, catch_up = bus.Overlap.ALLOW, bus.CatchUp.ALL
            await ann.workflows.save_schedule(
                bus.WorkflowSchedule(
                    id="s", workflow_id="w", times=bus.IntervalTimes(seconds=1), overlap=overlap, catch_up=catch_up
                )
            )
            await _count(ann, 1)
            await anyio.to_thread.run_sync(worker.kill)
            await anyio.to_thread.run_sync(worker.start)
            found = await _count(ann, 4)
            times = sorted(run.id for run in found)
            assert len(set(times)) == len(times)


async def _count(bot: bus.Bot, number: int) -> list[bus.RunSummary]:
    with anyio.fail_after(60):
        while True:
            found = await bot.workflows.list_all_runs()
            if len(found) >= number:
                return found
            await anyio.sleep(0.01)
