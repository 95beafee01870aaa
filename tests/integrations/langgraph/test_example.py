"""The researcher of examples/: killed in the middle, together with its worker, it repeats nothing that was done."""

from __future__ import annotations

import anyio

import bus

from ...cli.terminal import Posthouse, Running
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("langgraph.graph")

from bus.integrations.langgraph import LangGraphStore

BOUND_SECONDS = 90


def researcher(process: ForkedWorker, *arguments: str, pause_seconds: float = 0) -> Running:
    posthouse = Posthouse(process.command)
    return posthouse.example("researcher.py", *arguments, PAUSE_SECONDS=str(pause_seconds))


async def until_one_has_written(url: str) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        async with bus.connect(url, bot="watcher", max_in_flight=0) as bot:
            async for value in bot.kv("langgraph").watch("w/moths/"):
                if b"the archive has moths" in value.value:
                    return


async def remembered(url: str) -> list[str]:
    async with LangGraphStore.from_conn_string(url, bot="watcher") as store:
        return [item.key for item in await store.asearch(("topics",))]


def test_it_goes_on_where_it_was_killed(process: ForkedWorker) -> None:
    with researcher(process, "moths", pause_seconds=BOUND_SECONDS) as first:
        assert first.line() == "planning; known so far: nothing"
        assert first.line() == "looked in the archive"
        anyio.run(until_one_has_written, process.command)
        first.kill()
    process.kill()
    process.start()
    with researcher(process, "moths") as second:
        assert second.line() == "going on"
        assert sorted([second.line(), second.line()]) == ["looked in the library", "looked in the web"]
        assert second.line().startswith("asks: write about moths from 3 notes?")
        assert second.exit_code() == 0, second.errors()
    text = "On moths: the archive has moths; the library has moths; the web has moths."
    with researcher(process, "moths", "yes") as third:
        assert third.line() == text
        assert third.exit_code() == 0, third.errors()
    assert anyio.run(remembered, process.command) == ["moths"]
