"""The weatherman of examples/: killed in the middle, together with its worker, it does not ask its model again."""

from __future__ import annotations

import anyio
import pytest

import bus

from ...cli.terminal import Posthouse, Running
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("pydantic_ai")

BOUND_SECONDS = 90


def weatherman(impatient: ForkedWorker, pause_seconds: float) -> Running:
    return Posthouse(impatient.command).example("weatherman.py", PAUSE_SECONDS=str(pause_seconds))


async def asked(url: str, id: str) -> str:
    async with bus.connect(url, bot="ada") as ada:
        reply = await ada.request("weatherman", "How is it?", id=id, timeout=BOUND_SECONDS)
        return str(reply.body)


async def until_recorded(url: str, id: str) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with bus.connect(url, bot="watcher", max_in_flight=0) as bot:
            while True:
                logs = await bot.workflows.list_step_logs(id)
                if [log for log in logs if "call_tool" in log.step_name and "rains in Paris" in str(log.output)]:
                    return
                await anyio.sleep(0.02)


def test_its_model_is_not_asked_again(impatient: ForkedWorker) -> None:
    id = "00000000-0000-7000-8000-000000000001"

    async def begin() -> None:
        async with bus.connect(impatient.command, bot="weatherman", max_in_flight=0):
            pass
        async with bus.connect(impatient.command, bot="ada") as ada:
            with pytest.raises(bus.ReplyTimeout):
                await ada.request("weatherman", "How is it?", id=id, timeout=0.1)

    anyio.run(begin)
    with weatherman(impatient, BOUND_SECONDS) as first:
        assert first.line(BOUND_SECONDS) == "the model asks for the weather"
        assert first.line() == "looked out of the window in Paris"
        anyio.run(until_recorded, impatient.command, id)
        first.kill()
    impatient.kill()
    impatient.start()
    with weatherman(impatient, 0) as second:
        assert anyio.run(asked, impatient.command, id) == "It rains in Paris. It rains in Oslo."
        assert second.line() == "looked out of the window in Oslo"
        assert second.line() == "the model answers"
