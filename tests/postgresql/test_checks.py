"""Which servers are refused, what their operators are told, and how the schema is made."""

from __future__ import annotations

import anyio
import asyncpg
import pytest

from bus.errors import DatabaseInUse, DatabaseNewer, DatabaseUnusable, StoreFailed
from store import examine
from store.postgresql.server import database, schema
from store.postgresql.server.checks import Server, refusals, warnings
from store.postgresql.server.database import open_database
from store.urls import shown

from .cluster import Node
from .writing import adding, channels

pytestmark = pytest.mark.anyio

SAFE = Server(150_004, "UTF8", "on", "on", "on", "ANY 1 (s1, s2)", "posthouse")


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (SAFE._replace(version=140_011), "version 14"),
        (SAFE._replace(encoding="SQL_ASCII"), "encoding is SQL_ASCII"),
        (SAFE._replace(fsync="off"), "fsync is off"),
        (SAFE._replace(synchronous_commit="off"), "synchronous_commit is off"),
        (SAFE._replace(synchronous_commit="local"), "synchronous_commit is local"),
        (SAFE._replace(synchronous_commit="remote_write"), "synchronous_commit is remote_write"),
        (SAFE._replace(search_path='"$user", public'), "not through pgbouncer"),
    ],
)
def test_a_server_that_may_lose_what_was_acknowledged_is_refused(server: Server, words: str) -> None:
    [found] = refusals(server)
    assert words in found


def test_a_safe_server_is_neither_refused_nor_warned_of() -> None:
    for safe in (SAFE, SAFE._replace(version=180_000), SAFE._replace(synchronous_commit="remote_apply")):
        assert (refusals(safe), warnings(safe)) == ([], [])


def test_operators_are_warned_of_what_they_may_have_chosen() -> None:
    assert "no commit waits for a standby" in warnings(SAFE._replace(synchronous_standby_names=""))[0]
    assert "full_page_writes is off" in warnings(SAFE._replace(full_page_writes="off"))[0]


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:secret@h1,h2:5433/house") == "postgresql://me@h1,h2:5433/house"
    assert shown("postgresql://h1/house") == "postgresql://h1/house"


async def test_a_setting_of_the_role_is_seen_and_refused(postgresql_url: str, postgresql_node: Node) -> None:
    name = postgresql_url.rpartition("/")[2]
    postgresql_node.query(f"ALTER DATABASE {name} SET synchronous_commit = off")
    with pytest.raises(DatabaseUnusable, match=f"{name} cannot be used: synchronous_commit is off"):
        async with open_database(postgresql_url):
            raise AssertionError("it was opened")


async def test_a_setting_that_is_changed_later_has_no_effect(postgresql_url: str, postgresql_node: Node) -> None:
    async with open_database(postgresql_url) as database:
        assert "no commit waits" in database.warnings[0]
        [[setting]] = await database.read.fetch("SHOW synchronous_commit")
        [[source]] = await database.read.fetch("SELECT source FROM pg_settings WHERE name = 'synchronous_commit'")
        assert (setting, source) == ("on", "session")


async def test_what_cannot_be_reached_is_said_in_words(postgresql_node: Node) -> None:
    wrong: list[tuple[str, type[Exception], str]] = [
        (postgresql_node.url("nobodys"), DatabaseUnusable, "does not exist; create it"),
        (f"{postgresql_node.url()}?sslmode=maybe", DatabaseUnusable, "`sslmode` parameter must be one of"),
        (f"{postgresql_node.url()}?connect_timeout=3", DatabaseUnusable, "unrecognized configuration parameter"),
        ("postgresql:///house?host=127.0.0.1&port=secret", DatabaseUnusable, "house cannot be used: it is not"),
        ("postgresql://postgres@127.0.0.1:1/none", StoreFailed, "cannot be reached .*: start PostgreSQL"),
    ]
    for url, kind, words in wrong:
        with pytest.raises(kind, match=words):
            async with open_database(url):
                raise AssertionError("it was opened")


async def test_a_role_without_rights_or_password_is_told_so(postgresql_url: str, postgresql_node: Node) -> None:
    name = postgresql_url.rpartition("/")[2]
    postgresql_node.query(f"CREATE ROLE {name} LOGIN; CREATE SCHEMA posthouse", name)
    mine = postgresql_url.replace("postgres@", f"{name}@")
    try:
        with pytest.raises(DatabaseUnusable, match="let the role own the schema posthouse"):
            async with open_database(mine):
                raise AssertionError("it was opened")
        postgresql_node.query(f"ALTER ROLE {name} NOLOGIN")
        with pytest.raises(DatabaseUnusable, match="check the user, the password"):
            async with open_database(mine):
                raise AssertionError("it was opened")
    finally:
        postgresql_node.query(f"DROP ROLE {name}")


