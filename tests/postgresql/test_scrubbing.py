"""What PostgreSQL keeps of what was erased: nothing in its tables and statistics once a scrub is noted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import asyncpg
import pytest

from bus.errors import StorageBusy
from bus.model.repository import Added, Erase, MessageLog

from ..contract.store.samples import add, at, direct
from .cluster import Node
from .places import PostgresqlPlace
from .writing import HAPPENS_SECONDS_MAX, happens

pytestmark = pytest.mark.anyio

_WAITS = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND wait_event_type = 'Lock'"

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
            monkeypatch.setattr("store.postgresql.messages.scrubbing._WAIT_SECONDS", 0.2)
            with pytest.raises(StorageBusy, match=r"session \d+ \(pg_dump\) may still see"):
                await log.scrub(at(10))
            assert [each.scrubbed_at for each in await log.removals(0, 9)] == [None]
        monkeypatch.undo()
        await log.scrub(at(11))
    assert [each.scrubbed_at for each in await log.removals(0, 9)] == [at(11)]


@asynccontextmanager
async def reading(connection: Any) -> AsyncIterator[None]:
    """Keep the lock of a table, and no snapshot: as a program between two statements."""
    async with connection.transaction():
        await connection.execute("LOCK TABLE posthouse.bot_messages IN ACCESS SHARE MODE")
        yield


async def test_messages_are_stored_while_a_scrub_waits_for_a_reader(
    log: MessageLog, postgresql_url: str, postgresql_node: Node
) -> None:
    await add(log, direct("a", "ann", "bob", headers=HEADERS))
    await erase(log, 1)
    async with connected(postgresql_url) as other, anyio.create_task_group() as tasks, reading(other):
        tasks.start_soon(log.scrub, at(10))
        await happens(postgresql_node, _WAITS, postgresql_url.rpartition("/")[2])
        with anyio.fail_after(HAPPENS_SECONDS_MAX):
            assert await add(log, direct("b", "ann", "bob")) == [Added(2)]
        assert [each.scrubbed_at for each in await log.removals(0, 9)] == [None]
    assert [each.scrubbed_at for each in await log.removals(0, 9)] == [at(10)]


async def test_a_scrub_says_who_goes_on_reading(
    log: MessageLog, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(log, direct("a", "ann", "bob"))
    monkeypatch.setattr("store.postgresql.messages.scrubbing._ATTEMPTS_MAX", 1)
    async with connected(postgresql_url) as other, reading(other):
        with pytest.raises(StorageBusy, match=r"session \d+ \(pg_dump\) keeps the table bot_messages"):
            await log.scrub(at(10))


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
