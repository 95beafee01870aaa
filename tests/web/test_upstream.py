"""The sessions of bots of tokens: opened when a program comes, and ended when none does any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

import bus
from bus.errors import LimitReached
from bus.testing import Worker
from bus.web.tickets import Token
from bus.web.upstream import Upstreams

from ..integration.wire import TIMEOUT_SECONDS

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which the page runs on


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "test.db") as running:
        yield running


def token(bot: str) -> Token:
    return Token(label=bot, bot=bot, allow=("send:**",), created_at="2026-11-30T00:00:00.000000Z")


@asynccontextmanager
async def upstreams(worker: Worker, idle_seconds: float, bots_max: int = 100) -> AsyncIterator[Upstreams]:
    def make(token: Token) -> bus.Bot:
        return worker.connect(bot=token.bot, max_in_flight=0)

    async with anyio.create_task_group() as tasks:
        found = Upstreams(make, tasks, idle_seconds=idle_seconds, bots_max=bots_max)
        tasks.start_soon(found.run)
        yield found
        tasks.cancel_scope.cancel()


async def sessions(bot: bus.Bot) -> set[str]:
    return {each.bot for each in await bot.sessions()} - {bot.name}


async def test_a_session_that_no_program_uses_ends(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve, upstreams(worker, 0.05) as found:
        async with found.using(token("shop")) as bot, found.using(token("shop")) as same:
            assert bot is same
            async with found.using(token("crm")) as crm:
                await crm.send("eve", "hello")
            with anyio.fail_after(TIMEOUT_SECONDS):
                while await sessions(eve) != {"shop"}:
                    await anyio.sleep(0.01)
            await bot.send("eve", "still here")
        with anyio.fail_after(TIMEOUT_SECONDS):
            while await sessions(eve):
                await anyio.sleep(0.01)
        assert repr(found) == "<Upstreams 0>"
        async with found.using(token("shop")) as bot:
            await bot.send("eve", "back")


async def test_an_idle_session_makes_room_for_another(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve, upstreams(worker, 3600, bots_max=2) as found:
        using = found.using
        async with using(token("one")):
            async with using(token("two")):
                with pytest.raises(LimitReached, match="at most 2 bots"):
                    async with using(token("three")):
                        raise AssertionError
            async with using(token("three")):
                with anyio.fail_after(TIMEOUT_SECONDS):
                    while await sessions(eve) != {"one", "three"}:
                        await anyio.sleep(0.01)
