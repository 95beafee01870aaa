"""How many calls it takes to open a run, and what becomes of it where a worker does not know the call for that."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner(), version="2")

BOUND_SECONDS = 30


def calls_of(bot: bus.Bot) -> list[str]:
    """Return a list to which the names of a bot's workflow calls are added when they are sent."""
    seen: list[str] = []
    connection: Any = bot._connection
    transmit = connection._transmit

    def noting(frame: bytes) -> None:
        content = msgspec.json.decode(frame)
        if content["op"] == "workflow":
            seen.append(content["call"])
        transmit(frame)

    connection._transmit = noting
    return seen


async def one() -> int:
    return 1


async def give_back(bot: bus.Bot) -> None:
    """Begin a run, and give it back."""
    async with bot.workflows.run("digest", id="s", definition=DIGEST) as run:
        await run.step("a", one)
        raise bus.WorkerUnavailable("nobody's fault")


async def test_a_run_is_opened_in_one_call_new_or_not(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        await bot.workflows.save_definition(DIGEST)
        calls = calls_of(bot)
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", input=1) as run:
                assert (run.input, run.resumed) == (1, False)
                await run.step("a", one)
            assert calls == ["open_run", "create_step_log", "update_run_status"]
            calls.clear()
            with pytest.raises(bus.WorkerUnavailable):
                await give_back(bot)
            assert calls == ["open_run", "create_step_log", "release_run"]
            calls.clear()
            async with bot.workflows.run("digest", id="s") as run:
                assert (await run.step("a", one), run.resumed, run.fence) == (1, True, 2)
            assert calls == ["open_run", "update_run_status"]
        assert await bot.workflows.get_run_definition("r") == DIGEST


async def test_a_definition_that_is_not_stored_is_saved_first(worker: Worker) -> None:
    newer = msgspec.structs.replace(DIGEST, version="3")
    async with worker.connect(bot="digester") as bot:
        calls = calls_of(bot)
        with anyio.fail_after(BOUND_SECONDS):
            for number, given in enumerate((DIGEST, newer, DIGEST)):
                calls.clear()
                async with bot.workflows.run("digest", id=f"r{number}", definition=given):
                    pass
                assert ("offer_definition" in calls) == (number < 2)
        assert await bot.workflows.get_run_definition("r2") == newer == await bot.workflows.get_definition("digest")
        assert calls == ["open_run", "update_run_status", "get_run_definition", "get_definition"]


async def test_what_cannot_be_opened_is_refused_as_before(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        with pytest.raises(bus.UnknownWorkflow, match="'digest'"):
            async with bot.workflows.run("digest"):
                pytest.fail("it was opened")
        await bot.workflows.save_definition(DIGEST)
        async with bot.workflows.run("digest", id="r", input=1):
            pass
        with pytest.raises(bus.Conflict, match="another input"):
            async with bot.workflows.run("digest", id="r", input=2):
                pytest.fail("it was opened")
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("digest", id="r", input=1) as run:
                assert run.completed


async def test_a_worker_that_does_not_know_the_call_is_asked_for_each_thing(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:
        connection: Any = bot._connection
        connection.welcome = msgspec.structs.replace(connection.welcome, opens_runs=False)
        calls = calls_of(bot)
        with anyio.fail_after(BOUND_SECONDS):
            for _ in range(2):
                async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                    assert await run.step("a", one) == 1
        assert "open_run" not in calls
        assert calls.count("create_step_log") == 1
        stored = await bot.workflows.get_run("r")
        assert stored is not None
        assert stored.status is RunStatus.COMPLETED
