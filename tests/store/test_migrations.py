"""A database of an earlier version is migrated with everything in it, or, if interrupted, stays as it was."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    Added,
    DeadLetter,
    FindRequest,
    ReleaseDue,
)
from store import open_store
from store.sqlite.check import Check
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.schema import migrate, migrations

from ..contract.store.samples import add, at, bot, channel, direct, page, read_page, to_channel

REPOSITORY = Path(__file__).parents[2]
IDS_OF_SENDERS = "20261130_0007_ids_of_senders"
MESSAGES = 1500


_LATER = (
    "bot_patterns", "house_move", "keyed_values", "keys", "removals", "security_events", "workflow_cancellations",
    "workflow_run_attributes", "workflow_schedules", "workflow_signals",
)  # fmt: skip
"""Tables that are later than this migration."""


def rows(path: Path) -> dict[str, list[Any]]:
    """Return the rows of every table that the migration finds, as they are in the file."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        connection.row_factory = sqlite3.Row
        return {
            name: sorted((_as_before(row) for row in connection.execute(f"SELECT * FROM {name}")), key=repr)
            for name in names
            if name not in ("schema_migrations", "log", *_LATER)
        }


def _as_before(row: sqlite3.Row) -> dict[str, Any]:
    """Return a row without the columns that this migration and later ones add, which have their defaults."""
    values = dict(row)
    assert {values.pop(column, 0) for column in ("copied", "tainted", "priority")} == {0}
    assert values.pop("pattern", None) is None
    return values


def schema(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()


async def fill(path: Path) -> None:
    async with open_store(str(path)) as store:
        log = store.log
        await log.apply([*(AddBot(bot(id)) for id in ("ann", "bob", "eve")), AddChannel(channel("news"))])
        await add(log, *(direct(f"m{n}", "ann", "bob", reply_to=f"m{n - 1}") for n in range(MESSAGES)))
        await add(log, to_channel("c", "bob", "news"), direct("late", "ann", "bob", due_at=at(9), reply_to="c"))
        await add(log, *(to_channel(f"d{n}", "eve", "news", due_at=at(n)) for n in range(300)))
        await log.apply([AddDeadLetters((DeadLetter("bob", 2, "term", 1, at(3)),))])


def older(path: Path) -> Path:
    """Return a file with the same rows, as the version before this migration would have made it."""
    old = path.with_name("old.db")
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE schema_migrations (name TEXT PRIMARY KEY, checksum TEXT, applied_at TEXT)")
        for migration in migrations():
            if migration.name < IDS_OF_SENDERS:
                connection.executescript(migration.sql)
                connection.execute(
                    "INSERT INTO schema_migrations VALUES (?, ?, '')", (migration.name, migration.checksum)
                )
        connection.execute("ATTACH ? AS new", (str(path),))
        for name in [*rows(path), "log"]:
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({name})"))
            connection.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM new.{name}")
        connection.commit()
    return old


@pytest.fixture
def old(path: Path) -> Path:
    anyio.run(fill, path)
    before = rows(path)
    file = older(path)
    assert rows(file) == before
    return file


async def look(path: Path) -> None:
    """Serve a migrated file: everything is found, known, delivered and due as before."""
    async with open_store(str(path)) as store:
        log = store.log
        state = await log.load()
        assert (state.last_seq, state.dead_letters) == (MESSAGES + 1, [("bob", 2)])
        assert state.scheduled == {"ann": 1, "eve": 300}
        found = await read_page(log, page("bob", ("", 0), messages_max=2 * MESSAGES, bytes_max=2**30))
        assert [message.id for message in found.messages] == [f"m{n}" for n in range(MESSAGES)]
        assert len(await log.thread(FindRequest("m7"), before_seq=None, limit=2 * MESSAGES)) == MESSAGES
        again = [direct("m7", "ann", "bob"), direct("late", "ann", "bob"), direct("m7", "eve", "bob")]
        assert await add(log, *again) == [
            Added(8, duplicate=True),
            Added(None, duplicate=True, scheduled=True),
            Added(MESSAGES + 2),
        ]
        [released] = (await log.apply([ReleaseDue(at(2), 10)])).answers
        assert [message.id for message in released.messages] == ["d0", "d1", "d2"]


def check(path: Path) -> None:
    checked = Check(path)
    for _ in checked.run():
        pass
    assert (checked.damage, checked.warnings) == ([], [])


def test_a_file_of_the_earlier_version_is_migrated_with_everything_in_it(old: Path) -> None:
    before = rows(old)

    async def serve() -> None:
        async with open_store(str(old)):
            pass

    anyio.run(serve)
    schema(old)
    assert rows(old) == before
    check(old)
    anyio.run(look, old)
    check(old)


@pytest.mark.parametrize(
    "kill",
    [
        ("UPDATE sqlite_master",),
        ("PRAGMA writable_schema = RESET",),
        ("DROP INDEX ids_of_scheduled",),
        ("CREATE UNIQUE INDEX idx_scheduled_messages_id", "500"),
        ("CREATE UNIQUE INDEX idx_scheduled_messages_id", "3000"),
        ("DROP TABLE copies",),
        ("INSERT INTO schema_migrations",),
        ("COMMIT",),
    ],
    ids=" ".join,
)
def test_a_migration_that_is_killed_leaves_the_file_as_it_was(old: Path, kill: tuple[str, ...]) -> None:
    before, was = rows(old), schema(old)
    command = [sys.executable, "-m", "tests.store.migration_program", str(old), *kill]
    killed = subprocess.run(command, cwd=REPOSITORY, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert schema(old) == was
    assert rows(old) == before
    anyio.run(look, old)
    check(old)


@pytest.mark.parametrize("part", ["CREATE TABLE bots", "INSERT INTO schema_migrations", "COMMIT"])
def test_a_new_database_is_made_as_a_whole(tmp_path: Path, part: str) -> None:
    path = tmp_path / "new.db"
    command = [sys.executable, "-m", "tests.store.migration_program", str(path), part]
    killed = subprocess.run(command, cwd=REPOSITORY, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert schema(path) == []


def test_a_new_database_is_what_migrations_make(tmp_path: Path) -> None:
    async def make(path: Path) -> None:
        connection = StoreConnection(path, isolation_level="IMMEDIATE")
        async with connection:
            await migrate(connection)

    at_once, stepwise = tmp_path / "new.db", tmp_path / "old.db"
    anyio.run(make, at_once)
    with closing(sqlite3.connect(stepwise)) as connection:
        connection.execute(next(sql for _, name, _, sql in schema(at_once) if name == "schema_migrations"))
    anyio.run(make, stepwise)
    assert schema(at_once) == schema(stepwise)
    assert rows(at_once) == rows(stepwise)
