"""Retention of runs in a worker: what has ended goes by itself, and what is at work stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.settings import RetentionSettings, Settings, Workflows
from bus.testing import Worker

pytestmark = pytest.mark.anyio

W = WorkflowDefinition(id="w", name="w", owner=GlobalOwner())


async def echo(text: str) -> str:
    return text


async def test_the_newest_runs_stay_and_those_that_have_not_ended(store_url: str) -> None:
    settings = Settings(workflows=Workflows(ended_runs_max=2), retention=RetentionSettings(sweep_seconds=0.05))
    with Worker(store_url, settings) as worker:
        async with worker.connect(bot="ann") as bot, bot.workflows.run("w", id="open", definition=W) as held:
            await held.step("echo", echo, "a")
            for number in range(5):
                async with bot.workflows.run("w", id=f"r{number}") as run:
                    await run.step("echo", echo, "a")
            await until(lambda: _ids_are(bot, "open", "r3", "r4"))
            assert await bot.workflows.get_completed_step_ids("open") == ["echo"]
            assert (await bot.workflows.list_all_runs(RunStatus.RUNNING))[0].id == "open"


async def test_a_run_stays_while_its_message_is_not_settled(store_url: str) -> None:
    settings = Settings(
        workflows=Workflows(ended_age_seconds=0.001), retention=RetentionSettings(sweep_seconds=0.05)
    )
    with Worker(store_url, settings) as worker:
        async with worker.connect(bot="ann") as bot:
            await bot.send("ann", "go")
            message = await anext(bot.messages())
            for id in (message.id, "other"):
                async with bot.workflows.run("w", id=id, definition=W) as run:
                    await run.step("echo", echo, "a")
            await until(lambda: _ids_are(bot, message.id))
            await message.ack()
            await until(lambda: _ids_are(bot))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(60):
        while not await condition():
            await anyio.sleep(0.002)


async def _ids_are(bot: bus.Bot, *ids: str) -> bool:
    return {run.id for run in await bot.workflows.list_all_runs()} == set(ids)
