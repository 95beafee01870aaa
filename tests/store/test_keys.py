"""A key that was altered in the file is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.errors import DatabaseDamaged
from bus.model.keys import Key
from bus.model.repository import AddBot, AddKey, RevokeKeys
from store import open_store
from store.sqlite.check import Check

from ..contract.store.samples import at, bot

pytestmark = pytest.mark.anyio

FIRST = Key(public_key="php_first", bot_id="ann", created_at=at(1), roles=("ops", "billing"), label="laptop")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE keys SET revoked_at = NULL", "the key"),
        ("UPDATE keys SET purpose = 'admin'", "the key"),
        ("UPDATE keys SET roles = '[\"admin\"]'", "the key"),
        ("UPDATE keys SET bot_id = 'bob'", "the key"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM bots WHERE id = 'ann'", "the bot 'ann' is needed"),
    ],
)
async def test_a_key_that_was_altered_is_refused(path: Path, change: str, what: str) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob")), AddKey(FIRST)])
        await store.log.apply([RevokeKeys(("php_first",), at(5))])
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(change)
    async with open_store(str(path)) as store:
        with pytest.raises(DatabaseDamaged, match=what):
            await store.log.load()
    reading = Check(path)
    assert list(reading.run())
    assert any(what in line for line in reading.damage)
