"""What readers who remember a seq are told when an earlier copy of the log was restored."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

import bus
from bus.testing import Worker

pytestmark = pytest.mark.anyio


class Restored:
    """A worker whose log can be put back to where it was."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._copy = worker.database.with_suffix(".copy")

    async def keep(self) -> None:
        """Keep a copy of the log as it is."""
        await anyio.to_thread.run_sync(self.worker.stop)
        shutil.copy(self.worker.database, self._copy)
        await anyio.to_thread.run_sync(self.worker.start)

    async def put_back(self) -> None:
        """Serve the copy."""
        await anyio.to_thread.run_sync(self.worker.stop)
        self.worker.database.with_name("posthouse.db-lock").unlink()
        shutil.copy(self._copy, self.worker.database)
        await anyio.to_thread.run_sync(self.worker.start)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Restored]:
    with Worker(tmp_path / "posthouse.db") as worker:
        yield Restored(worker)


@pytest.fixture
async def bot(house: Restored) -> AsyncIterator[bus.Bot]:
    async with house.worker.connect(bot="a") as bot:
        yield bot


async def publish(bot: bus.Bot, *bodies: str) -> list[int]:
    return [
        receipt.seq for receipt in await bot.send_all([bus.Draft(channel="news", body=body) for body in bodies])
    ]


async def read(watch: bus.Watch, count: int) -> list[object]:
    with anyio.fail_after(60):
        return [(await anext(watch)).body for _ in range(count)]


async def told(watch: bus.Watch) -> bus.LogReplaced:
    with anyio.fail_after(60):
        with pytest.raises(bus.LogReplaced) as fault:
            await anext(watch)
    return fault.value


async def test_a_watch_that_goes_on_is_told(house: Restored, bot: bus.Bot) -> None:
    [_, kept] = await publish(bot, "one", "two")
    await house.keep()
    async with bot.watch("news", after=0) as watch:
        before = watch.epoch
        [_, last] = await publish(bot, "lost", "lost too")
        assert await read(watch, 4) == ["one", "two", "lost", "lost too"]
        await house.put_back()
        assert (await publish(bot, "three"))[0] == kept + 1
        fault = await told(watch)
        assert (fault.before, fault.seq, fault.after_seq) == (before, last, kept)
        assert fault.epoch == watch.epoch == bot.epoch != before
        assert await read(watch, 1) == ["three"]
        await publish(bot, "four")
        assert await read(watch, 1) == ["four"]


async def test_a_watch_that_had_read_nothing_of_what_is_gone_goes_on(house: Restored, bot: bus.Bot) -> None:
    await publish(bot, "one")
    async with bot.watch("news", after=0) as watch:
        assert await read(watch, 1) == ["one"]
        await house.keep()
        await house.put_back()
        await publish(bot, "two")
        assert await read(watch, 1) == ["two"]
        assert watch.epoch == bot.epoch


async def test_a_watch_from_a_seq_of_the_log_before_is_told(house: Restored, bot: bus.Bot) -> None:
    [kept] = await publish(bot, "one")
    epoch = bot.epoch
    await house.keep()
    [_, last] = await publish(bot, "lost", "lost too")
    await house.put_back()
    await publish(bot, "two", "three", "four")
    async with bot.watch("news", after=last, epoch=epoch) as watch:
        fault = await told(watch)
        assert (fault.before, fault.after_seq) == (epoch, kept)
        assert await read(watch, 3) == ["two", "three", "four"]
    async with bot.watch("news", after=kept, epoch=epoch) as watch:
        assert await read(watch, 3) == ["two", "three", "four"]
    async with bot.watch("news", after=last, epoch=bot.epoch) as watch:
        assert await read(watch, 1) == ["four"]
    async with bot.watch("news", after=last, epoch="of another house") as watch:
        assert (await told(watch)).after_seq == 0
        assert await read(watch, 1) == ["one"]


async def test_a_history_after_a_seq_of_the_log_before_is_told(house: Restored, bot: bus.Bot) -> None:
    [kept] = await publish(bot, "one")
    epoch = bot.epoch
    await house.keep()
    [lost] = await publish(bot, "lost")
    await house.put_back()
    await publish(bot, "two", "three")
    with pytest.raises(bus.LogReplaced, match=f"Read on after seq {kept}") as fault:
        await bot.history(channel="news", after_seq=lost, epoch=epoch)
    assert fault.value.epoch == bot.epoch
    found = await bot.history(channel="news", after_seq=kept, epoch=epoch)
    assert [message.body for message in found] == ["two", "three"]
    found = await bot.history(channel="news", after_seq=lost, epoch=bot.epoch)
    assert [message.body for message in found] == ["three"]
