"""When the beginning of a step is on its way, and when it is waited for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.errors import LimitReached, RunLost
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

BOUND_SECONDS = 30


class Calls:
    """The workflow calls of a bot, as they are sent, and the functions of its steps, as they are called."""

    def __init__(self, bot: bus.Bot) -> None:
        self.seen: list[str] = []
        self.refused: set[str] = set()
        """The step ids whose creation does not reach the worker, which refuses it instead."""
        connection: Any = bot._connection
        self._connection = connection
        self._transmit = connection._transmit
        connection._transmit = self.transmit

    def transmit(self, frame: bytes) -> None:
        content = msgspec.json.decode(frame)
        if content.get("call") == "create_step_log":
            step = content["arguments"]["step"]
            self.seen.append(f"{step['status']} {step['step_id']}")
            request = self._connection._requests[content["request"]]
            request.then = partial(self.answered, step["step_id"], request.then)
            if step["status"] == "running" and step["step_id"] in self.refused:
                del self._connection._requests[content["request"]]
                request.fail(LimitReached("busy", "too many calls", retry=True))
                return
        self._transmit(frame)

    def answered(self, step_id: str, then: Callable[[], None] | None) -> None:
        self.seen.append(f"answered {step_id}")
        if then is not None:
            then()

    def step(self, name: str, *, waits: bool = True) -> Any:
        async def function() -> str:
            self.seen.append(f"called {name}")
            if waits:
                await anyio.wait_all_tasks_blocked()
            return name

        return function


async def test_a_step_of_a_new_run_begins_while_that_is_on_its_way(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls = Calls(bot)
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                assert await run.step("a", calls.step("a")) == "a"
        assert calls.seen == ["called a", "running a", "answered a"]
        [row] = await bot.workflows.list_step_logs("r")
        assert (row.status, row.output, row.attempt) == (StepStatus.COMPLETED, "a", 1)


async def test_a_step_that_never_waits_is_recorded_with_its_beginning_in_one_call(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls = Calls(bot)

        async def fail() -> None:
            raise ZeroDivisionError

        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                assert await run.step("a", calls.step("a", waits=False)) == "a"
                with pytest.raises(bus.StepFailed):
                    await run.step("b", fail, retry=bus.Retry(max_attempts=2, delay=0))
                assert await run.step("c", calls.step("c")) == "c"
        assert calls.seen == [
            *("called a", "completed a", "answered a"),
            *("failed b", "answered b", "failed b", "answered b"),
            *("called c", "running c", "answered c"),
        ]
        rows = await bot.workflows.list_step_logs("r")
        assert [(row.step_id, row.status, row.attempt) for row in rows] == [
            ("a", StepStatus.COMPLETED, 1),
            ("b", StepStatus.FAILED, 1),
            ("b", StepStatus.FAILED, 2),
            ("c", StepStatus.COMPLETED, 1),
        ]
        assert all(row.started_at is not None and row.completed_at is not None for row in rows)


async def test_a_beginning_that_waits_for_the_next_session_is_not_withdrawn(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls = Calls(bot)
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                bot._connection.reconnect()
                while bot._connection._open:
                    await anyio.sleep(0.002)
                assert await run.step("a", calls.step("a", waits=False)) == "a"
        assert calls.seen == ["called a", "running a", "answered a"]
        [row] = await bot.workflows.list_step_logs("r")
        assert (row.status, row.output) == (StepStatus.COMPLETED, "a")


async def test_it_is_waited_for_once_the_run_was_held_before(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls = Calls(bot)
        with anyio.fail_after(BOUND_SECONDS):
            with pytest.raises(ZeroDivisionError):
                async with bot.workflows.run("digest", id="r", definition=DIGEST):
                    raise ZeroDivisionError
            async with bot.workflows.run("digest", id="r") as run:
                await run.step("a", calls.step("a"))
        assert calls.seen == ["running a", "answered a", "called a"]


async def test_it_is_waited_for_if_the_worker_was_silent_about_the_run(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls = Calls(bot)
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                run._hold._sure_at -= 2.0
                await run.step("a", calls.step("a"))
                await run.step("b", calls.step("b"))
        assert calls.seen == ["running a", "answered a", "called a", "called b", "running b", "answered b"]


async def test_a_beginning_that_was_refused_loses_nothing(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls = Calls(bot)
        calls.refused = {"a", "b"}
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                assert await run.step("a", calls.step("a")) == "a"
                with pytest.raises(bus.StepFailed, match="ZeroDivisionError"):
                    await run.step("b", lambda: 1 // 0)
        assert [one for one in calls.seen if one.startswith(("called", "completed"))] == ["called a", "completed a"]
        rows = await bot.workflows.list_step_logs("r")
        assert [(row.step_id, row.status) for row in rows] == [
            ("a", StepStatus.COMPLETED),
            ("b", StepStatus.FAILED),
        ]
        assert (await bot.workflows.list_all_runs(RunStatus.COMPLETED))[0].id == "r"


async def test_a_run_that_was_taken_away_gets_no_output(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot, worker.connect(bot="other") as other:
        with anyio.fail_after(BOUND_SECONDS):

            async def take_over() -> str:
                await other.workflows.update_run_status("r", RunStatus.PENDING)
                await other.workflows.claim_run("r", "other")
                return "mine"

            with pytest.raises(RunLost):
                async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                    await run.step("a", take_over)
        # The beginning may have come before that, or not at all.
        rows = await bot.workflows.list_step_logs("r")
        assert [(row.status, row.output) for row in rows] == [(StepStatus.FAILED, None)] * len(rows)


async def test_a_beginning_that_does_not_fit_into_a_frame_is_waited_for(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        calls, large = Calls(bot), "x" * 1_048_570
        status: list[StepStatus] = []

        async def function() -> str:
            [row] = await bot.workflows.list_step_logs("r")
            status.append(row.status)
            return row.step_id

        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                assert await run.step("a", function, input=large) == "a"
        assert status == [StepStatus.RUNNING]
        assert calls.seen == [], "it was sent in parts"
        [row] = await bot.workflows.list_step_logs("r")
        assert (row.status, row.input) == (StepStatus.COMPLETED, large)
