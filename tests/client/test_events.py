"""The worker's events, as bots receive them. Those of runs and steps are in the transaction of what they tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

import bus
from bus import events
from bus.errors import RequestError
from bus.model.records import EVENTS_CHANNEL, WORKER_ID, GlobalOwner, StepStatus, WorkflowDefinition, WorkflowRun
from bus.settings import EventSettings, Settings
from bus.testing import Worker

from ..engines import query

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 30

W = WorkflowDefinition(id="w", name="w", owner=GlobalOwner())


async def next_events(bot: bus.Bot, *kinds: type[Any]) -> list[Any]:
    """Give the next events of these kinds, as many of each as it is named, in their order; settle all others."""
    missing = list(kinds)
    found: list[Any] = []
    with anyio.fail_after(BOUND_SECONDS):
        async for message in bot.messages():
            assert (message.sender, message.channel) == ("posthouse", EVENTS_CHANNEL)
            event = events.read_event(message.message_type, message.body)
            await message.ack()
            if type(event) in missing:
                missing.remove(type(event))
                found.append(event)
            if not missing:
                break
    return found


async def count(worker: Worker, kinds: Iterable[type[Any]]) -> int:
    """Count the events of some kinds that were written, in the log and beside it."""
    names = ", ".join(f"'{kind.message_type}'" for kind in kinds)
    [[number]] = await query(
        worker.store_url,
        "SELECT (SELECT COUNT(*) FROM scheduled_messages"
        f" WHERE recipient_channel = $1 AND message_type IN ({names}))"
        f" + (SELECT COUNT(*) FROM bot_messages WHERE recipient_channel = $1 AND message_type IN ({names}))",
        EVENTS_CHANNEL,
    )
    return int(number)


def step(id: str, **fields: Any) -> bus.WorkflowStepLog:
    values = {"step_id": f"name of {id}", "step_name": f"Step {id}", "status": StepStatus.WAITING_APPROVAL}
    return bus.WorkflowStepLog(id=id, run_id="r", **values | fields)


async def create(bot: bus.Bot, id: str) -> None:
    run = WorkflowRun(
        id=id,
        workflow_id="w",
        workflow_name="w",
        trigger_type="manual",
        started_at="2026-01-01T00:00:00.000000Z",
    )
    await bot.workflows.create_run(run)


async def test_sessions_and_dead_letters_are_told(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve:
        await eve.subscribe(EVENTS_CHANNEL)
        async with worker.connect(bot="ann") as ann:
            await eve.send("ann", "are you there?")
            async for message in ann.messages():
                await message.term("nobody is", confirm=True)
                break
        opened, dead, ended = await next_events(
            eve, events.SessionOpened, events.DeadLettersAdded, events.SessionEnded
        )
        assert (opened.bot, opened.sessions) == ("ann", 1)
        assert (dead.mailbox, dead.dead_letters) == ("ann", 1)
        assert [(each.reason, each.attempts, each.channel) for each in dead.listed] == [("nobody is", 1, None)]
        assert (ended.bot, ended.sessions) == ("ann", 0)


async def test_each_approval_is_told_once_however_it_is_asked_for(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await create(ann, "r")
        await eve.subscribe(EVENTS_CHANNEL)
        await ann.workflows.create_step_log(step("created"))
        await ann.workflows.create_step_log(step("created"))
        await ann.workflows.create_step_log(step("moved", status=StepStatus.RUNNING))
        await ann.workflows.update_step_status("moved", StepStatus.WAITING_APPROVAL)
        await ann.workflows.update_step_status("moved", StepStatus.WAITING_APPROVAL)
        await ann.workflows.create_step_log(step("runs", status=StepStatus.RUNNING))
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ann.workflows.create_step_log, step(f"beside {number}"))
        told = await next_events(eve, *[events.ApprovalWaiting] * 22)
        assert told[0] == events.ApprovalWaiting(
            run_id="r", step_id="name of created", step_name="Step created", id="created"
        )
        expected = ["created", "moved", *(f"beside {number}" for number in range(20))]
        assert sorted(event.id for event in told) == sorted(expected)
        assert await count(worker, [events.ApprovalWaiting]) == 22


async def test_an_approval_that_a_commit_asks_for_is_told(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await eve.subscribe(EVENTS_CHANNEL)
        async with ann.workflows.run("w", id="r") as run:
            with pytest.raises(bus.ApprovalTimedOut):
                await run.approval("release", {"ok?": True}, timeout=0.5)
        [event] = await next_events(eve, events.ApprovalWaiting)
        assert (event.run_id, event.step_id) == ("r", "release")


async def test_crashed_runs_are_told_together(store_url: str) -> None:
    with Worker(store_url) as worker:
        async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
            await ann.workflows.save_definition(W)
            await eve.subscribe(EVENTS_CHANNEL)
            for number in range(12):
                await create(ann, f"r{number}")
                await ann.workflows.claim_run(f"r{number}", "ann", 0.2)
            told: list[Any] = []
            while sum(event.runs for event in told) < 12:
                told += await next_events(eve, events.RunsCrashed)
            assert all(len(event.listed) == min(event.runs, 10) for event in told)
            assert told[0].listed[0].workflow_name == "w"
            assert len({run.holder for event in told for run in event.listed}) == 1


async def test_a_worker_that_is_killed_loses_and_repeats_no_approval(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann, worker.connect(bot="eve") as eve:
        await ann.workflows.save_definition(W)
        await create(ann, "r")
        await eve.subscribe(EVENTS_CHANNEL)
    for number in range(5):
        async with worker.connect(bot="ann", max_in_flight=0) as ann:
            await ann.workflows.create_step_log(step(str(number)))
            await anyio.to_thread.run_sync(worker.kill)
            await anyio.to_thread.run_sync(worker.start)
    async with worker.connect(bot="eve") as eve:
        told = await next_events(eve, *[events.ApprovalWaiting] * 5)
        assert [event.id for event in told] == ["0", "1", "2", "3", "4"]
    assert await count(worker, [events.ApprovalWaiting]) == 5


async def test_nothing_is_written_if_nobody_listens_or_it_is_turned_off(store_url: str) -> None:
    with Worker(store_url, Settings(events=EventSettings(publish="never"))) as worker:
        async with worker.connect(bot="ann") as ann:
            await ann.workflows.save_definition(W)
            await create(ann, "r")
            await ann.subscribe(EVENTS_CHANNEL)
            await ann.workflows.create_step_log(step("s"))
            await ann.unsubscribe(EVENTS_CHANNEL)
    with Worker(store_url) as worker:
        async with worker.connect(bot="ann") as ann:
            await ann.workflows.create_step_log(step("t"))
        assert await count(worker, [events.ApprovalWaiting, events.SessionOpened, events.SessionEnded]) == 0


async def test_nobody_else_publishes_there(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.subscribe(EVENTS_CHANNEL)
        with pytest.raises(RequestError, match="is for the worker's events"):
            await ann.publish(EVENTS_CHANNEL, "all is well")
        [channel] = [each for each in await ann.channels() if each.name == EVENTS_CHANNEL]
        assert channel.created_by_bot_id == WORKER_ID


async def test_a_watch_is_a_listener(worker: Worker) -> None:
    async with worker.connect(bot="eve", max_in_flight=0) as eve, eve.watch(EVENTS_CHANNEL) as watch:
        number, told = 0, None
        with anyio.fail_after(BOUND_SECONDS):
            while not await count(worker, [events.SessionOpened]):  # the tap hears of a listener beside the calls
                async with worker.connect(bot=f"ann-{number}"):
                    number += 1
            async for message in watch:
                told = message.message_type
                break
        assert told in ("session.opened", "session.ended")


def test_an_event_of_a_later_version_is_no_error() -> None:
    assert events.read_event("moon.eclipsed", {"at": "now"}) is None
    told = events.read_event("messages.removed", {"at": "now", "messages": 3, "phase": "full"})
    assert told == events.MessagesRemoved(at="now", messages=3)
    with pytest.raises(msgspec.ValidationError):
        events.read_event("messages.removed", {"at": "now", "messages": "three"})
