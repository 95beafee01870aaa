"""Programs that wait for a run are woken by the worker: they look so seldom by themselves that these tests would
not end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.errors import SlotsTaken
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun
from bus.runs.opening import open_run
from bus.runs.starting import Executor, Start
from bus.runs.timing import Timing
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


async def test_a_task_that_waits_for_a_run_of_its_own_program_is_woken_without_the_worker(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker tells a session nothing of a run that it has claimed since, in another task."""
    entered: list[bool] = []

    async def wait(bot: bus.Bot) -> None:
        async with opened(bot, "r") as run:
            entered.append(run.completed)

    with anyio.fail_after(BOUND_SECONDS):
        async with patient(worker, "ann") as ann, anyio.create_task_group() as tasks, opened(ann, "r"):
            tasks.start_soon(wait, ann)
            while not ann.workflows._crowd.resting:
                await anyio.sleep(0.01)
            monkeypatch.setattr(ann._connection.wakes, "hear", lambda hint: None)
    assert entered == [True]


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


# ── Slots ────────────────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """Workflows that count the claims."""

    def __init__(self, workflows: Any) -> None:
        self._workflows = workflows
        self.claims = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflows, name)

    async def claim_run(self, *args: Any, **options: Any) -> Any:
        self.claims += 1
        return await self._workflows.claim_run(*args, **options)


async def test_slots_are_handed_over_between_programs_in_order_and_without_asking(worker: Worker) -> None:
    """Sixty runs at twenty at once, in two programs: each is claimed at most twice, and three rounds do."""
    runs, at_once = 60, 20
    many = msgspec.structs.replace(WORK, concurrency=at_once)
    started: list[int] = []
    ended = [anyio.Event() for _ in range(runs)]
    changed = Seen()

    async def execute(workflows: Any, bot_id: str, timing: Timing, number: int) -> None:
        executor = Executor(workflows, bot_id, LONG_SECONDS, timing)
        async with open_run(executor, "work", Start(id=f"r{number}", definition=many), timeout=None):
            started.append(number)
            changed.note("started")
            await ended[number].wait()
        changed.note("ended")

    async with patient(worker, "ann") as ann, patient(worker, "bob") as bob:
        await ann.workflows.save_definition(many)
        programs = []
        for bot in (ann, bob):
            welcome = bot._connection.welcome
            assert welcome is not None
            programs.append((Counted(bot.workflows), welcome.bot_id, bot.workflows.timing))
        with anyio.fail_after(2 * BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                for number in range(runs):
                    tasks.start_soon(execute, *programs[number % 2], number)
                    if number < at_once:
                        await changed.wait_for("started", number + 1)
                    else:
                        await is_queued(ann, f"r{number}")
                for done in range(0, runs, at_once):
                    await changed.wait_for("started", done + at_once)
                    assert sorted(started) == list(range(done + at_once)), "the next ones, and all of them"
                    for number in range(done, done + at_once):
                        ended[number].set()
        waited = runs - at_once
        claims = sum(counted.claims for counted, _, _ in programs)
        assert claims <= runs + 2 * waited, "each run that waits is woken about once"


async def test_who_gives_up_or_goes_away_blocks_nobody(worker: Worker) -> None:
    seen, leave = Seen(), anyio.Event()

    async def hold(bot: bus.Bot) -> None:
        async with opened(bot, "a"):
            seen.note("a")
            await leave.wait()

    async def wait(bot: bus.Bot, id: str) -> None:
        async with opened(bot, id):
            seen.note(id)

    with anyio.fail_after(BOUND_SECONDS):
        async with patient(worker, "ann") as ann, anyio.create_task_group() as tasks:
            tasks.start_soon(hold, ann)
            await seen.wait_for("a")
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(wait, ann, "b")
                await is_queued(ann, "b")
                waiting.cancel_scope.cancel()
            async with patient(worker, "bob") as bob, anyio.create_task_group() as waiting:
                waiting.start_soon(wait, bob, "c")
                await is_queued(ann, "c")
                bob._connection.reconnect()  # as after a break: it keeps its place
                waiting.cancel_scope.cancel()
            tasks.start_soon(wait, ann, "d")
            await is_queued(ann, "d")
            leave.set()
            await seen.wait_for("d")
            assert seen.calls == {"a": 1, "d": 1}


async def test_a_place_is_kept_while_nobody_claims_again(worker: Worker) -> None:
    async def wait(bot: bus.Bot) -> None:
        async with bot.workflows.run("work", id="b", definition=WORK, lease_seconds=0.1, timeout=None):
            raise AssertionError("there is no slot")

    async with (
        patient(worker, "ann") as ann,
        patient(worker, "bob") as bob,
        opened(ann, "a"),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(wait, bob)
        with anyio.fail_after(BOUND_SECONDS):
            await is_queued(ann, "b")
            await anyio.sleep(0.3)  # longer than the lease that it asked for
            await new_run(ann, "c")
            with pytest.raises(SlotsTaken) as refused:
                await ann.workflows.claim_run("c", "ann")
        assert refused.value.ahead == 1
        tasks.cancel_scope.cancel()


async def new_run(bot: bus.Bot, id: str) -> None:
    """Create a run that nobody opens."""
    await bot.workflows.create_run(
        WorkflowRun(
            id=id,
            workflow_id="work",
            workflow_name="work",
            trigger_type="manual",
            started_at="2026-01-01T00:00:00Z",
        )
    )


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
