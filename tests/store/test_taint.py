"""A taint that was altered in the file is damage."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from store import open_store
from store.sqlite.check import Check

from ..contract.store.samples import add, at, to_channel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("bit", [0, 1])
async def test_a_changed_bit_is_damage(path: Path, bit: int) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, to_channel("a", "eve", "news", tainted=bit == 0))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE bot_messages SET tainted = ?", (bit,))
    assert damage(path) == ["message 1: not as stored: the checksum differs"]


async def test_a_changed_bit_of_a_delayed_message_is_damage(path: Path) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, to_channel("outside", "eve", "news", tainted=True, due_at=at(5)))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE scheduled_messages SET tainted = 0")
    assert damage(path) == ["scheduled message outside: not as stored: the checksum differs"]


def damage(path: Path) -> list[str]:
    check = Check(path)
    for _ in check.run():
        pass
    return check.damage
