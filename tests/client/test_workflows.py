"""Workflows over a bot's connection: what the contract suite does not see, on every event loop."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.errors import Fenced, NotFound, RunHeld, SlotsTaken, StoreError, TooLarge
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import WorkflowRepository
from bus.settings import Limits, Settings
from bus.testing import Worker

from ..engines import sqlite_only
from .fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

STARTED = "2026-01-01T00:00:00.000000Z"


def run(id: str, **fields: Any) -> WorkflowRun:
    names = {"id": id, "workflow_id": "w", "workflow_name": "w", "trigger_type": "manual", "started_at": STARTED}
    return WorkflowRun(**{**names, **fields})


def log(id: str, run_id: str, **fields: Any) -> WorkflowStepLog:
    return WorkflowStepLog(**{"id": id, "run_id": run_id, "step_id": id, "step_name": id, **fields})


async def prepare(workflows: WorkflowRepository, *ids: str, concurrency: int | None = None) -> None:
    await workflows.save_definition(
        WorkflowDefinition(id="w", name="w", owner=GlobalOwner(), concurrency=concurrency)
    )
    for id in ids:
        await workflows.create_run(run(id))


@contextmanager
def nobody_can_write(database: str) -> Iterator[None]:
    """Hold the database's write lock: what the worker is asked to write stays at hand."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.rollback()
        connection.close()


# ── Many at once ─────────────────────────────────────────────────────────────────────────────────────────


async def test_many_runs_at_once_are_never_told_to_wait(worker: Worker) -> None:
    async with worker.connect(bot="a", max_in_flight=0) as a:
        workflows = a.workflows
        await prepare(workflows, *(f"{number}" for number in range(64)))

        async def execute(id: str) -> None:
            fence = (await workflows.claim_run(id, "a")).fence
            for step in range(5):
                name = f"{id}-{step}"
                await workflows.create_step_log(log(name, id, status=StepStatus.RUNNING), fence=fence)
                await workflows.update_step_status(name, StepStatus.COMPLETED, {"n": step}, fence=fence)
                await workflows.renew_run(id, fence)
            assert await workflows.get_completed_step_ids(id) == [f"{id}-{step}" for step in range(5)]
            await workflows.update_run_status(id, RunStatus.COMPLETED, context={"id": id}, fence=fence)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(execute, f"{number}")
        done = await workflows.list_runs("w", limit=None)
        assert {each.id: each.context["id"] for each in done} == {f"{n}": f"{n}" for n in range(64)}


@sqlite_only("the limit is the worker's; the file is locked to reach it")
@pytest.mark.parametrize("limit", ["workflow_calls_max", "workflow_bytes_max"])
async def test_more_calls_than_the_limit_are_refused(store_url: str, limit: str) -> None:
    limits = Limits(**{limit: 2 if limit == "workflow_calls_max" else 150})
    with Worker(store_url, Settings(limits=limits)) as worker:
        async with worker.connect(bot="a") as a:
            await prepare(a.workflows, "r")
            refusals: list[bus.LimitReached] = []

            async def write(number: int) -> None:
                try:
                    await a.workflows.update_run_status("r", RunStatus.RUNNING, context=f"{number}" * 20)
                except bus.LimitReached as refusal:
                    refusals.append(refusal)

            with anyio.fail_after(30):
                async with anyio.create_task_group() as tasks:
                    with nobody_can_write(store_url):
                        for number in range(9):
                            tasks.start_soon(write, number)
                        while len(refusals) < 7:
                            await anyio.sleep(0.01)
            assert len(refusals) == 7, "two were at hand"
            assert {(refusal.code, refusal.retry) for refusal in refusals} == {("busy", True)}
            await a.workflows.get_run("r")


# ── When the worker is away ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_holder_goes_on_after_a_restart(worker: Worker, how: str) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        await prepare(a.workflows, "r")
        fence = (await a.workflows.claim_run("r", "a", 600)).fence
        await anyio.to_thread.run_sync(worker.stop if how == "stop" else worker.kill)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(a.workflows.create_step_log, log(f"{number}", "r"))
                await anyio.wait_all_tasks_blocked()
                await anyio.to_thread.run_sync(worker.start)
            assert len(await a.workflows.list_step_logs("r")) == 10
            with pytest.raises(RunHeld):
                await b.workflows.claim_run("r", "b")
            await a.workflows.renew_run("r", fence)
            await a.workflows.update_run_status("r", RunStatus.COMPLETED, fence=fence)


async def test_a_claim_whose_answer_was_lost_is_repeated_with_its_id() -> None:
    with FakeWorker("inproc://claim") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                fences: list[int] = []

                async def claim() -> None:
                    fences.append((await bot.workflows.claim_run("r", "b")).fence)

                tasks.start_soon(claim)
                first = await worker.receive("workflow")
                worker.send(op="closing")
                await worker.welcome()
                again = await worker.receive("workflow")
                assert again == first
                assert first["arguments"]["claim_id"]
                assert first["arguments"]["holder"] == "b"
                run = {"id": "r", "workflow_id": "w", "workflow_name": "w", "trigger_type": "x", "started_at": ""}
                claimed = {"run": {**run, "status": "running", "colour": "red"}, "fence": 7, "expires_at": ""}
                worker.send(op="ok", request=again["request"], value=claimed)
                with anyio.fail_after(30):
                    while not fences:
                        await anyio.sleep(0.002)
                assert fences == [7]
                tasks.start_soon(claim)
                other = await worker.receive("workflow")
                assert other["arguments"]["claim_id"] != first["arguments"]["claim_id"]
                worker.send(op="ok", request=other["request"], value=claimed)
                tasks.start_soon(worker.farewell)


