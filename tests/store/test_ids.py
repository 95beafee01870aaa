"""Of the messages with one id, the index of ids has exactly one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.model.repository import MessageLog

from ..contract.store.playing import play_ids

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", range(5))
async def test_one_message_of_an_id_is_no_copy(log: MessageLog, path: Path, seed: int) -> None:
    known = await play_ids(log, seed)
    with closing(sqlite3.connect(path)) as connection:
        firsts = connection.execute("SELECT id, COUNT(*) FROM bot_messages WHERE copied = 0 GROUP BY id").fetchall()
    assert firsts == [(id, 1) for id in sorted({id for (id, _), seq in known.items() if seq is not None})]
