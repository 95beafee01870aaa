"""What the broker goes on from is looked at: damage to it is found before anything is delivered by it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.errors import DatabaseDamaged, StoreFailed
from bus.model.repository import AddBot, AddChannel, AddSubscription, MailboxState, SaveMailbox, UnsettledState
from store import open_store
from store.sqlite.check import Check
from store.sqlite.file.reader import Reader

from ..contract.store.samples import add, at, bot, channel, direct

pytestmark = pytest.mark.anyio


async def is_found(path: Path, what: str) -> None:
    """Expect that the state is not loaded, and that a check names damage."""
    async with open_store(str(path)) as store:
        with pytest.raises(DatabaseDamaged, match=what):
            await store.log.load()
    reading = Check(path)
    assert list(reading.run())
    assert any(what in line for line in reading.damage)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE mailboxes SET position = position - 1", "the mailbox of"),
        ("UPDATE mailboxes SET unsettled = '[[2,1,0]]'", "the mailbox of"),
        ("UPDATE mailboxes SET unsettled = CAST(x'5bb2' AS TEXT)", "the mailbox of"),
        ("UPDATE bot_subscriptions SET start_seq = start_seq + 1", "a subscription of"),
        ("UPDATE channel_groups SET start_seq = start_seq + 1", "a group of"),
        ("UPDATE bot_channels SET name = 'newt'", "the channel 'news' is needed"),
        ("DELETE FROM channel_groups", "the group 'news/team' is needed"),
        ("DELETE FROM mailboxes WHERE id = 'ann'", "the mailbox 'ann' is needed"),
        ("DELETE FROM mailboxes WHERE id != 'ann'", "the mailbox 'news/team' is needed"),
        ("INSERT INTO dead_letters VALUES ('bob', 1, 'x', 1, 'y')", "the mailbox 'bob' is needed"),
    ],
)
async def test_damage_to_what_a_bot_is_owed_is_refused(path: Path, change: str, what: str) -> None:
    subscribe = AddSubscription("ann", "news", at(0), start_seq=1, echo=False, group="team")
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann")), AddChannel(channel("news")), subscribe])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    await is_found(path, what)


@pytest.mark.parametrize("text", ["0198-ann", "name of 0198-ann", "0198-news"])
async def test_a_flipped_bit_in_a_name_or_its_index_is_refused(path: Path, text: str) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("0198-ann")), AddChannel(channel("0198-news"))])
    file = anyio.Path(path)
    whole = await file.read_bytes()
    places = [found.start() + len(text) - 1 for found in re.finditer(text.encode(), whole)]
    assert len(places) >= 2, "a row and its index"
    for place in places:
        await file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DatabaseDamaged, match="is damaged: "):
            async with open_store(str(path)) as store:
                await store.log.load()


async def test_a_page_that_cannot_be_read_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reader.execute_fetchall

    async def execute_fetchall(reader: Reader, sql: str, parameters: Sequence[Any] = ()) -> Any:
        if sql == "PRAGMA integrity_check(bots)":
            return [("*** in database main ***\nPage 5: unable to get the page. error code=8458",)]
        return await read(reader, sql, parameters)

    monkeypatch.setattr(Reader, "execute_fetchall", execute_fetchall)
    async with open_store(str(path)) as store:
        with pytest.raises(StoreFailed, match="check the disk"):
            await store.log.load()


@pytest.mark.parametrize("name", ["mailboxes", "idx_scheduled_messages_due_at"])
async def test_what_sqlite_finds_damaged_is_damage(path: Path, name: str) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann"))])
    with closing(sqlite3.connect(path)) as connection:
        [[page]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
        [[page_bytes]] = connection.execute("PRAGMA page_size")
    async with await anyio.open_file(path, "r+b") as file:
        await file.seek((page - 1) * page_bytes)
        await file.write(b"\xff" * 8)
    with pytest.raises(DatabaseDamaged, match=f"{path}.*restore a copy"):
        async with open_store(str(path)) as store:
            await store.log.load()


@pytest.mark.parametrize(
    ("table", "column"), [("bots", "last_seen_at"), ("bots", "public_key"), ("bot_channels", "created_at")]
)
async def test_a_text_that_is_none_is_refused(path: Path, table: str, column: str) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann")), AddChannel(channel("news"))])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = CAST(x'32b8' AS TEXT)")
    await is_found(path, f"a text in {table} is not UTF-8")


async def test_a_damaged_time_of_the_last_message_is_not_gone_on_from(path: Path) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, direct("x", "ann", "bob"), second=1)
        await add(store.log, direct("y", "ann", "bob"), second=2)
    async with open_store(str(path)) as store:
        assert (await store.log.load()).last_timestamp == at(2)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE bot_messages SET timestamp = '6' || SUBSTR(timestamp, 2) WHERE seq = 2")
    async with open_store(str(path)) as store:
        assert (await store.log.load()).last_timestamp == at(1)


async def test_what_a_bot_was_owed_before_there_were_checksums_is_taken_as_it_is(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann"))])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE mailboxes SET position = 0, checksum = NULL")
    async with open_store(str(path)) as store:
        assert [state.position for state in (await store.log.load()).mailboxes] == [0]


async def test_what_rests_and_what_is_tried_again_is_kept_with_what_is_not_settled(path: Path) -> None:
    plain = UnsettledState(1, 2, 1)
    resting = UnsettledState(2, 1, 1, due_at=at(30), delay=30.0)
    retried = UnsettledState(3, 0, 0, retried=True)
    state = MailboxState("ann", 3, (plain, resting, retried))
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann"))])
        await add(store.log, *[direct(str(number), "ann", "ann") for number in range(3)])
        await store.log.apply([SaveMailbox(state)])
    async with open_store(str(path)) as store:
        assert (await store.log.load()).mailboxes == [state]
    with closing(sqlite3.connect(path)) as connection:
        [[unsettled]] = connection.execute("SELECT unsettled FROM mailboxes")
    assert unsettled.startswith("[[1,2,1],"), "what does not rest is written as ever"
    reading = Check(path)
    assert list(reading.run())
    assert reading.damage == []


@pytest.mark.parametrize("group", [None, "team"])
async def test_a_subscription_beyond_the_end_of_the_log_is_no_damage(path: Path, group: str | None) -> None:
    subscribe = AddSubscription("ann", "news", at(0), start_seq=1000, echo=False, group=group)
    async with open_store(str(path)) as store:
        await store.log.apply([AddBot(bot("ann")), AddChannel(channel("news"))])
        await add(store.log, direct("1", "ann", "ann"))
        await store.log.apply([subscribe])
        state = await store.log.load()
    assert [subscription.start_seq for subscription in state.subscriptions] == [1000]
    assert {mailbox.mailbox_id: mailbox.position for mailbox in state.mailboxes} == {"ann": 0} | (
        {} if group is None else {"news/team": 1}
    )
    reading = Check(path)
    assert list(reading.run())
    assert reading.damage == []