async def test_a_claim_is_made_again_by_whoever_names_it(worker: Worker) -> None:
    """After WorkerUnavailable nobody knows whether the run is held; the same claim finds out."""
    async with worker.connect(bot="a") as a:
        await prepare(a.workflows, "r")
        first = await a.workflows.claim_run("r", "a", 600, claim_id="mine")
    async with worker.connect(bot="a") as again:
        with pytest.raises(RunHeld):
            await again.workflows.claim_run("r", "a", 600)
        assert (await again.workflows.claim_run("r", "a", 600, claim_id="mine")).fence == first.fence


async def test_without_a_worker_a_call_gives_up(worker: Worker) -> None:
    async with worker.connect(bot="a", timeout=3) as a:
        await anyio.to_thread.run_sync(worker.kill)
        with pytest.raises(bus.WorkerUnavailable, match="get_run"):
            await a.workflows.get_run("r")
        await anyio.to_thread.run_sync(worker.start)
    with pytest.raises(bus.ClosedError):
        await a.workflows.get_run("r")


async def test_values_are_not_sent_back_and_returned_as_they_are_read_back(tmp_path: Path) -> None:
    returned: list[Any] = []

    async def write(bot: bus.Bot) -> None:
        workflows = bot.workflows
        returned.append(await workflows.create_step_log(log("s", "r", input=("a", 1), output=None), fence=1))
        returned.append(await workflows.update_step_status("s", StepStatus.COMPLETED, (1, 2), fence=1))
        returned.append(await workflows.update_step_status("s", StepStatus.COMPLETED, fence=1))
        returned.append(await workflows.update_run_status("r", RunStatus.COMPLETED, result={"b": (3,)}, fence=1))

    answers: list[Any] = [
        log("s", "r", status=StepStatus.RUNNING),
        log("s", "r", status=StepStatus.COMPLETED, input="stored"),
        log("s", "r", status=StepStatus.COMPLETED, output="stored"),
        run("r", status=RunStatus.COMPLETED, context={"stored": True}),
    ]
    with FakeWorker(f"ipc://{tmp_path}/echoes") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="a")
            tasks.start_soon(worker.welcome)
            async with bot:
                tasks.start_soon(write, bot)
                for answer in answers:
                    call = await worker.receive("workflow")
                    assert call["echo"] is False
                    worker.send(op="ok", request=call["request"], value=answer)
                tasks.start_soon(worker.farewell)
    assert returned == [
        msgspec.structs.replace(answers[0], input=["a", 1]),
        msgspec.structs.replace(answers[1], output=[1, 2]),
        answers[2],
        msgspec.structs.replace(answers[3], result={"b": [3]}),
    ]


# ── Errors and sizes ─────────────────────────────────────────────────────────────────────────────────────


async def test_errors_are_those_of_the_store(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        await prepare(a.workflows, "r", "waits", concurrency=1)
        await a.workflows.claim_run("r", "a")
        with pytest.raises(SlotsTaken) as waits:
            await b.workflows.claim_run("waits", "b")
        assert (waits.value.run_id, waits.value.concurrency, waits.value.ahead) == ("waits", 1, 0)
        await b.workflows.update_run_status("r", RunStatus.CANCELLED)
        with pytest.raises(Fenced) as fenced:
            await a.workflows.renew_run("r", 1)
        assert (fenced.value.status, str(fenced.value)) == (
            "cancelled",
            "run 'r' is cancelled, and no longer held with fence 1",
        )
        with pytest.raises(NotFound) as missing:
            await a.workflows.update_run_status("nowhere", RunStatus.PAUSED)
        assert (missing.value.what, missing.value.key) == ("run", "nowhere")


async def test_a_run_is_claimed_for_nobody_else(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b"):
        await prepare(a.workflows, "r")
        with pytest.raises(bus.Forbidden):
            await a.workflows.claim_run("r", "b")
        assert await a.workflows.get_lease("r") is None


async def test_a_call_that_is_too_large_also_in_parts_is_not_sent(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await prepare(a.workflows, "r")
        with pytest.raises(TooLarge, match="arguments of update_run_status") as refusal:
            await a.workflows.update_run_status("r", RunStatus.RUNNING, context="x" * 40_000_000)
        assert refusal.value.bytes_max <= 36 * 1024 * 1024
        assert (await a.workflows.update_run_status("r", RunStatus.PAUSED)).context == {}
        assert (await a.status())["sessions"] == 1


async def test_a_list_of_any_length_is_read_in_parts(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await prepare(a.workflows, "r")
        for number in range(30):
            await a.workflows.create_step_log(log(f"{number:02}", "r", output="x" * 100_000))
        whole = [step.id for step in await a.workflows.list_step_logs("r")]
        assert whole == [f"{number:02}" for number in range(30)]
        part = await a.workflows.list_step_logs("r", 15, offset=12)
        assert [step.id for step in part] == whole[12:27]
        assert [step.id for step in await a.workflows.list_step_logs("r", 20, offset=25)] == whole[25:]


async def test_what_a_workflow_call_raises_is_the_buss_and_the_stores(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        for refused, code in (
            (a.workflows.renew_run("nowhere", 1), "not_found"),
            (a.workflows.list_runs("w", -1), "bad_request"),
        ):
            with pytest.raises(bus.RequestError) as caught:
                await refused
            assert isinstance(caught.value, StoreError)
            assert (caught.value.code, caught.value.retry) == (code, False)
