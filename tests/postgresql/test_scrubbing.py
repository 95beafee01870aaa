"""What PostgreSQL keeps of what was erased: nothing in its tables and statistics once a scrub is noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from bus.errors import StorageBusy
from bus.model.repository import Erase, MessageLog

from ..contract.store.samples import add, at, direct
from .places import PostgresqlPlace

pytestmark = pytest.mark.anyio

HEADERS = b'{"who":"ann.person@example.org"}'


@pytest.fixture
async def log(postgresql_url: str) -> AsyncIterator[MessageLog]:
    async with PostgresqlPlace(postgresql_url).open() as store:
        yield store.log


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, server_settings={"application_name": "pg_dump"})
    try:
        yield connection
    finally:
        await connection.close()


async def erase(log: MessageLog, *seqs: int) -> None:
    await log.apply([Erase("first", "ops", "operator", at(9), seqs)])


async def test_a_scrub_is_not_noted_while_an_older_snapshot_sees_what_was_erased(
    log: MessageLog, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(log, direct("a", "ann", "bob", headers=HEADERS))
    async with connected(postgresql_url) as other:
        async with other.transaction(isolation="repeatable_read", readonly=True):
            assert await other.fetchval("SELECT headers FROM posthouse.bot_messages") == HEADERS.decode()
            await erase(log, 1)
            monkeypatch.setattr("store.postgresql.messages.erasing._WAIT_SECONDS", 0.2)
            with pytest.raises(StorageBusy, match=r"session \d+ \(pg_dump\) may still see"):
                await log.scrub(at(10))
            assert [each.scrubbed_at for each in await log.removals(0, 9)] == [None]
        monkeypatch.undo()
        await log.scrub(at(11))
    assert [each.scrubbed_at for each in await log.removals(0, 9)] == [at(11)]


async def test_the_statistics_have_nothing_of_what_was_erased(log: MessageLog, postgresql_url: str) -> None:
    count = (
        "SELECT count(*) FROM pg_stats WHERE schemaname = 'posthouse' AND most_common_vals::text LIKE '%person%'"
    )
    await add(log, *(direct(f"m{number}", "ann", "bob", headers=HEADERS) for number in range(20)))
    async with connected(postgresql_url) as other:
        await other.execute("ANALYZE posthouse.bot_messages")
        assert await other.fetchval(count) == 1
        await erase(log, *range(1, 21))
        await log.scrub(at(10))
        assert await other.fetchval(count) == 0
