"""How much of the records of removals is read to show the newest, and that the parts of a command stay together."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from typing import cast

import pytest

from bus import Bot
from bus.cli.removals import _PORTION, newest_removals
from bus.model.erasing import Erased, Removal, joined

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Records:
    """An operator's bot with these records, each with a part of a command or of none. It notes what is read."""

    def __init__(self, parts: Sequence[str | None], step: int = 1) -> None:
        self.records = [record(place * step + 1, part) for place, part in enumerate(parts)]
        self.read = 0
        self.asked = 0

    async def removals(self, *, after: int = 0, limit: int = 50) -> list[Removal]:
        first = next((place for place, each in enumerate(self.records) if each.number > after), len(self.records))
        found = self.records[first : first + limit]
        self.asked += 1
        self.read += len(found)
        return found

    async def newest(self, limit: int, after: int = 0, before: int = sys.maxsize) -> list[Removal]:
        return await newest_removals(cast(Bot, self), limit, after=after, before=before)


def record(number: int, part_of: str | None) -> Removal:
    return Removal(number, f"id-{number}", "t", "ops", "operator", None, Erased((number,)), part_of=part_of)


async def test_of_many_removals_only_the_newest_are_read() -> None:
    bot = Records([None] * 10_000)
    assert [each.number for each in await bot.newest(50)] == [*range(9951, 10_001)]
    assert bot.read < 2 * _PORTION
    assert bot.asked < 20
    assert [each.number for each in await bot.newest(2, before=10**15)] == [9999, 10_000]
    assert bot.asked < 40


@pytest.mark.parametrize("step", [1, 7])
async def test_a_command_is_whole_however_many_portions_it_takes(step: int) -> None:
    bot = Records([None] * 900 + ["long"] * 700 + [None] * 5, step)
    found = await bot.newest(6)
    assert [len(each.erased.seqs) for each in found] == [700, 1, 1, 1, 1, 1]
    assert found == joined(bot.records)[-6:]
    assert bot.read < 705 + 3 * _PORTION or step > 1
    assert [len(each.erased.seqs) for each in await bot.newest(5)] == [1] * 5


async def test_after_a_number_are_the_commands_that_began_after_it() -> None:
    bot = Records(["one", *[None] * 20, "one", "two", "two"])
    assert [each.number for each in await bot.newest(9, after=20)] == [21, 23]
    assert await bot.newest(9, after=23) == []
    assert await Records([]).newest(9) == []


async def test_pages_have_each_command_once_and_whole() -> None:
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    open_ones, parts = ["0"], list[str | None]()
    for number in range(3000):
        if chance.random() < 0.02:
            open_ones = [*open_ones, str(number)][-3:]
        parts.append(chance.choice([None, *open_ones]))
    bot = Records(parts, step=chance.choice([1, 2]))
    rows, before = list[Removal](), sys.maxsize
    while page := await bot.newest(100, before=before):
        rows, before = page + rows, page[0].number
    assert rows == joined(bot.records), f"seed {seed}"
