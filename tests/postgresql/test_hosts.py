"""A primary that is silent and was replaced: the worker goes on with the one that was promoted."""

from __future__ import annotations

from typing import Any

import anyio
import asyncpg
import pytest

from bus.model.repository import StoreWatch
from store.postgresql.server import hosts
from store.postgresql.server import primary as primary_of
from store.postgresql.server.connecting import connect
from store.postgresql.server.database import open_database

from .cluster import Node
from .test_quorum import frozen, url
from .writing import HAPPENS_SECONDS_MAX, adding, channels, happens

pytestmark = pytest.mark.anyio

Nodes = tuple[Node, Node, Node]


async def test_a_primary_that_is_frozen_and_replaced_is_left(
    postgresql_quorum: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primary_of, "_SILENT_SECONDS", 1.0)
    old, heir, other = postgresql_quorum
    answers: list[int] = []

    async def write() -> None:
        answers.append(await database.writer.run(adding("b")))

    # The frozen one comes first in the URL: it accepts connections, and answers none.
    async with open_database(url(old, heir, other)) as database:
        assert await database.writer.run(adding("a")) == 1
        assert await channels(database) == ["a"]
        with frozen(old), anyio.fail_after(HAPPENS_SECONDS_MAX):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(write)
                await anyio.to_thread.run_sync(heir.promote)
                heir.query("ALTER SYSTEM SET synchronous_standby_names = ''")
                heir.reload()
            assert await channels(database) == ["a", "b"]
    assert answers == [2]


async def test_the_primary_that_was_promoted_last_counts(postgresql_quorum: Nodes) -> None:
    """The former one does not know that it was replaced, and its commits would wait without end."""
    old, heir, other = postgresql_quorum
    await anyio.to_thread.run_sync(heir.promote)
    assert await happens(old, "SELECT 1 WHERE NOT pg_is_in_recovery()") == "1"
    connection, _, reign = await connect(url(old, other, heir))
    try:
        assert await connection.fetchval("SELECT current_setting('port')::int") == heir.port
        assert reign.timeline == "00000002"
    finally:
        await connection.close()


async def test_operators_are_told_that_no_standby_is_waited_for_any_more(postgresql_quorum: Nodes) -> None:
    told: list[str] = []
    primary, *_ = postgresql_quorum
    async with open_database(url(primary), StoreWatch(warn=told.append, wal_warning_bytes=1)) as database:
        assert (database.warnings, told) == ([], [])
        primary.query("ALTER SYSTEM SET synchronous_standby_names = ''")
        primary.reload()
        await happens(primary, "SELECT 1 WHERE current_setting('synchronous_standby_names') = ''")
        primary.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'posthouse'")
        assert await database.writer.run(adding("a")) == 1
        assert await channels(database) == ["a"]
    assert len(told) == 1
    assert "no commit waits for a standby" in told[0]


async def test_a_standby_that_is_promoted_while_the_primary_is_silent_is_found_at_once(
    postgresql_quorum: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is gone swallows connections, and must not be waited for before the others are asked again."""
    old, heir, other = postgresql_quorum
    was_standby = anyio.Event()
    ask = asyncpg.connect

    async def note(*arguments: Any, **options: Any) -> Any:
        try:
            return await ask(*arguments, **options)
        except asyncpg.TargetServerAttributeNotMatched:
            was_standby.set()
            raise

    async def promote() -> None:
        await was_standby.wait()
        await anyio.to_thread.run_sync(heir.promote)

    monkeypatch.setattr(asyncpg, "connect", note)
    with frozen(old), anyio.fail_after(HAPPENS_SECONDS_MAX):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(promote)
            connection, _, reign = await connect(url(old, heir, other), 10 * HAPPENS_SECONDS_MAX)
    port = await connection.fetchval("SELECT current_setting('port')::int")
    await connection.close()
    assert (port, reign.timeline) == (heir.port, "00000002")


async def test_nothing_is_waited_for_when_all_hosts_have_answered(
    postgresql_quorum: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby that answers before the primary keeps nobody from it."""
    monkeypatch.setattr(hosts, "_AGAIN_SECONDS", 3600.0)
    with anyio.fail_after(HAPPENS_SECONDS_MAX):
        for _ in range(10):
            connection, _, _ = await connect(url(*reversed(postgresql_quorum)))
            connection.terminate()
