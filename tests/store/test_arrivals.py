"""Damage to messages that wait until they are due."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.errors import RecordDamaged
from bus.model.repository import (
    FindRequest,
    LogMessage,
    Released,
)
from store import open_store

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