async def test_a_worker_that_is_connected_is_left_alone(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_LOOKS", 2)
    async with open_database(postgresql_url) as first:
        with pytest.raises(DatabaseInUse, match="in use by another worker"):
            async with open_database(postgresql_url, alone=True):
                raise AssertionError("it was opened")
        assert await first.writer.run(adding("a")) == 1
    async with open_database(postgresql_url, alone=True) as second:
        assert await channels(second) == ["a"]


# ── The schema ───────────────────────────────────────────────────────────────────────────────────────────


async def test_a_database_that_is_opened_again_is_the_same_log(postgresql_url: str) -> None:
    async with open_database(postgresql_url) as first:
        epoch = first.epoch
        names = await first.read.fetch("SELECT name, checksum FROM schema_migrations ORDER BY name")
    assert [tuple(row) for row in names] == [(each.name, each.checksum) for each in schema.written()]
    async with open_database(postgresql_url) as second:
        assert second.epoch == epoch


async def test_workers_that_start_together_migrate_once(postgresql_url: str) -> None:
    made: list[list[str]] = []

    async def migrate() -> None:
        connection = await asyncpg.connect(postgresql_url, server_settings={"search_path": "posthouse"})
        try:
            made.append(await schema.migrate(connection))
        finally:
            await connection.close()

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(migrate)
    assert sorted(name for names in made for name in names) == [each.name for each in schema.written()]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("INSERT INTO posthouse.schema_migrations VALUES ('29990101_9999_later', '', '')", "newer posthouse"),
        ("UPDATE posthouse.schema_migrations SET checksum = 'other'", "another version of"),
    ],
)
async def test_a_schema_that_is_not_ours_is_refused_unchanged(
    postgresql_url: str, postgresql_node: Node, change: str, words: str
) -> None:
    async with open_database(postgresql_url):
        pass
    name = postgresql_url.rpartition("/")[2]
    postgresql_node.query(change, name)
    state = "SELECT * FROM posthouse.schema_migrations, posthouse.log_end, posthouse.workers"
    before = postgresql_node.query(state, name)
    with pytest.raises(DatabaseNewer, match=words):
        async with open_database(postgresql_url):
            raise AssertionError("it was opened")
    assert postgresql_node.query(state, name) == before


async def test_a_migration_that_fails_leaves_nothing(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = schema.written()
    broken = [*whole, schema.Written("29990101_9999_broken", "CREATE TABLE half (n int); SELECT 1 / 0")]
    monkeypatch.setattr(schema, "written", lambda: broken)
    with pytest.raises(StoreFailed, match="division by zero"):
        async with open_database(postgresql_url):
            raise AssertionError("it was opened")
    monkeypatch.setattr(schema, "written", lambda: whole)
    async with open_database(postgresql_url) as database:
        assert [tuple(row) for row in await database.read.fetch("SELECT to_regclass('half')::text")] == [(None,)]


async def test_a_role_that_may_not_create_the_schema_is_told_how(
    postgresql_url: str, postgresql_node: Node
) -> None:
    name = postgresql_url.rpartition("/")[2]
    postgresql_node.query("DROP ROLE IF EXISTS guest")
    postgresql_node.query("CREATE ROLE guest LOGIN")
    with pytest.raises(DatabaseUnusable, match="CREATE SCHEMA posthouse AUTHORIZATION"):
        async with open_database(postgresql_url.replace("postgres@", "guest@")):
            raise AssertionError("it was opened")
    postgresql_node.query("CREATE SCHEMA posthouse AUTHORIZATION guest", name)
    async with open_database(postgresql_url.replace("postgres@", "guest@")) as database:
        assert database.writer.last_seq == 0


def test_a_database_is_examined_without_being_taken_over(postgresql_url: str) -> None:
    [warning] = examine(postgresql_url)
    assert "no commit waits for a standby" in warning
    with pytest.raises(StoreFailed, match="start PostgreSQL"):
        examine("postgresql://127.0.0.1:1/house")
    with pytest.raises(DatabaseUnusable, match="create it"):
        examine(f"{postgresql_url}x")
