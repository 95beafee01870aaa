"""Events of runs: those who are subscribed get each change once, in its order; otherwise nothing is written."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

import bus
from bus.errors import Fenced, NotFound, RequestError, TooLarge
from bus.model.records import RUNS_CHANNEL, GlobalOwner, RunStatus, WorkflowDefinition, WorkflowRun
from bus.settings import Settings, Workflows
from bus.testing import Worker

from ..engines import query

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 30

W = WorkflowDefinition(id="w", name="w", owner=GlobalOwner())


async def next_events(bot: bus.Bot, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Give the next events of runs, as their kinds and what they tell."""
    found: list[tuple[str, dict[str, Any]]] = []
    with anyio.fail_after(BOUND_SECONDS):
        async for message in bot.messages():
            assert (message.sender, message.channel) == ("posthouse", RUNS_CHANNEL)
            found.append((message.message_type, message.body))
            await message.ack()
            if len(found) == count:
                break
    return found


async def kinds(bot: bus.Bot, count: int) -> list[str]:
    return [f"{body['run_id']} {kind.removeprefix('run.')}" for kind, body in await next_events(bot, count)]


async def create(bot: bus.Bot, id: str, **fields: Any) -> None:
    await bot.workflows.create_run(
        WorkflowRun(
            id=id,
            workflow_id="w",
            workflow_name="w",
            trigger_type="manual",
            started_at="2026-01-01T00:00:00.000000Z",
            **fields,
        )
    )


async def written(worker: Worker) -> int:
    """Count the events that were written, in the log and beside it."""
    [[number]] = await query(
        worker.store_url,
        "SELECT (SELECT COUNT(*) FROM scheduled_messages WHERE recipient_channel = $1)"
        " + (SELECT COUNT(*) FROM bot_messages WHERE recipient_channel = $1)",
        RUNS_CHANNEL,
    )
    return int(number)


