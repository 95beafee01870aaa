"""Looking up a removal in the file: in portions, beside what is written, and not again in its transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, cast

import anyio
import msgspec
import pytest

from bus.model.repository import AddMessages, MessageLog, PurgeMailbox, Remove, lots_of
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.reader import Reader
from store.sqlite.log import SqliteLog
from store.sqlite.messages import pages

from ..contract.store.samples import add, at, direct, page

pytestmark = pytest.mark.anyio

PORTION = 10


async def fill(log: MessageLog, count: int) -> None:
    messages = [direct(f"m{number}", "ann", "bob") for number in range(count)]
    await log.apply([AddMessages(lots_of(messages), at(0))])


def purge(id: str = "purge", through_seq: int = 2**40) -> Remove:
    waiting = PurgeMailbox(page("bob", ("", 0), through_seq=through_seq), 0)
    return Remove(id, "ops", "operator", at(9), "backlog", "bob", waiting)


@pytest.mark.parametrize("count", [0, 1, PORTION - 1, PORTION, PORTION + 1, 3 * PORTION, 3 * PORTION + 1])
async def test_portions_have_everything_once(log: MessageLog, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(pages, "COUNTED_MESSAGES", PORTION)
    await add(log, direct("other", "ann", "eve"))
    if count:
        await fill(log, count)
    await add(log, direct("last", "ann", "bob"))
    looked = await log.look(purge(through_seq=count + 1))
    assert [each.messages for each in looked.counted] == [count]
    assert looked.removed.counts == {"waiting": count}


async def test_another_bots_message_is_committed_between_two_portions(
    log: MessageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "COUNTED_MESSAGES", PORTION)
    await fill(log, 3 * PORTION)
    fetch = Reader.execute_fetchall
    portions: list[str] = []

    async def fetch_and_write(reader: Reader, sql: str, parameters: Sequence[Any] = (), **how: Any) -> Any:
        found = await fetch(reader, sql, parameters, **how)
        if "MAX(seq)" in sql:
            portions.append(sql)
            await add(log, direct(f"between {len(portions)}", "eve", "ann"))
        return found

    monkeypatch.setattr(Reader, "execute_fetchall", fetch_and_write)
    with anyio.fail_after(60):
        looked = await log.look(purge())
    assert looked.removed.counts == {"waiting": 3 * PORTION}
    assert len(portions) == 4
    assert await log.backlogs([page("ann", ("", 0))]) == [4]


async def test_its_transaction_does_not_go_through_what_was_counted(log: MessageLog) -> None:
    await fill(log, 5000)
    looked = await log.look(purge())
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    def watch(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(step, 10)

    async def begin(connection: StoreConnection) -> None:
        await connection.run(watch)

    await cast(SqliteLog, log)._database.writer.between(begin)
    costs: list[int] = []
    for change in (purge("blind"), purge("told")):
        counted = looked.counted if change.id == "told" else ()
        steps = 0
        [removed] = (await log.apply([msgspec.structs.replace(change, counted=counted)])).answers
        assert removed.counts == {"waiting": 5000}
        costs.append(steps)
    assert costs[1] < costs[0] // 10, costs
