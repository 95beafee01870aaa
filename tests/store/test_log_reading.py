"""Records that are damaged, and reading where SQLite has a bound of its own or is to be interrupted."""

from __future__ import annotations

import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.errors import RecordDamaged
from bus.model.repository import FindRequest, HistoryRequest, LogMessage, MessageLog
from store import open_store
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.reader import Reader
from store.sqlite.messages.rows import fetch_each

from ..contract.store.samples import add, direct, page, read_page

pytestmark = pytest.mark.anyio


def ids(messages: list[LogMessage]) -> str:
    return "".join(message.id for message in messages)


class ShortValues(sqlite3.Connection):
    """A connection to a SQLite that makes no long values."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)


async def test_messages_that_are_too_large_together_are_read_one_by_one(path: Path) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(id, "ann", "bob", body=b'"%b"' % (b"x" * 4000)) for id in "abc"))
    connection = StoreConnection(path, factory=ShortValues)
    async with connection:
        with pytest.raises(sqlite3.DataError, match="too big"):
            await connection.execute_fetchall("SELECT GROUP_CONCAT(body) FROM bot_messages")
        found = await fetch_each(Reader(connection), "WHERE seq <= ?", (3,))
    assert [(seq, message is not None and message.id) for seq, message in found] == [(1, "a"), (2, "b"), (3, "c")]


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


async def test_cancelling_a_question_interrupts_its_statement(path: Path) -> None:
    connection = StoreConnection(path)
    async with connection:
        reader = Reader(connection, alone=True)
        with anyio.move_on_after(0.05):
            await reader.execute_fetchall(ENDLESS)
        assert await reader.execute_fetchall("SELECT 1") == [(1,)]


async def test_a_page_of_large_messages_after_small_ones_is_read_in_small_portions(path: Path) -> None:
    """What the first ones promise does not hold: no more is read at once than the page may have."""
    large, bytes_max = b'"%b"' % (b"x" * 50_000), 500_000
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(f"small {number}", "ann", "bob", body=b"1") for number in range(64)))
        await add(store.log, *(direct(f"large {number}", "ann", "bob", body=large) for number in range(256)))
        tracemalloc.start()
        try:
            found = await read_page(store.log, page("bob", ("", 0), messages_max=1000, bytes_max=bytes_max))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(found.messages) == 64 + bytes_max // len(large) + 1
    assert peak < 64 * 3 * len(large), "64 rows, as one row and taken apart; 256 would be four times as much"


async def thread(log: MessageLog, member: str, limit: int, before_seq: int | None = None) -> list[LogMessage]:
    return await log.messages(await log.thread(FindRequest(member), before_seq=before_seq, limit=limit))


@pytest.fixture
async def damaged(path: Path, request: pytest.FixtureRequest) -> None:
    """Four messages from ann to bob, a to d, of which the second was changed in the file."""
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(id, "ann", "bob") for id in "abcd"))
    with closing(sqlite3.connect(path)) as connection, connection:
        changed = connection.execute(f"UPDATE bot_messages SET {request.param} WHERE seq = 2")
        assert changed.rowcount == 1


CHANGES = [
    "id = 'B'",
    "sender_bot_id = 'eve'",
    "sender_bot_name = 'eve'",
    "message_type = 'x'",
    "message_type = 'x' || char(30)",
    "message_type = CAST(x'ff' AS TEXT)",
    "sender_bot_name = CAST(x'616eff' AS TEXT)",
    "body = CAST(x'ff' AS TEXT)",
    "body = '{}'",
    "body = x'ff'",
    "reply_to = 'x'",
    "headers = '[]'",
    "timestamp = '2027'",
    "checksum = checksum + 1",
    "checksum = 'x'",
]


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("damaged", CHANGES, indirect=True)
async def test_page_leaves_damaged_records_out_and_says_so(path: Path) -> None:
    async with open_store(str(path)) as store:
        found = await read_page(store.log, page("bob", ("", 0)))
        assert (ids(found.messages), found.complete, found.damaged) == ("acd", True, (2,))
        found = await read_page(store.log, page("bob", ("", 3), seqs=(1, 2)))
        assert (ids(found.recalled), ids(found.messages), found.damaged) == ("a", "d", (2,))


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("damaged", ["body = '{}'", "message_type = CAST(x'ff' AS TEXT)"], indirect=True)
async def test_history_reports_damaged_records(path: Path) -> None:
    async with open_store(str(path)) as store:
        with pytest.raises(RecordDamaged) as report:
            await store.log.history(HistoryRequest(10, between=("ann", "bob")))
        assert (report.value.table, report.value.key) == ("bot_messages", "seq 2")
        with pytest.raises(RecordDamaged):
            await store.log.find(FindRequest("b"))
        with pytest.raises(RecordDamaged):
            await store.messages.get_messages_between("ann", "bob")
        assert ids(await store.log.history(HistoryRequest(2, between=("ann", "bob")))) == "dc"


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("damaged", ["recipient_bot_id = 'eve'"], indirect=True)
async def test_message_that_was_turned_to_another_bot_is_not_handed_out(path: Path) -> None:
    async with open_store(str(path)) as store:
        found = await read_page(store.log, page("eve", ("", 0)))
        assert (found.messages, found.damaged) == ([], (2,))
