"""Messages that are received and never settled: the bot's author learns why no more come, and who shares a name."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import anyio
import pytest

import bus
from bus.testing import Worker

pytestmark = pytest.mark.anyio


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


async def test_who_forgets_every_ack_is_warned_when_the_credit_is_used_up(
    impatient_worker: Worker, warnings: Warnings
) -> None:
    worker = impatient_worker
    async with bus.connect(worker.url, bot="lazy", context=worker.context, max_in_flight=5) as lazy:
        await fill(worker, "lazy", 8)
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                async for message in lazy.messages():
                    str(message.body)

            tasks.start_soon(read)
            warning = await warnings.next()
            assert "'lazy'" in warning
            assert "of the 5" in warning
            await anyio.sleep(worker.settings.delivery.heartbeat_seconds * 5)  # the beats that might repeat it
            assert warnings.texts == []
            [row] = [row for row in await lazy.bots() if row["name"] == "lazy"]
            assert (row["in_flight"], row["backlog"], row["sessions"]) == (5, 8, 1)
            tasks.cancel_scope.cancel()


async def test_a_single_message_that_was_dropped_uses_up_a_credit_of_one(
    impatient_worker: Worker, warnings: Warnings
) -> None:
    worker = impatient_worker
    async with bus.connect(worker.url, bot="lazy", context=worker.context, max_in_flight=1) as lazy:
        await fill(worker, "lazy", 2)
        await lazy.receive()
        with anyio.move_on_after(0.1):  # whether somebody waits for the next one does not matter
            await lazy.receive()
        assert "of the 1 " in await warnings.next()


async def test_large_messages_use_up_the_credit_in_bytes(impatient_worker: Worker, warnings: Warnings) -> None:
    worker = impatient_worker
    bytes_max, body_bytes = worker.settings.limits.in_flight_bytes_max, worker.settings.limits.body_bytes_max - 2
    count = bytes_max // body_bytes + 2
    async with bus.connect(worker.url, bot="lazy", context=worker.context, max_in_flight=1000) as lazy:
        await fill(worker, "lazy", count, "x" * body_bytes)
        with anyio.move_on_after(1):
            while True:
                await lazy.receive()
        assert f" of the {len(lazy._connection.deliveries.held)} " in await warnings.next()
        assert len(lazy._connection.deliveries.held) < count


async def test_who_still_has_its_messages_or_settles_them_is_not_warned(
    impatient_worker: Worker, warnings: Warnings
) -> None:
    worker = impatient_worker
    async with bus.connect(worker.url, bot="busy", context=worker.context, max_in_flight=3) as busy:
        await fill(worker, "busy", 6)
        kept = [await busy.receive() for _ in range(3)]
        with anyio.move_on_after(worker.settings.delivery.heartbeat_seconds * 5):
            await busy.receive()
        bodies = [message.body for message in kept]
        for message in kept:
            await message.ack()
        del kept, message
        for _ in bodies:
            await (await busy.receive()).nak(delay=3600)
        with anyio.move_on_after(worker.settings.delivery.heartbeat_seconds * 5):
            await busy.receive()
    assert warnings.texts == []


async def test_who_forgets_again_after_all_was_settled_is_warned_again(
    impatient_worker: Worker, warnings: Warnings
) -> None:
    worker = impatient_worker
    async with bus.connect(worker.url, bot="lazy", context=worker.context, max_in_flight=1) as lazy:
        await fill(worker, "lazy", 1)
        await lazy.receive()
        await warnings.next()
        # What was forgotten comes no second time to this program; what is settled by other means is let go.
        [seq] = [message.seq for message in lazy._connection.deliveries.held.values()]
        for message in list(lazy._connection.deliveries.held.values()):
            lazy._connection.deliveries.settle(message)
        del message
        lazy._connection.ack(seq)
        await fill(worker, "lazy", 1)
        async with await lazy.receive():
            pass
        await anyio.sleep(worker.settings.delivery.heartbeat_seconds * 2)
        await fill(worker, "lazy", 1)
        await lazy.receive()
        await warnings.next()


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
