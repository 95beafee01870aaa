"""`posthouse a2a`: tasks go on when the endpoint, the bot and the worker are killed, and the result comes once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

import bus

from ...cli.terminal import Posthouse, Running
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("a2a.server.routes")

from a2a.types import TaskState

from .clients import BOUND_SECONDS, Agent

pytestmark = pytest.mark.anyio

COMPLETED = TaskState.TASK_STATE_COMPLETED


def endpoint(process: ForkedWorker, token_file: Path, port: int) -> tuple[Running, str]:
    posthouse = Posthouse(process.command)
    posthouse.environment["PYTHONUNBUFFERED"] = "1"
    serving = posthouse.start(
        "a2a", "planner", "--as", "a2a-planner", "--port", str(port), "--token-file", token_file, "--json",
        "--timeout", str(BOUND_SECONDS),
    )  # fmt: skip
    return serving, str(json.loads(serving.line(BOUND_SECONDS))["url"])


@asynccontextmanager
async def planner(process: ForkedWorker, go: anyio.Event, told: list[str]) -> AsyncIterator[None]:
    bot = bus.Bot("planner", process.command)

    @bot.on_message()
    async def answer(message: bus.Message[str]) -> str:
        told.append(message.body)
        await go.wait()
        return f"about {message.body}"

    async with anyio.create_task_group() as tasks:
        await tasks.start(bot.serve)
        yield
        bot.stop()


async def test_a_long_task_survives_all_of_them(process: ForkedWorker, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    go, told = anyio.Event(), list[str]()
    async with planner(process, go, told):
        serving, url = endpoint(process, token_file, 0)
        port = int(url.rsplit(":", 1)[1].strip("/"))
        token = token_file.read_text(encoding="ascii").strip()
        with serving:
            async with httpx.AsyncClient(trust_env=False) as http:
                card = (await http.get(f"{url}.well-known/agent-card.json")).json()
                assert card["supportedInterfaces"][0]["url"] == url
                assert card["securityRequirements"] == [{"schemes": {"token": {}}}]
                assert (await http.post(url, json={})).status_code == 401
            async with Agent.at(url, token=token) as agent:
                task = await agent.send("tea", id="tea", at_once=True)
                # The worker is killed: the client's next call waits for it, and no longer.
                process.kill()
                process.start()
                assert (await agent.until(task.id, TaskState.TASK_STATE_WORKING)).id == task.id
            serving.kill()
        # The bot answers while nobody is there to take it.
        go.set()
        async with bus.connect(process.command, bot="watcher", max_in_flight=0) as watcher:
            with anyio.fail_after(BOUND_SECONDS):
                while len(await watcher.history(thread=task.id)) < 2:
                    await anyio.sleep(0.05)
        process.kill()
        process.start()
        serving, url = endpoint(process, token_file, port)
        with serving:
            async with Agent.at(url, token=token) as agent:
                done = await agent.until(task.id, COMPLETED)
                assert Agent.outputs(done) == ["about tea"]
                # A client that does not know whether its message arrived sends it again.
                assert (await agent.send("tea", id="tea")).id == task.id
                assert Agent.outputs(await agent.send("coffee", id="coffee")) == ["about coffee"]
            serving.interrupt()
            assert serving.exit_code() == 0, serving.errors()
        assert told == ["tea", "coffee"]
        async with bus.connect(process.command, bot="watcher", max_in_flight=0) as watcher:
            assert await watcher.dead_letters(bot="a2a-planner") == []


def test_wrong_usage_is_told() -> None:
    assert "--token-file" in Posthouse().run("a2a", "planner", "--as", "a").stderr
    code, line = Posthouse().refusal(
        "a2a", "planner", "--as", "a", "--token-file", "/nonexistent/token", "--timeout", "0.2"
    )
    assert code == 78
    assert "/nonexistent/token" in line
