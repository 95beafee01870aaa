"""Runs that one bot starts and another executes, over a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

BOUND_SECONDS = 30


@pytest.mark.parametrize("set_before", [False, True], ids=["given to complete", "set before"])
async def test_a_commit_completes_with_a_result(worker: Worker, set_before: bool) -> None:
    async with worker.connect(bot="digester") as bot, worker.connect(bot="asker") as asker:
        handle = await asker.workflows.start("digest", {"url": "x"}, definition=DIGEST)
        assert handle.id in repr(handle)
        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                results = list[object]()

                async def wait() -> None:
                    results.append(await handle.result())

                tasks.start_soon(wait)
                async with bot.workflows.run("digest", id=handle.id) as run:
                    assert run.input == {"url": "x"}
                    async with run.commit("announce") as tx:
                        tx.publish("news", "done")
                        if set_before:
                            run.result = [1]
                            tx.complete()
                        else:
                            tx.complete(result=(1,))
                    run.result = "too late"
        assert results == [[1]]
        async with bot.workflows.run("digest", id=handle.id) as run:
            async with run.commit("announce") as tx:
                tx.complete(result="ignored")
            assert run.result == [1]


async def test_a_result_that_cannot_be_recorded_is_refused_in_the_commit(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:

        async def announce(run: bus.Run) -> None:
            async with run.commit("announce") as tx:
                tx.publish("news", "never")
                tx.complete(result=object())

        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            with pytest.raises(bus.InvalidValue, match="result of run"):
                await announce(run)
            assert not run.completed
        assert "news" not in [channel.name for channel in await bot.channels()]
        assert await bot.workflows.handle("r").status() == RunStatus.COMPLETED


async def test_a_start_needs_a_workflow_and_a_connection(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        with pytest.raises(bus.UnknownWorkflow):
            await asker.workflows.start("never")
        later = datetime.now(UTC) + timedelta(hours=1)
        handle = await asker.workflows.start("digest", definition=DIGEST, run_at=later)
        with pytest.raises(bus.RunNotDue):
            await asker.workflows.claim_run(handle.id, "asker")
    with pytest.raises(RuntimeError, match="connected bot"):
        await bus.Bot("nobody").workflows.start("digest")
