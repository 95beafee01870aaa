"""What is larger than a frame: written and read in parts, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.errors import TooLarge
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowStepLog
from bus.settings import Limits, Settings
from bus.testing import Worker

from .fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())
BOUND_SECONDS = 60
FRAME_BYTES_MAX = 16 * 1024
"""A small one, so that a value has many parts."""

LARGE = "üx" * 200_000


@pytest.fixture
def small(store_url: str) -> Iterator[Worker]:
    limits = Limits(frame_bytes_max=FRAME_BYTES_MAX, body_bytes_max=8 * 1024)
    with Worker(store_url, Settings(limits=limits)) as running:
        yield running


def held_bytes(worker: Worker) -> int:
    """Return what the worker has of frames that are not whole, and of answers that are being read."""
    assert worker._broker is not None
    return worker._broker._core.large._total


async def until(worker: Worker, held: bool) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        while True:
            if (held_bytes(worker) > 0) is held:
                return
            await anyio.sleep(0.001)


# ── Both ways ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("announce", [True, False])
async def test_outputs_contexts_and_commits_of_any_size(small: Worker, announce: bool) -> None:
    async with small.connect(bot="a") as bot:

        async def body(run: bus.Run) -> None:
            assert await run.step("fetch", lambda text: {"text": text}, LARGE, announce=announce) == {"text": LARGE}
            run.context["draft"] = LARGE[::-1]
            async with run.commit("announce", output=[LARGE, 1]) as tx:
                for number in range(30):
                    tx.publish("news", f"{number}" * 3_000)

        async def leave_undone() -> None:
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                await body(run)
                raise bus.WorkerUnavailable("no answer")

        with pytest.raises(bus.WorkerUnavailable), anyio.fail_after(BOUND_SECONDS):
            await leave_undone()
        assert (await bot.channels())[0]["messages"] == 30
        async with bot.workflows.run("digest", id="r") as run:
            await body(run)
            assert run.context == {"draft": LARGE[::-1]}
        assert (await bot.channels())[0]["messages"] == 30
        rows = await bot.workflows.list_step_logs("r")
        assert [(row.step_id, row.input, row.output) for row in rows] == [
            ("fetch", [LARGE], {"text": LARGE}),
            ("announce", None, [LARGE, 1]),
        ]
        assert await bot.workflows.get_step_log(rows[0].id) == rows[0]
        assert await bot.workflows.list_step_logs("r", 1, offset=1) == rows[1:]
        [run_record] = await bot.workflows.list_runs("digest")
        assert run_record.context == {"draft": LARGE[::-1]}
        assert run_record.status == RunStatus.COMPLETED
    assert held_bytes(small) == 0


async def test_many_at_once_wait_for_each_other(small: Worker) -> None:
    async with small.connect(bot="a") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            async with (
                bot.workflows.run("digest", id="r", definition=DIGEST) as run,
                anyio.create_task_group() as t,
            ):
                for number in range(10):
                    t.start_soon(run.branch(f"{number}").step, "fetch", lambda number: f"{number}" * 50_000, number)
        rows = await bot.workflows.list_step_logs("r")
        assert sorted(row.output[:1] for row in rows) == [f"{number}" for number in range(10)]
        assert {len(row.output) for row in rows} == {50_000}


async def test_only_what_is_about_workflows_goes_in_parts(small: Worker) -> None:
    async with small.connect(bot="a") as bot:
        with pytest.raises(TooLarge, match=f"the frame has .* the maximum is {FRAME_BYTES_MAX}"):
            await bot.retry_dead_letters(range(10_000))


# ── Faults ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_between_the_parts_begins_again(small: Worker, how: str) -> None:
    async with small.connect(bot="a") as bot:
        await bot.workflows.save_definition(DIGEST)
        async with bot.workflows.run("digest", id="r") as run:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run.step, "fetch", lambda: LARGE * 4)
                await until(small, True)
                await anyio.to_thread.run_sync(small.stop if how == "stop" else small.kill)
                await anyio.to_thread.run_sync(small.start)
            [row] = await bot.workflows.list_step_logs("r")
            assert (row.status, row.output) == (StepStatus.COMPLETED, LARGE * 4)


async def test_parts_of_a_session_that_ends_are_forgotten(small: Worker) -> None:
    async with small.connect(bot="a") as bot:
        await bot.workflows.save_definition(DIGEST)
        await bot.workflows.create_run(
            bus.WorkflowRun(
                id="r", workflow_id="digest", workflow_name="digest", trigger_type="manual", started_at=""
            )
        )
        row = WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s", output=LARGE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bot.workflows.create_step_log, row)
            await until(small, True)
            tasks.cancel_scope.cancel()
        assert await bot.workflows.list_step_logs("r") == []
        assert held_bytes(small) > 0
    await until(small, False)


async def call(bot: bus.Bot) -> Any:
    return await bot.workflows.create_run(
        bus.WorkflowRun(
            id="r", workflow_id="d", workflow_name="d", trigger_type="manual", started_at="", context="x" * 9_000
        )
    )


async def test_what_the_worker_forgot_or_has_no_room_for_is_sent_again() -> None:
    with FakeWorker("inproc://large") as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(worker.welcome, max_frame_bytes=4096, max_parts_bytes=10**6))

            async def answer() -> bytes:
                """Take parts until the frame is whole, and return it."""
                frame = b""
                while (part := await worker.receive("part", "whole"))["op"] == "part":
                    assert part["offset"] == len(frame)
                    frame += msgspec.json.decode(b'"%b"' % part["data"].encode(), type=bytes)
                    worker.send(op="ok", request=part["request"], value={"received": len(frame)})
                    assert part["total"] >= len(frame)
                worker.send(op="ok", request=part["request"], value=None)
                return frame

            async with bus.connect(worker.url, bot="b", context=worker.context) as bot:
                done = anyio.Event()

                async def create() -> None:
                    with pytest.raises(msgspec.ValidationError):  # the run was answered by null
                        await call(bot)
                    done.set()

                tasks.start_soon(create)
                refusals: list[dict[str, Any]] = [
                    {"code": "not_found", "message": "gone", "details": {"parts": "unknown"}},
                    {"code": "busy", "message": "no room", "retry": True},
                ]
                uploads = []
                for refusal in refusals:
                    first, second = await worker.receive("part"), None
                    worker.send(op="ok", request=first["request"], value={"received": 1})
                    second = await worker.receive("part")
                    assert (first["offset"], first["upload"]) == (0, second["upload"])
                    uploads.append(first["upload"])
                    worker.send(op="error", request=second["request"], **refusal)
                whole = msgspec.json.decode(await answer())
                assert (whole["op"], whole["call"]) == ("workflow", "create_run")
                assert len(set(uploads)) == 2
                with anyio.fail_after(BOUND_SECONDS):
                    await done.wait()
                tasks.start_soon(worker.farewell)
