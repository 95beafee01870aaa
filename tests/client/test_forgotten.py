"""Messages that are received and never settled: the bot's author learns why no more come, and who shares a name."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest

import bus
from bus.testing import Worker

from .fake_worker import DELIVERY, FakeWorker

pytestmark = pytest.mark.anyio

TERMS = {"heartbeat": 0.05, "session_timeout": 3600.0}


class Warnings(logging.Handler):
    """What the client warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._more = anyio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self._more.set()

    async def next(self) -> str:
        """Wait for a warning and take it out."""
        with anyio.fail_after(30):
            while not self.texts:
                self._more = anyio.Event()
                await self._more.wait()
        return self.texts.pop(0)


@pytest.fixture
def warnings() -> Iterator[Warnings]:
    logger, found = logging.getLogger("posthouse.client"), Warnings()
    logger.addHandler(found)
    yield found
    logger.removeHandler(found)


async def fill(worker: Worker, bot: str, count: int, body: object = "x") -> None:
    async with bus.connect(worker.url, bot="sender", context=worker.context, max_in_flight=0) as sender:
        await sender.send_all([bus.Draft(to=bot, body=body) for _ in range(count)])


async def read(bot: bus.Bot) -> None:
    """Read every message, and settle none."""
    async for message in bot.messages():
        str(message.body)


@asynccontextmanager
async def connected(*, max_in_flight: int) -> AsyncIterator[tuple[FakeWorker, bus.Bot]]:
    """A bot with many heartbeats a second, and the worker that hears them."""
    with FakeWorker(f"inproc://forgotten-{uuid.uuid4()}") as worker:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(worker.welcome, **TERMS))
            async with bus.connect(
                worker.url, bot="lazy", context=worker.context, max_in_flight=max_in_flight
            ) as bot:
                yield worker, bot
                tasks.start_soon(worker.farewell)


def deliver(worker: FakeWorker, *seqs: int) -> None:
    worker.send(op="deliver", messages=[DELIVERY | {"seq": seq, "id": str(uuid.UUID(int=seq))} for seq in seqs])


async def beats(worker: FakeWorker, bot: bus.Bot, count: int) -> None:
    """Wait until so many heartbeats have begun and ended from now on."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bot.set_credit, bot._inbox.max_in_flight)
        credit = await worker.receive("credit")  # the pings that are older are read and dropped before it
        worker.send(op="ok", request=credit["request"])
    for _ in range(count + 1):
        await worker.receive("ping")


async def test_who_forgets_every_ack_is_warned_when_the_credit_is_used_up(
    impatient_worker: Worker, warnings: Warnings
) -> None:
    worker = impatient_worker
    async with bus.connect(worker.url, bot="lazy", context=worker.context, max_in_flight=5) as lazy:
        await fill(worker, "lazy", 8)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, lazy)
            warning = await warnings.next()
            assert "'lazy'" in warning
            assert "of the 5" in warning
            [row] = [row for row in await lazy.bots() if row["name"] == "lazy"]
            assert (row["in_flight"], row["backlog"], row["sessions"]) == (5, 8, 1)
            tasks.cancel_scope.cancel()


async def test_large_messages_use_up_the_credit_in_bytes(impatient_worker: Worker, warnings: Warnings) -> None:
    worker = impatient_worker
    bytes_max, body_bytes = worker.settings.limits.in_flight_bytes_max, worker.settings.limits.body_bytes_max - 2
    count = bytes_max // body_bytes + 2
    async with bus.connect(worker.url, bot="lazy", context=worker.context, max_in_flight=1000) as lazy:
        await fill(worker, "lazy", count, "x" * body_bytes)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, lazy)
            warning = await warnings.next()
            tasks.cancel_scope.cancel()
        assert f" of the {len(lazy._connection.deliveries.held)} " in warning
        assert len(lazy._connection.deliveries.held) < count


async def test_a_single_message_that_was_dropped_uses_up_a_credit_of_one(warnings: Warnings) -> None:
    """Whether somebody waits for the next one does not matter."""
    async with connected(max_in_flight=1) as (worker, bot):
        deliver(worker, 1)
        await bot.receive()
        assert "of the 1 " in await warnings.next()


async def test_who_forgets_is_warned_once_however_many_heartbeats_pass(warnings: Warnings) -> None:
    async with connected(max_in_flight=2) as (worker, bot):
        deliver(worker, 1, 2)
        for _ in range(2):
            await bot.receive()
        await warnings.next()
        await beats(worker, bot, 3)
        assert warnings.texts == []


async def test_who_still_has_its_messages_or_settles_them_is_not_warned(warnings: Warnings) -> None:
    async with connected(max_in_flight=3) as (worker, bot):
        deliver(worker, 1, 2, 3)
        kept = [await bot.receive() for _ in range(3)]
        await beats(worker, bot, 2)
        for message in kept:
            await message.ack()
        del kept, message
        deliver(worker, 4, 5, 6)
        for _ in range(3):
            await (await bot.receive()).nak(delay=3600)
        await beats(worker, bot, 2)
    assert warnings.texts == []


# ── Programs that share a name ───────────────────────────────────────────────────────────────────────────


async def test_a_second_program_with_the_same_name_is_told_that_it_shares_a_mailbox(
    worker: Worker, warnings: Warnings
) -> None:
    async with bus.connect(worker.url, bot="twin", context=worker.context) as first:
        assert warnings.texts == []
        async with bus.connect(worker.url, bot="twin", context=worker.context, max_in_flight=0):
            assert warnings.texts == []  # it takes nothing from the mailbox
            async with bus.connect(worker.url, bot="twin", context=worker.context):
                [warning] = warnings.texts
                assert warning.startswith("bot 'twin' has 1 other session")
                [row] = [row for row in await first.bots() if row["name"] == "twin"]
                assert row["sessions"] == 3
                warnings.texts.clear()
            async with bus.connect(worker.url, bot="other", context=worker.context):
                assert warnings.texts == []