async def test_each_change_is_told_once_in_its_order(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await eve.subscribe(RUNS_CHANNEL)
        await create(ann, "r", concurrency_key="k", attributes={"kind": "nightly"})
        async with ann.workflows.run("w", id="r") as run:
            await run.step("one", lambda: 1)
            await run.emit({"done": 1, "of": 2})
            await run.emit({"done": 1, "of": 2})
        told = await next_events(eve, 5)
        assert [kind for kind, _ in told] == [
            "run.created", "run.started", "run.progress", "run.progress", "run.completed",
        ]  # fmt: skip
        assert told[0][1] == {
            "run_id": "r",
            "workflow_id": "w",
            "workflow_name": "w",
            "status": "pending",
            "error": None,
            "concurrency_key": "k",
            "attributes": {"kind": "nightly"},
        }
        assert [body["value"] for kind, body in told if kind == "run.progress"] == [{"done": 1, "of": 2}] * 2


async def test_what_people_do_is_told(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await eve.subscribe(RUNS_CHANNEL)
        await create(ann, "r")
        move = ann.workflows.update_run_status
        await move("r", RunStatus.PAUSED, "paused by ann: lunch")
        await move("r", RunStatus.PENDING)
        claimed = await ann.workflows.claim_run("r", "ann", 60)
        await ann.workflows.release_run("r", claimed.fence, RunStatus.PAUSED)
        claimed = await ann.workflows.claim_run("r", "ann", 60)
        await move("r", RunStatus.FAILED, "x" * 5000, fence=claimed.fence)
        await ann.workflows.retry_run("r")
        await move("r", RunStatus.CANCELLED, "enough")
        told = await next_events(eve, 9)
        assert [kind.removeprefix("run.") for kind, _ in told] == [
            "created", "paused", "pending", "started", "waits", "started", "failed", "pending", "cancelled",
        ]  # fmt: skip
        assert told[1][1]["error"] == "paused by ann: lunch"
        assert told[6][1]["error"] == "x" * 1000
        assert told[8][1]["error"] == "enough"


async def test_nothing_is_written_if_nobody_listens(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await create(ann, "before")
        assert await ann.workflows.emit_run("before", 1) is False
        await eve.subscribe(RUNS_CHANNEL)
        await create(ann, "r")
        assert await ann.workflows.emit_run("r", 1) is True
        assert await kinds(eve, 2) == ["r created", "r progress"]
        await eve.unsubscribe(RUNS_CHANNEL)
        await create(ann, "after")
        assert await ann.workflows.emit_run("after", 1) is False
        assert await written(worker) == 2


async def test_a_watch_is_a_listener(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve", max_in_flight=0) as eve:
        await ann.workflows.save_definition(W)
        async with eve.watch(RUNS_CHANNEL) as events:
            with anyio.fail_after(BOUND_SECONDS):
                number = 0
                while not await written(worker):  # the tap hears of a listener beside the calls
                    await create(ann, f"r{number}")
                    number += 1
                async for event in events:
                    assert event.message_type == "run.created"
                    break


async def test_a_setting_turns_them_on(store_url: str) -> None:
    with Worker(store_url, Settings(workflows=Workflows(events=True))) as worker:
        async with worker.connect(bot="ann") as ann:
            await ann.workflows.save_definition(W)
            await create(ann, "r")
            await ann.subscribe(RUNS_CHANNEL, start="all")
            assert await kinds(ann, 1) == ["r created"]


async def test_a_worker_that_is_killed_loses_and_repeats_none(worker: Worker) -> None:
    expected: list[str] = []
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await eve.subscribe(RUNS_CHANNEL)
    for number in range(12):
        async with worker.connect(bot="ann", max_in_flight=0) as ann:
            for id in (f"{number}-a", f"{number}-b"):
                await create(ann, id)
                expected.append(f"{id} created")
            await anyio.to_thread.run_sync(worker.kill)
            await anyio.to_thread.run_sync(worker.start)
    async with worker.connect(bot="eve") as eve:
        assert await kinds(eve, len(expected)) == expected
    assert await written(worker) == len(expected)


async def test_nobody_else_publishes_there(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.subscribe(RUNS_CHANNEL)
        with pytest.raises(RequestError, match="is for the worker's events"):
            await ann.publish(RUNS_CHANNEL, "all is well")
        await ann.publish(f"{RUNS_CHANNEL}.mine", "all is well")


async def test_what_is_emitted_has_bounds(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await eve.subscribe(RUNS_CHANNEL)
        await create(ann, "r")
        claimed = await ann.workflows.claim_run("r", "ann", 60)
        emit = ann.workflows.emit_run
        assert await emit("r", 1, fence=claimed.fence, id="one") is True
        assert await emit("r", 1, fence=claimed.fence, id="one") is True
        with pytest.raises(TooLarge):
            await emit("r", "x" * 16 * 1024, fence=claimed.fence)
        with pytest.raises(Fenced):
            await emit("r", 1, fence=claimed.fence + 1)
        with pytest.raises(NotFound):
            await emit("q", 1)
        await emit("r", 2, fence=claimed.fence)
        told = await next_events(eve, 4)
        assert [body.get("value") for _, body in told] == [None, None, 1, 2]
        assert await emit("r", 1, fence=claimed.fence, id="one") is True
        await emit("r", 3, fence=claimed.fence)
        assert [body["value"] for _, body in await next_events(eve, 1)] == [3]


async def test_many_events_come_in_their_order(store_url: str) -> None:
    """More than are moved into the log at once."""
    settings = Settings()
    limits = msgspec.structs.replace(settings.limits, messages_per_publish_max=4)
    with Worker(store_url, msgspec.structs.replace(settings, limits=limits)) as worker:
        async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
            await ann.workflows.save_definition(W)
            await eve.subscribe(RUNS_CHANNEL)
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(create, ann, f"r{number}")
            assert sorted(await kinds(eve, 50)) == sorted(f"r{number} created" for number in range(50))
