"""What SQLite may take in memory: page caches with a limit, and statements whose texts are few.

A worker's memory grew for hours after its start, by what each connection had in its page cache, and by prepared
statements: one for each number of values. How much that is in a whole worker, `make soak` measures.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bus.model.repository import AddMessages, MessageLog, RemoveMessages, lots_of
from store.sqlite.file import database as module
from store.sqlite.file.database import open_database
from store.sqlite.file.writer import Transaction

from ..contract.store.samples import add, at, direct, page, read_page

pytestmark = pytest.mark.anyio

STORE = Path(module.__file__).parents[1]

PER_NUMBER = {
    "conversations.py": "one for the columns of a table",
    "steps.py": "at most 64 rows",
}
"""Where a statement's text depends on how many values it has, and why these are few."""


async def test_every_connection_has_a_limit_for_its_pages(path: Path) -> None:
    async def ask(transaction: Transaction) -> int:
        [[limit]] = await transaction.connection.execute_fetchall("PRAGMA cache_size")
        return int(limit)

    async with open_database(path) as database:
        assert await database.writer.run(ask) == -16 * 1024
        for reader in (database.read, database.pages):
            [[limit]] = await reader.execute_fetchall("PRAGMA cache_size")
            assert limit == -2 * 1024


def test_no_other_statement_has_a_text_for_each_number_of_values() -> None:
    found = {
        file.name for file in STORE.rglob("*.py") if re.search(r"""["']\?["'] \* len\(""", file.read_text("utf-8"))
    }
    assert found == PER_NUMBER.keys()


@pytest.mark.parametrize("count", [0, 1, 2, 700])
async def test_any_number_of_messages_is_found_by_id_read_and_removed(log: MessageLog, count: int) -> None:
    messages = [direct(f"m{number}", "ann", "bob") for number in range(count)]
    await log.apply([AddMessages(lots_of([*messages, direct("last", "ann", "bob")]), at(0))])
    again = await add(log, *messages)
    assert [one.seq for one in again] == list(range(1, count + 1))
    assert all(one.duplicate for one in again)
    seqs = tuple(range(1, count + 1))
    assert len((await read_page(log, page("bob", seqs=seqs))).recalled) == count
    [removed] = (await log.apply([RemoveMessages(seqs)])).answers
    assert removed == count
    assert [message.id for message in (await read_page(log, page("bob", ("", 0)))).messages] == ["last"]
