"""An application's bot, which is created with its module, served at a test worker as often as a test likes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, StepStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 30

# ── The application ──────────────────────────────────────────────────────────────────────────────────────

bot = bus.Bot("digester")
bot.workflows.encode = lambda value: str(value)

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())


@bot.step()
async def fetch(path: PurePosixPath) -> str:
    return f"about {path}"


@bot.on_message("digest")
async def digest(message: bus.Message) -> Any:
    async with bot.workflows.run("digest", id=message.id, definition=DIGEST):
        page = await fetch(PurePosixPath("/a"))
    await bot.publish("news", page)
    return page


@bot.on_channel("news", start="all")
async def read(message: bus.Message) -> None:
    await message.reply(f"read {message.body}")


@bot.on_message("stuck")
async def stuck(message: bus.Message) -> None:
    await bot.send(message.sender, "it is stuck")
    await anyio.sleep_forever()


# ── The tests ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("time", ["first", "second"])
async def test_its_handlers_and_the_test_use_the_bot_at_the_worker(worker: Worker, time: str) -> None:
    assert bot.name == "digester", f"the {time} time"
    for _ in range(2):
        async with worker.connect(bot="asker") as asker:
            with anyio.fail_after(BOUND_SECONDS):
                async with worker.serve(bot) as served:
                    assert served is bot
                    reply = await asker.request("digester", None, message_type="digest")
                    assert reply.body == "about /a"
                    [row] = await bot.workflows.list_step_logs(reply.reply_to or "")
                    assert (row.status, row.input) == (StepStatus.COMPLETED, ["/a"])
                    await asker.publish("news", "hello")
                    answer = await asker.receive()
                    assert answer.body == "read hello"
                    await answer.ack(confirm=True)
        assert not bot.is_entered
        assert bot.url == "tcp://127.0.0.1:7710"


async def test_handlers_that_still_run_are_cancelled_soon(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.serve(bot, stop_timeout=0.01):
                await asker.send("digester", None, message_type="stuck")
                assert (await asker.receive()).body == "it is stuck"
            [row] = [each for each in await asker.bots() if each["name"] == "digester"]
            assert row["backlog"] == 1, "its message was released"


async def test_an_error_of_the_test_is_raised_as_it_is(worker: Worker) -> None:
    async def fail() -> None:
        async with worker.serve(bot):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with worker.serve(bot):
        with pytest.raises(RuntimeError, match="is, or was, connected"):
            async with worker.serve(bot):
                pass
        await bot.status()
