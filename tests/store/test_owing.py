"""What bots are owed is checksummed: damage to it is found before anything is delivered by it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from store import open_store
from store.errors import DatabaseDamaged
from store.repository import AddBot, AddChannel, AddSubscription
from store.sqlite.check import Check

from .samples import at, bot, channel

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE mailboxes SET position = position - 1", "the mailbox of"),
        ("UPDATE mailboxes SET unsettled = '[[2,1,0]]'", "the mailbox of"),
        ("UPDATE mailboxes SET unsettled = CAST(x'5bb2' AS TEXT)", "the mailbox of"),
        ("UPDATE bot_subscriptions SET start_seq = start_seq + 1", "a subscription of"),
        ("UPDATE channel_groups SET start_seq = start_seq + 1", "a group of"),
    ],
)
async def test_damage_to_what_a_bot_is_owed_is_refused(path: Path, change: str, what: str) -> None:
    subscribe = AddSubscription("ann", "news", at(0), start_seq=1, echo=False, group="team")
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann")), AddChannel(channel("news")), subscribe])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    async with open_store(str(path)) as store:
        with pytest.raises(DatabaseDamaged, match=what):
            await store.log.load()
    reading = Check(path)
    assert list(reading.run())
    assert any(what in line for line in reading.damage)


async def test_a_subscription_to_a_channel_that_is_not_there_is_refused(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply(
            [AddBot(bot("ann")), AddChannel(channel("news")), AddSubscription("ann", "news", at(0))]
        )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE bot_channels SET name = 'newt'")
    async with open_store(str(path)) as store:
        with pytest.raises(DatabaseDamaged, match="channel 'news'"):
            await store.log.load()


async def test_what_a_bot_was_owed_before_there_were_checksums_is_taken_as_it_is(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann"))])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE mailboxes SET position = 0, checksum = NULL")
    async with open_store(str(path)) as store:
        assert [state.position for state in (await store.log.load()).mailboxes] == [0]
