"""A run that its own commit completes: nothing of it is lost, done twice, or taken for another's doing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import anyio
import pytest

import bus
from bus.errors import Fenced
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.runs.opening import open_run
from bus.runs.starting import Executor, Start
from bus.testing import Worker
from tests.contract.executing import Seen

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

BOUND_SECONDS = 30


async def test_the_last_commit_completes_the_run(worker: Worker) -> None:
    seen = Seen()
    async with worker.connect(bot="digester") as bot, worker.connect(bot="asker") as asker:
        await asker.send("digester", 1)
        message = await bot.receive()

        async def execute() -> None:
            async with bot.workflows.run("digest", id=message.id, definition=DIGEST) as run:
                await run.step("fetch", seen.double, 1)
                async with run.commit("announce", output="out") as tx:
                    tx.publish("news", "once")
                    tx.ack(message)
                    tx.context({"announced": True})
                    tx.complete()
                stored = await bot.workflows.get_run(run.id)
                assert stored is not None
                assert (stored.status, stored.context) == (RunStatus.COMPLETED, {"announced": True})
                assert await bot.workflows.get_lease(run.id) is None
                assert run.completed
                with pytest.raises(bus.StepChanged, match="the run is completed"):
                    await run.step("more", seen.double, 2)
                with pytest.raises(bus.StepChanged, match="the run is completed"):
                    async with run.commit("again"):
                        raise AssertionError("it must not open")
                await run.save_context()
                raise LookupError("after the end")

        with anyio.fail_after(BOUND_SECONDS):
            for _ in range(2):  # the second time from what is recorded
                with pytest.raises(LookupError):
                    await execute()
        stored = await bot.workflows.get_run(message.id)
        assert stored is not None
        assert (stored.status, stored.error) == (RunStatus.COMPLETED, None)
        assert [stored.body for stored in await bot.history(channel="news")] == ["once"]
    assert seen.calls == {1: 1}


async def test_a_run_is_not_completed_beside_its_steps(worker: Worker) -> None:
    seen, finish = Seen(), anyio.Event()
    async with worker.connect(bot="a") as bot:

        async def work() -> None:
            seen.note("works")
            await finish.wait()

        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(run.step, "work", work)
                    await seen.wait_for("works")
                    with pytest.raises(RuntimeError, match="await them first"):
                        async with run.commit("announce") as tx:
                            tx.complete()
                    finish.set()
                assert not run.completed
        assert await bot.workflows.get_completed_step_ids("r") == ["work"]


class Crossing:
    """Workflows where renewals come between a commit and its answer, and the answer is lost or comes then."""

    def __init__(self, workflows: Any, *, lost: bool) -> None:
        self._workflows = workflows
        self._lost = lost
        self._refused = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflows, name)

    async def renew_run(self, *args: Any, **options: Any) -> Any:
        try:
            return await self._workflows.renew_run(*args, **options)
        except Fenced:
            self._refused.set()
            raise

    async def commit(self, **options: Any) -> Any:
        committed = await self._workflows.commit(**options)
        await self._refused.wait()
        await anyio.wait_all_tasks_blocked()  # what the refusal leads to has happened
        if self._lost:
            raise bus.WorkerUnavailable("no answer")
        return committed


class Stalling:
    """Workflows where the first commit is carried out, and its answer does not come."""

    def __init__(self, workflows: Any) -> None:
        self._workflows = workflows
        self.waiting = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflows, name)

    async def commit(self, **options: Any) -> Any:
        committed = await self._workflows.commit(**options)
        if not self.waiting.is_set():
            self.waiting.set()
            await anyio.sleep_forever()
        return committed


@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
async def test_a_renewal_that_a_commit_refuses_is_no_loss(worker: Worker, lost: bool) -> None:
    async with worker.connect(bot="a") as bot:
        welcome = bot._connection.welcome
        assert welcome is not None

        async def execute(workflows: Any) -> bool:
            executor = Executor(workflows, welcome.bot_id, 0.6)
            async with open_run(executor, "digest", Start(id="r", definition=DIGEST)) as run:
                try:
                    async with run.commit("announce") as tx:
                        tx.publish("news", "once")
                        tx.complete()
                finally:
                    await anyio.wait_all_tasks_blocked()  # a renewal has its turn
            return run.completed

        with anyio.fail_after(BOUND_SECONDS):
            with pytest.raises(bus.WorkerUnavailable) if lost else nullcontext():
                await execute(Crossing(bot.workflows, lost=lost))
            assert await execute(bot.workflows)
        assert [stored.body for stored in await bot.history(channel="news")] == ["once"]


async def test_a_commit_that_is_cancelled_completes_all_the_same(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        welcome = bot._connection.welcome
        assert welcome is not None
        stalling = Stalling(bot.workflows)

        async def announce(run: bus.Run) -> None:
            async with run.commit("announce") as tx:
                tx.publish("news", "once")
                tx.complete()

        with anyio.fail_after(BOUND_SECONDS):
            async with open_run(
                Executor(stalling, welcome.bot_id), "digest", Start(id="r", definition=DIGEST)
            ) as run:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(announce, run)
                    await stalling.waiting.wait()
                    tasks.cancel_scope.cancel()
                assert run.completed
        assert [stored.body for stored in await bot.history(channel="news")] == ["once"]
