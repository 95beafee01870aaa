"""The weatherman of examples/: killed in the middle, together with its worker, it does not ask its model again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import bus

from ...cli.terminal import EXAMPLES, Running
from ...crash.nursery import ForkedWorker
from ...integration.forked_worker import forked_worker
from ..extras import needs

needs("pydantic_ai")

BOUND_SECONDS = 90

IMPATIENT = """
[delivery]
heartbeat_seconds = 0.4
session_timeout_seconds = 2.0
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ForkedWorker]:
    with forked_worker(tmp_path, IMPATIENT) as worker:
        yield worker


def weatherman(process: ForkedWorker, pause_seconds: float) -> Running:
    environment = {**os.environ, "POSTHOUSE_URL": process.command, "PAUSE_SECONDS": str(pause_seconds)}
    return Running([sys.executable, str(EXAMPLES / "weatherman.py")], environment)


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


def test_its_model_is_not_asked_again(process: ForkedWorker) -> None:
    id = "00000000-0000-7000-8000-000000000001"

    async def begin() -> None:
        async with bus.connect(process.command, bot="weatherman", max_in_flight=0):
            pass
        async with bus.connect(process.command, bot="ada") as ada:
            with pytest.raises(bus.ReplyTimeout):
                await ada.request("weatherman", "How is it?", id=id, timeout=0.1)

    anyio.run(begin)
    with weatherman(process, BOUND_SECONDS) as first:
        assert first.line(BOUND_SECONDS) == "the model asks for the weather"
        assert first.line() == "looked out of the window in Paris"
        anyio.run(until_recorded, process.command, id)
        first.kill()
    process.kill()
    process.start()
    with weatherman(process, 0) as second:
        assert anyio.run(asked, process.command, id) == "It rains in Paris. It rains in Oslo."
        assert second.line() == "looked out of the window in Oslo"
        assert second.line() == "the model answers"
