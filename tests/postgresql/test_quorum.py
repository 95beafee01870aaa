"""Commits that wait for a standby: none is given up, none is believed early, and what is in doubt is found out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import anyio
import asyncpg
import pytest

from bus.errors import StoreFailed
from bus.model.repository import StoreWatch
from store.postgresql.server.database import open_database

from .cluster import Node
from .writing import adding, channels, happens, waiting

pytestmark = pytest.mark.anyio

Nodes = tuple[Node, Node, Node]

_TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = 'posthouse' AND wait_event = 'SyncRep'"""


def url(*nodes: Node) -> str:
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return f"postgresql://postgres@{hosts}/postgres"


@contextmanager
def frozen(*nodes: Node) -> Iterator[None]:
    """Stop nodes, and let them go on: also if the test fails, which else would wait for them."""
    for node in nodes:
        node.freeze()
    try:
        yield
    finally:
        for node in nodes:
            node.thaw()


async def test_a_caller_that_is_cancelled_cancels_no_commit(postgresql_quorum: Nodes) -> None:
    primary, *standbys = postgresql_quorum
    async with open_database(url(primary)) as database:
        await database.writer.run(adding("a"))
        assert await channels(database) == ["a"]
        with frozen(*standbys):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(database.writer.run, adding("b"))
                await waiting(primary)
                tasks.cancel_scope.cancel()
            # Nobody waits for it any more, and it still waits for a standby: until then nobody sees it.
            await waiting(primary)
            assert await channels(database) == ["a"]
        assert await database.writer.run(adding("c")) == 3


async def test_a_commit_that_is_given_up_would_be_seen_on_no_standby(postgresql_quorum: Nodes) -> None:
    """Why batches have no timeout: this is what one would do."""
    primary, *standbys = postgresql_quorum
    connection = await asyncpg.connect(primary.url())
    try:
        await connection.execute("CREATE TABLE given_up (n int)")
        with frozen(*standbys):
            with pytest.raises(TimeoutError):
                await connection.execute("INSERT INTO given_up VALUES (1)", timeout=1)
            assert await connection.fetchval("SELECT count(*) FROM given_up") == 1
    finally:
        await connection.close()


async def test_an_operator_who_cancels_a_commit_gets_nobody_answered(postgresql_quorum: Nodes) -> None:
    """PostgreSQL then answers COMMIT as done, with a warning."""
    primary, *standbys = postgresql_quorum
    answers: list[int] = []

    async def write() -> None:
        answers.append(await database.writer.run(adding("a")))

    async with open_database(url(primary)) as database, anyio.create_task_group() as tasks:
        with frozen(*standbys):
            tasks.start_soon(write)
            pid = await waiting(primary)
            primary.query(f"SELECT pg_cancel_backend({pid})")
            await happens(primary, "SELECT 1 FROM posthouse.bot_channels")
            # It is visible. The same session waits again, with an empty commit.
            await happens(
                primary,
                f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep' AND query ~ 'emit'",
            )
            assert answers == []
    assert answers == [1]


async def test_a_commit_in_doubt_that_was_done_is_answered_once_it_is_safe(postgresql_quorum: Nodes) -> None:
    primary, *standbys = postgresql_quorum
    answers: list[int] = []
    read: list[list[str]] = []

    async def write() -> None:
        answers.append(await database.writer.run(adding("a")))

    async def look() -> None:
        read.append(await channels(database))

    async with open_database(url(primary)) as database, anyio.create_task_group() as tasks:
        assert await channels(database) == []
        with frozen(*standbys):
            tasks.start_soon(write)
            await waiting(primary)
            primary.query(_TERMINATE)
            assert await happens(primary, "SELECT name FROM posthouse.bot_channels") == "a"
            # The new session's empty commit waits; nothing is answered, and nothing read.
            await waiting(primary)
            while database.writer.doubts == 0:
                await anyio.sleep(0.002)
            tasks.start_soon(look)
            await anyio.lowlevel.checkpoint()
            assert (answers, read) == ([], [])
    assert (answers, read, database.writer.doubts) == ([1], [["a"]], 1)


async def test_a_primary_that_starts_again_is_believed_after_a_safe_commit(
    postgresql_quorum: Nodes,
) -> None:
    """What waited for a standby when it was killed is visible afterwards, and on no standby."""
    primary, *standbys = postgresql_quorum
    answers: list[int] = []
    read: list[list[str]] = []

    async def write() -> None:
        answers.append(await database.writer.run(adding("a")))

    async def look() -> None:
        read.append(await channels(database))

    async with open_database(url(primary)) as database, anyio.create_task_group() as tasks:
        with frozen(*standbys):
            tasks.start_soon(write)
            await waiting(primary)
            primary.kill()
            primary.start()
            assert primary.query("SELECT name FROM posthouse.bot_channels") == ["a"]
            tasks.start_soon(look)
            await waiting(primary)
            assert (answers, read) == ([], [])
    assert (answers, read) == ([1], [["a"]])


async def test_the_standby_that_was_promoted_has_everything_that_was_answered(postgresql_quorum: Nodes) -> None:
    primary, first, second = postgresql_quorum
    async with open_database(url(first, primary)) as database:
        with frozen(second):
            await database.writer.run(adding("a"))
            primary.kill()
            first.promote()
            # It would wait for standbys, too, and has none yet.
            first.query("ALTER SYSTEM SET synchronous_standby_names = ''")
            first.reload()
            assert await database.writer.run(adding("b")) == 2
            assert await channels(database) == ["a", "b"]


async def test_a_standby_that_lacks_what_was_answered_is_noticed(postgresql_quorum: Nodes) -> None:
    primary, first, _ = postgresql_quorum

    async def write() -> None:
        async with open_database(url(first, primary)) as database:
            await database.writer.run(adding("a"))
            await happens(first, "SELECT 1 FROM posthouse.bot_channels")
            primary.configure("synchronous_standby_names = ''")
            primary.reload()
            await happens(primary, "SELECT 1 WHERE current_setting('synchronous_standby_names') = ''")
            first.stop()
            await database.writer.run(adding("b"))
            await database.writer.run(adding("c"))
            primary.kill()
            first.start()
            first.promote()
            await database.writer.run(adding("d"))

    with pytest.raises(StoreFailed, match="2 transactions that were answered are missing"):
        await write()


async def test_a_standby_is_not_read(postgresql_quorum: Nodes) -> None:
    primary, first, _ = postgresql_quorum
    with pytest.raises(StoreFailed, match=r"no server of .* is the primary"):
        async with open_database(url(first)):
            raise AssertionError("a standby was opened")
    async with open_database(url(first, primary)) as database:
        for reader in (database.read, database.questions):
            assert [tuple(row) for row in await reader.fetch("SELECT pg_is_in_recovery()")] == [(False,)]


async def test_operators_are_told_that_the_start_waits_for_a_standby(
    postgresql_quorum: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.postgresql.server.database._WAITING_SECONDS", 0.0)
    primary, *standbys = postgresql_quorum
    told: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(frozen(*standbys))

        def warn(sentence: str) -> None:
            told.append(sentence)
            stack.close()

        async with open_database(url(primary), StoreWatch(warn=warn, wal_warning_bytes=1)) as database:
            assert database.warnings == []
    assert len(told) == 1
    assert "synchronous_standby_names = ANY 1 (s1, s2)" in told[0]
