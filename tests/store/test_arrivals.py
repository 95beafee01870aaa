"""Messages that wait until they are due: damage to them, and what it costs to list them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.errors import RecordDamaged
from bus.model.repository import (
    DelayedRequest,
    FindRequest,
    LogMessage,
    Released,
)
from store import open_store
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.reader import Reader
from store.sqlite.messages.arrivals import list_scheduled

from ..contract.store.samples import add, at, direct, release

pytestmark = pytest.mark.anyio


def ids(messages: list[LogMessage]) -> list[str]:
    return [message.id for message in messages]


async def test_damaged_message_is_told_and_never_due(path: Path) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(id, "ann", "bob", due_at=at(1)) for id in ("a", "b")))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE scheduled_messages SET body = '{\"n\":2}' WHERE id = 'a'")
        connection.commit()
    async with open_store(str(path)) as store:
        with pytest.raises(RecordDamaged, match="scheduled_messages"):
            await store.log.find(FindRequest("a"))
        released = await release(store.log, 5)
        assert (ids(released.messages), released.damaged, released.next_due_at) == (["b"], ("a",), None)
        assert await release(store.log, 60) == Released([], None)


@pytest.mark.parametrize("column", ["id", "sender_bot_name", "recipient_bot_id", "message_type", "body"])
async def test_a_damaged_text_keeps_nothing_else_from_being_due(path: Path, column: str) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(id, "ann", "bob", due_at=at(1)) for id in ("a", "b")))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"UPDATE scheduled_messages SET {column} = CAST(X'ff' AS TEXT) WHERE id = 'a'")
            connection.commit()
        released = await release(store.log, 5)
        assert (ids(released.messages), len(released.damaged), released.next_due_at) == (["b"], 1, None)
        assert await release(store.log, 60) == Released([], None)


@pytest.mark.parametrize("sender", [None, "ann"])
async def test_a_portion_of_the_list_costs_what_it_returns(path: Path, sender: str | None) -> None:
    """All are due at one time: a portion must not go through those before it, nor sort those after it."""
    count, portion = 3000, 20
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(f"{number:04}", "ann", "bob", due_at=at(50)) for number in range(count)))
    connection, steps = StoreConnection(path), 0
    async with connection:
        reader = Reader(connection)

        def step() -> None:
            nonlocal steps
            steps += 1

        await connection.run(lambda database: database.set_progress_handler(step, 10))
        costs: list[int] = []
        for place in (0, count // 2, count - portion):
            after = (at(50), f"{place - 1:04}", "ann") if place else None
            steps = 0
            found = await list_scheduled(reader, DelayedRequest(portion, sender, after))
            assert [message.id for message in found] == [f"{number:04}" for number in range(place, place + portion)]
            costs.append(steps)
    assert max(costs) < 10 * portion, "a hundred instructions for each message that is returned"
