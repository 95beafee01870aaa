"""What readers who remember a seq are told when an earlier copy of the log was restored."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

import bus
from bus.client.asking import Asking
from bus.client.caller import Caller
from bus.testing import Worker
from bus.wire.answers import WorkerStatus
from bus.wire.frames import Status, StoredMessage

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


async def another_log(house: Restored, bot: bus.Bot) -> tuple[str | None, int, int]:
    """Put the log back to "one", and publish two others: return its epoch before, and the seqs kept and lost."""
    [kept] = await publish(bot, "one")
    epoch = bot.epoch
    await house.keep()
    [lost] = await publish(bot, "lost")
    await house.put_back()
    await publish(bot, "two", "three")
    return epoch, kept, lost


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
    epoch, kept, lost = await another_log(house, bot)
    with pytest.raises(bus.LogReplaced, match=f"Read on after seq {kept}") as fault:
        await bot.history(channel="news", after_seq=lost, epoch=epoch)
    assert fault.value.epoch == bot.epoch
    found = await bot.history(channel="news", after_seq=kept, epoch=epoch)
    assert [message.body for message in found] == ["two", "three"]
    found = await bot.history(channel="news", after_seq=lost, epoch=bot.epoch)
    assert [message.body for message in found] == ["three"]


async def backwards(bot: bus.Bot, before: int | None, **fields: Any) -> list[object]:
    return [message.body for message in await bot.history(channel="news", before_seq=before, **fields)]


async def test_who_reads_backwards_in_another_log_is_told_how_far_it_is_the_same(
    house: Restored, bot: bus.Bot
) -> None:
    [first, kept] = await publish(bot, "one", "two")
    epoch = bot.epoch
    await house.keep()
    [lost] = await publish(bot, "lost")
    assert await backwards(bot, lost, epoch=epoch) == ["two", "one"]
    await house.put_back()
    await publish(bot, "three")
    for before in (lost, kept):  # in either case, what was read after it may be lost
        with pytest.raises(bus.LogReplaced) as fault:
            await backwards(bot, before, epoch=epoch)
        assert (fault.value.seq, fault.value.after_seq) == (before, kept)
    assert await backwards(bot, kept, epoch=fault.value.epoch) == ["one"]
    with pytest.raises(bus.LogReplaced) as fault:
        await backwards(bot, first, epoch="of another house")
    assert fault.value.after_seq == 0


class TornCaller:
    """A bot's caller, to whom a page of an answer comes from another log than those before."""

    def __init__(self, bot: bus.Bot, house: Restored, *, at: int) -> None:
        self._at = at
        self._request = bot._caller.request
        self._house = house
        self.connection = bot._caller.connection
        self.pages = 0

    async def request(self, what: str, frame: Any, kind: Any) -> Any:
        if what == "the history":
            self.pages += 1
            if self.pages == self._at:
                await self._house.put_back()
                await self._request("the status", lambda number: Status(request=number), WorkerStatus)
        return await self._request(what, frame, kind)


async def torn(house: Restored, bot: bus.Bot, *, at: int = 2, **fields: Any) -> list[StoredMessage]:
    """Read a history of which the log is put back while a page of it is read."""
    asking = Asking("a", cast(Caller, TornCaller(bot, house, at=at)))
    return await asking.history(channel="news", limit=5000, **fields)


@pytest.mark.parametrize("at", [1, 2])
async def test_an_answer_that_begins_with_the_newest_begins_anew_in_another_log(
    house: Restored, bot: bus.Bot, at: int
) -> None:
    [kept] = await publish(bot, "one")
    await house.keep()
    await publish(bot, *["lost"] * 1500)
    assert [message.body for message in await torn(house, bot, at=at)] == ["one"]
    assert (await bot.status()).last_seq == kept


async def test_an_answer_that_goes_on_backwards_is_not_made_of_two_logs(house: Restored, bot: bus.Bot) -> None:
    [kept] = await publish(bot, "one")
    await house.keep()
    seqs = await publish(bot, *["lost"] * 1500)
    with pytest.raises(bus.LogReplaced) as fault:
        await torn(house, bot, before_seq=seqs[-1])
    assert (fault.value.seq, fault.value.after_seq) == (seqs[-2], kept)


async def test_an_answer_of_what_both_logs_have_stays_one(house: Restored, bot: bus.Bot) -> None:
    seqs = await publish(bot, *["kept"] * 1500)
    await house.keep()
    await publish(bot, "lost")
    found = await torn(house, bot, before_seq=seqs[-1])
    assert [message.seq for message in found] == seqs[-2::-1]


async def test_a_subscription_starts_in_the_log_that_is_meant(house: Restored, bot: bus.Bot) -> None:
    epoch, kept, lost = await another_log(house, bot)
    with pytest.raises(bus.LogReplaced, match=f"Read on after seq {kept}") as fault:
        await bot.subscribe("news", start=lost + 1, epoch=epoch, echo=True)
    assert (fault.value.before, fault.value.seq, fault.value.after_seq) == (epoch, lost, kept)
    with pytest.raises(bus.LogReplaced):
        await bot.subscribe("n*", start=lost + 1, epoch="of another house")
    assert await bot.subscriptions() == []
    start = fault.value.after_seq + 1
    assert await bot.subscribe("news", start=start, epoch=fault.value.epoch, echo=True) == kept
    with anyio.fail_after(60):
        assert [(await bot.receive()).body for _ in range(2)] == ["two", "three"]
    assert await bot.subscribe("news", start=lost + 1, epoch=epoch, echo=True) == kept  # it has no effect


async def test_a_start_that_both_logs_have_is_taken(house: Restored, bot: bus.Bot) -> None:
    [kept] = await publish(bot, "one")
    epoch = bot.epoch
    await house.keep()
    await house.put_back()
    assert await bot.subscribe("news", start=kept + 1, epoch=epoch) == kept
    assert await bot.subscribe("other", start=0, epoch="of another house") == 0


async def test_an_epoch_is_that_of_a_seq(house: Restored, bot: bus.Bot) -> None:
    for start in ("new", "all", datetime.now(UTC)):
        with pytest.raises(ValueError, match="give it with a seq"):
            await bot.subscribe("news", start=start, epoch=bot.epoch)
    assert await bot.channels() == []
