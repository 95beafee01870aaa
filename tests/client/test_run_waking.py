"""Programs that wait for a run are woken by the worker: they look so seldom by themselves that these tests would
not end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition
from bus.testing import Worker
from tests.contract.executing import Seen

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 30

LONG_SECONDS = 3000.0
"""Longer than any test, for looks and for leases."""

WORK = WorkflowDefinition(id="work", name="work", owner=GlobalOwner(), concurrency=1)


@asynccontextmanager
async def patient(worker: Worker, name: str) -> AsyncIterator[bus.Bot]:
    """Connect a bot that looks at its runs only when it is told to."""
    async with worker.connect(bot=name) as bot:
        bot.workflows._backstop_seconds = LONG_SECONDS
        yield bot


def opened(bot: bus.Bot, id: str, **options: Any) -> Any:
    return bot.workflows.run("work", id=id, definition=WORK, lease_seconds=LONG_SECONDS, timeout=None, **options)


async def is_queued(bot: bus.Bot, id: str) -> None:
    """Wait until a run waits for a slot."""
    while True:
        if any(run.id == id and run.queued_at for run in await bot.workflows.list_all_runs()):
            return
        await anyio.sleep(0.01)


async def has_status(bot: bus.Bot, id: str, status: RunStatus) -> None:
    """Wait until a run has a status."""
    while True:
        run = await bot.workflows.get_run(id)
        if run is not None and run.status == status:
            return
        await anyio.sleep(0.01)


async def test_an_answer_wakes_the_bot_that_waits_for_it(worker: Worker) -> None:
    answers: list[Any] = []

    async def ask(bot: bus.Bot) -> None:
        async with opened(bot, "r") as run:
            answers.append(await run.approval("buy"))

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            patient(worker, "ann") as ann,
            worker.connect(bot="bob") as bob,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(ask, ann)
            await has_status(bob, "r", RunStatus.PAUSED)
            [row] = await bob.workflows.list_waiting_approvals("r")
            await bob.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
    assert answers == [{"approved": True}]


@pytest.mark.parametrize("waits", [False, True], ids=["at work", "waiting"])
async def test_a_run_that_is_cancelled_ends_its_program_at_once(worker: Worker, waits: bool) -> None:
    seen = Seen()

    async def work(bot: bus.Bot) -> None:
        async with opened(bot, "r") as run:
            seen.note("opened")
            if waits:
                await run.approval("never")
            await anyio.sleep_forever()

    async def cancelled(bot: bus.Bot) -> None:
        with pytest.raises(bus.RunCancelled):
            await work(bot)

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            patient(worker, "ann") as ann,
            worker.connect(bot="bob") as bob,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(cancelled, ann)
            await seen.wait_for("opened")
            if waits:
                await has_status(bob, "r", RunStatus.PAUSED)
            await bob.workflows.update_run_status("r", RunStatus.CANCELLED)


async def test_a_run_that_is_resumed_goes_on_at_once(worker: Worker) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with patient(worker, "ann") as ann, worker.connect(bot="bob") as bob:
            async with opened(ann, "other"):
                pass
            async with anyio.create_task_group() as tasks:
                done = anyio.Event()

                async def work() -> None:
                    async with opened(ann, "r") as run:
                        await run.approval("go")
                    done.set()

                tasks.start_soon(work)
                await has_status(bob, "r", RunStatus.PAUSED)
                await bob.workflows.update_run_status("r", RunStatus.PAUSED, error="not now")
                [row] = await bob.workflows.list_waiting_approvals("r")
                await bob.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
                assert not done.is_set()
                await bob.workflows.update_run_status("r", RunStatus.PENDING)
                await done.wait()


@pytest.mark.parametrize("ends", ["completed", "given back", "resting", "crashed"])
async def test_a_free_slot_wakes_the_first_that_waits_for_it(worker: Worker, ends: str) -> None:
    seen, leave = Seen(), anyio.Event()

    async def first(bot: bus.Bot) -> None:
        lease_seconds = 0.2 if ends == "crashed" else LONG_SECONDS
        with suppress(bus.WorkerUnavailable, bus.RunLost):
            async with bot.workflows.run("work", id="a", definition=WORK, lease_seconds=lease_seconds) as run:
                seen.note("a")
                await leave.wait()
                if ends == "given back":
                    raise bus.WorkerUnavailable("no answer")
                if ends == "resting":
                    await run.sleep(2 * LONG_SECONDS)
                if ends == "crashed":
                    run._hold.stop_renewing()
                    await anyio.sleep_forever()

    async def second(bot: bus.Bot) -> None:
        async with opened(bot, "b"):
            seen.note("b")

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            patient(worker, "ann") as ann,
            patient(worker, "bob") as bob,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(first, ann)
            await seen.wait_for("a")
            tasks.start_soon(second, bob)
            await is_queued(ann, "b")
            leave.set()
            await seen.wait_for("b")
            tasks.cancel_scope.cancel()


async def test_who_could_not_claim_a_held_run_is_woken_when_it_is_given_back(worker: Worker) -> None:
    seen, leave = Seen(), anyio.Event()

    async def first(bot: bus.Bot) -> None:
        with suppress(bus.WorkerUnavailable):
            async with opened(bot, "r"):
                seen.note("first")
                await leave.wait()
                raise bus.WorkerUnavailable("no answer")

    async def second(bot: bus.Bot) -> None:
        seen.note("asks")
        async with opened(bot, "r"):
            seen.note("second")

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            patient(worker, "ann") as ann,
            patient(worker, "bob") as bob,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(first, ann)
            await seen.wait_for("first")
            tasks.start_soon(second, bob)
            await seen.wait_for("asks")
            for _ in range(3):  # its claim was refused by then, or is refused for a run that is free again
                await bob.workflows.get_run("r")
            leave.set()
            await seen.wait_for("second")


async def test_a_run_that_is_watched_wakes_at_each_change(worker: Worker) -> None:
    async with patient(worker, "ann") as ann, worker.connect(bot="bob") as bob:
        assert await bob.workflows.watch_run("r") is None

        async def change(expected: RunStatus) -> None:
            with anyio.fail_after(BOUND_SECONDS):
                while (run := await bob.workflows.watch_run("r")) is None or run.status != expected:
                    await woken.wait()

        woken = bob.workflows.woken("r")
        async with opened(ann, "r") as run:
            await change(RunStatus.RUNNING)
            woken = bob.workflows.woken("r")
            await run.step("s", len, "abc")
            with anyio.fail_after(BOUND_SECONDS):
                await woken.wait()
            woken = bob.workflows.woken("r")
        await change(RunStatus.COMPLETED)


async def test_who_waits_looks_again_when_the_connection_is_renewed(worker: Worker) -> None:
    async with worker.connect(bot="bob") as bob:
        woken, other = bob.workflows.woken("r"), bob.workflows.woken("s")
        assert bob.workflows.woken("r") is woken
        await anyio.to_thread.run_sync(worker.stop)
        assert not woken.is_set()
        await anyio.to_thread.run_sync(worker.start)
        with anyio.fail_after(BOUND_SECONDS):
            await woken.wait()
            await other.wait()
        assert bob.workflows.woken("r") is not woken


async def test_a_run_that_is_to_start_later_is_opened_when_its_time_has_come(worker: Worker) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with patient(worker, "ann") as ann, worker.connect(bot="bob") as bob:
            begin = datetime.now(UTC) + timedelta(seconds=0.3)
            handle = await bob.workflows.start("work", definition=WORK, run_at=begin)
            async with opened(ann, handle.id) as run:
                assert datetime.now(UTC) >= begin
                assert run.fence == 1


async def test_who_waits_for_a_result_gets_it_when_the_run_ends(worker: Worker) -> None:
    results: list[Any] = []

    async def wait(handle: bus.RunHandle) -> None:
        results.append(await handle.result())

    with anyio.fail_after(BOUND_SECONDS):
        async with patient(worker, "ann") as ann, worker.connect(bot="bob") as bob:
            handle = await ann.workflows.start("work", definition=WORK)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, handle)
                await anyio.wait_all_tasks_blocked()
                async with opened(bob, handle.id) as run:
                    run.result = "done"
    assert results == ["done"]
