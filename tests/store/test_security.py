"""A security event that was altered in the file is shown as such."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.model.repository import (
    AddSecurityEvents,
    SecurityEvent,
    SecurityRequest,
)
from store import open_store
from store.sqlite.check import Check

from ..contract.store.samples import at

pytestmark = pytest.mark.anyio

EVERYTHING = SecurityRequest(limit=100)


async def test_an_altered_event_is_shown_as_such_and_found_by_the_check(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.log.apply(
            [AddSecurityEvents((SecurityEvent(1, at(1), "refused"), SecurityEvent(2, at(2), "refused")))]
        )
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE security_events SET detail = 'nothing' WHERE id = 2")
        assert [intact for _, intact in await store.log.security_events(EVERYTHING)] == [True, False]
    check = Check(path)
    for _ in check.run():
        pass
    assert check.damage == ["security event 2: not as stored: the checksum differs"]
