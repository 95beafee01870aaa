"""Opening and closing the database: what is refused, and that a file which is refused stays as it was."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from subprocess import PIPE

import anyio
import msgspec
import pytest
from anyio.abc import Process

from bus.errors import (
    DatabaseDamaged,
    DatabaseInUse,
    DatabaseNewer,
    DatabaseUnusable,
    NotFound,
    StoreClosed,
    StoreFailed,
    StoreFailure,
)
from bus.model.records import GlobalOwner, WorkflowDefinition
from bus.model.repository import Added, FindRequest
from store import open_store
from store.sqlite.check import Check
from store.sqlite.file.lockfile import Mark, read_mark

from ..contract.store.samples import add, direct

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + "-lock")


async def fill(path: Path, count: int = 3) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, *(direct(f"{n}", "ann", "bob") for n in range(count)))


async def opens_with(path: Path) -> int:
    """Open the store, and give the last seq it goes on from."""
    async with open_store(str(path)) as store:
        return (await store.log.load()).last_seq


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file != lock_path(path)}


async def is_refused(path: Path, failure: type[StoreFailure], match: str) -> None:
    """Expect that the store does not open, and that every file but the lock is byte for byte what it was."""
    before = contents(path)
    with pytest.raises(failure, match=match):
        async with open_store(str(path)):
            pass
    assert contents(path) == before


def overwrite(path: Path, offset: int, part: bytes) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(offset)
        file.write(part)


def change(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


# ── Names ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_urls_and_paths_name_the_same_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path)
    monkeypatch.chdir(path.parent)
    for url in (str(path), path.name, f"sqlite:///{path}", f"sqlite:///{path.name}"):
        async with open_store(url) as store:
            assert (await store.log.load()).last_seq == 3


@pytest.mark.parametrize("url", ["mysql://x/y", "", ":memory:", "sqlite://", "sqlite:///:memory:"])
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(ValueError, match="store"):
        open_store(url)


async def test_missing_folder_is_a_clear_failure(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="does not exist; create it"):
        async with open_store(str(tmp_path / "missing" / "posthouse.db")):
            pass


async def test_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="is a folder"):
        async with open_store(str(tmp_path)):
            pass


# ── The lock ─────────────────────────────────────────────────────────────────────────────────────────────

HOLD = """
import sys
import anyio
from store import open_store
from tests.contract.store.samples import add, direct

async def hold():
    async with open_store(sys.argv[1]) as store:
        await add(store.log, direct("x", "ann", "bob"), direct("y", "ann", "bob"))
        print("held", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)

anyio.run(hold)
"""


async def test_second_open_names_the_holder(path: Path) -> None:
    async with open_store(str(path)) as store:
        with pytest.raises(DatabaseInUse, match=f"process id {os.getpid()}") as refusal:
            async with open_store(str(path)):
                pass
        assert (refusal.value.path, refusal.value.pid) == (str(path), os.getpid())
        assert await add(store.log, direct("a", "ann", "bob")) == [Added(1)]
    assert await opens_with(path) == 1


@asynccontextmanager
async def held_elsewhere(path: Path) -> AsyncIterator[Process]:
    """Let another process store two messages and hold the store until it is written to, or killed."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with anyio.fail_after(60):
        async with await anyio.open_process(command, stdin=PIPE, stdout=PIPE, cwd=ROOT) as holder:
            assert holder.stdout is not None
            assert (await holder.stdout.receive()).strip() == b"held"
            yield holder
            await holder.wait()


async def test_other_process_is_named_and_its_end_frees_the_file(path: Path) -> None:
    async with held_elsewhere(path) as holder:
        with pytest.raises(DatabaseInUse) as refusal:
            async with open_store(str(path)):
                pass
        assert refusal.value.pid == holder.pid
        assert holder.stdin is not None
        await holder.stdin.send(b"\n")
    assert await opens_with(path) == 2


async def test_what_a_killed_process_stored_is_there(path: Path) -> None:
    async with held_elsewhere(path) as holder:
        holder.kill()
    assert (path.parent / "posthouse.db-wal").stat().st_size > 0
    assert await opens_with(path) == 2


async def test_log_that_lost_its_unwritten_end_is_refused(path: Path) -> None:
    await fill(path, 1)
    async with held_elsewhere(path) as holder:
        holder.kill()
    (path.parent / "posthouse.db-wal").unlink()
    (path.parent / "posthouse.db-shm").unlink()
    await is_refused(path, DatabaseDamaged, "ends at message 1, but 3 was acknowledged")


# ── Files that are refused ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "letter",
    [b"not a database, but a letter\n" * 100, b"x", b"SQLite format 3\x00" + b"\xff" * 5000],
    ids=["letter", "one byte", "header and noise"],
)
async def test_file_that_is_no_database(path: Path, letter: bytes) -> None:
    overwrite(path, 0, letter)
    await is_refused(path, DatabaseDamaged, str(path))


async def test_empty_file_becomes_a_database(path: Path) -> None:
    overwrite(path, 0, b"")
    assert await opens_with(path) == 0


@pytest.mark.parametrize(
    "sql",
    ["", "DROP TABLE log;", "ALTER TABLE bot_messages RENAME TO letters;"],
    ids=["same", "log", "messages"],
)
async def test_newer_database(path: Path, sql: str) -> None:
    await fill(path)
    change(path, f"{sql} INSERT INTO schema_migrations VALUES ('29991231_9999_later', 'x', '2999')")
    await is_refused(path, DatabaseNewer, "29991231_9999_later")


async def test_migration_with_another_checksum(path: Path) -> None:
    await fill(path)
    change(path, "UPDATE schema_migrations SET checksum = 'x'")
    await is_refused(path, DatabaseNewer, "initial")


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("DROP TABLE log", "the table log is missing"),
        ("DROP INDEX idx_bot_messages_pair", "the index idx_bot_messages_pair is missing"),
        (
            "PRAGMA writable_schema = ON;"
            " UPDATE sqlite_master SET sql = REPLACE(sql, ' name ', ' fame ') WHERE name = 'bot_channels'",
            "the table bot_channels is altered",
        ),
        (
            "PRAGMA writable_schema = ON;"
            " UPDATE sqlite_master SET sql = REPLACE(sql, 'running', 'sunning') WHERE name = 'workflow_runs'",
            "the table workflow_runs is altered",
        ),
        (
            "PRAGMA writable_schema = ON;"
            " UPDATE sqlite_master SET sql = REPLACE(sql, ' INTEGER P', ' INTEGES P') WHERE name = 'bot_messages'",
            "the table bot_messages is altered",
        ),
    ],
    ids=["table", "index", "column", "condition", "type"],
)
async def test_database_with_another_schema(path: Path, sql: str, what: str) -> None:
    await fill(path)
    change(path, sql)
    await is_refused(path, DatabaseDamaged, what)
    reading = Check(path)
    assert list(reading.run())
    assert what in reading.damage


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE bots (name TEXT); INSERT INTO bots VALUES ('r2d2')",
        "CREATE TABLE log (line TEXT)",
        "CREATE TABLE Workflows (id INTEGER)",
        "CREATE VIEW mailboxes AS SELECT 1",
        "CREATE TABLE schema_migrations (version TEXT)",
        "CREATE TABLE chat_sessions (id TEXT PRIMARY KEY, session_type TEXT)",
        "CREATE TABLE t (x); CREATE INDEX idx_workflow_runs_status ON t (x)",
    ],
    ids=["bots", "log", "other case", "view", "other migrations", "chat_sessions column", "index"],
)
async def test_tables_of_somebody_else(path: Path, sql: str) -> None:
    change(path, sql)
    await is_refused(path, DatabaseDamaged, str(path))


async def test_a_schema_that_is_stored_as_a_blob_is_the_same(path: Path) -> None:
    await fill(path)
    change(
        path,
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = CAST(sql AS BLOB) WHERE name = 'bots'",
    )
    assert await opens_with(path) == 3


async def test_tables_beside_ours_are_no_matter(path: Path) -> None:
    change(path, "CREATE TABLE letters (line TEXT); INSERT INTO letters VALUES ('dear');")
    await fill(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT line FROM letters").fetchall() == [("dear",)]


async def test_damaged_page_is_refused(path: Path) -> None:
    await fill(path, 50)
    overwrite(path, 100, b"\xff" * 3996)
    await is_refused(path, DatabaseDamaged, str(path))


# ── The mark ─────────────────────────────────────────────────────────────────────────────────────────────


def remark(path: Path, edit: Callable[[Mark], Mark]) -> None:
    mark = read_mark(lock_path(path))
    assert mark is not None
    lock_path(path).write_bytes(msgspec.json.encode(edit(mark)))


async def test_mark_follows_the_log(path: Path) -> None:
    async with open_store(str(path)) as store:
        state = await store.log.load()
        for count in (1, 2):
            await add(store.log, direct(f"{count}", "ann", "bob"))
            inode = os.stat(path).st_ino
            assert read_mark(lock_path(path)) == Mark(os.getpid(), state.epoch, count, inode)
    status = os.stat(path)
    assert read_mark(lock_path(path)) == Mark(os.getpid(), state.epoch, 2, status.st_ino, status.st_ctime_ns)


async def test_log_that_ends_before_its_mark(path: Path) -> None:
    await fill(path)
    remark(path, lambda mark: msgspec.structs.replace(mark, last_seq=4))
    for _ in range(2):
        await is_refused(path, DatabaseDamaged, "ends at message 3, but 4 was acknowledged")
    lock_path(path).unlink()
    assert await opens_with(path) == 3


@pytest.mark.parametrize("loss", ["emptied", "removed"])
async def test_database_that_is_gone_is_not_begun_anew(path: Path, loss: str) -> None:
    await fill(path)
    file = anyio.Path(path)
    await file.unlink()
    if loss == "emptied":
        await file.touch()
    for _ in range(2):
        with pytest.raises(DatabaseDamaged, match="3 messages were acknowledged"):
            async with open_store(str(path)):
                pass
    lock_path(path).unlink()
    assert await opens_with(path) == 0


async def test_end_that_was_lost_is_noticed(path: Path) -> None:
    await fill(path)
    change(path, "DELETE FROM bot_messages WHERE seq = 3")
    await is_refused(path, DatabaseDamaged, "ends at message 2, but 3 was acknowledged")


async def test_mark_behind_or_of_another_log_is_no_matter(path: Path) -> None:
    await fill(path)
    remark(path, lambda mark: msgspec.structs.replace(mark, last_seq=1))
    assert await opens_with(path) == 3
    remark(path, lambda mark: Mark(mark.pid, "another", 99))
    assert await opens_with(path) == 3
    lock_path(path).write_bytes(b"nonsense")
    assert await opens_with(path) == 3


# ── Closing ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_damage_that_is_met_later_is_a_failure(path: Path) -> None:
    async with open_store(str(path)) as store:
        await store.workflows.save_definition(WorkflowDefinition(id="w", name="w", owner=GlobalOwner()))
    with closing(sqlite3.connect(path)) as connection:
        [[root]] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'workflows'")
        [[page_bytes]] = connection.execute("PRAGMA page_size")
    overwrite(path, (root - 1) * page_bytes, b"\xff" * page_bytes)
    async with open_store(str(path)) as store:
        with pytest.raises(StoreFailed, match="SQLITE_CORRUPT"):
            await store.workflows.list_definitions()


async def test_closed_store_says_so(path: Path) -> None:
    async with open_store(str(path)) as store:
        await add(store.log, direct("a", "ann", "bob"))
    with anyio.fail_after(30):
        with pytest.raises(StoreClosed):
            await add(store.log, direct("b", "ann", "bob"))
        with pytest.raises(StoreClosed):
            await store.workflows.delete_definition("w")
        with pytest.raises(StoreClosed):
            await store.workflows.get_run("r")
        with pytest.raises(StoreClosed):
            await store.log.find(FindRequest("a"))


async def test_closing_leaves_one_file_and_its_lock(path: Path) -> None:
    await fill(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["posthouse.db", "posthouse.db-lock"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


async def test_error_in_the_body_comes_out_as_itself(path: Path) -> None:
    async def fail() -> None:
        async with open_store(str(path)) as store:
            await add(store.log, direct("a", "ann", "bob"))
            raise NotFound("thing", "x")

    with pytest.raises(NotFound):
        await fail()
    assert await opens_with(path) == 1


async def test_epoch_belongs_to_the_file(path: Path, tmp_path: Path) -> None:
    async def epoch(of: Path) -> str:
        async with open_store(str(of)) as store:
            return (await store.log.load()).epoch

    first = await epoch(path)
    assert first
    assert await epoch(path) == first
    assert await epoch(tmp_path / "other.db") != first


async def test_a_file_with_two_logs_is_refused(path: Path) -> None:
    """As after a flipped bit: SQLite itself finds nothing wrong with it."""
    await opens_with(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO log (epoch, created_at) SELECT 'another', created_at FROM log")
    await is_refused(path, DatabaseDamaged, "is 2 logs at once")


async def test_what_people_should_know(path: Path) -> None:
    async with open_store(str(path)) as store:
        assert store.versions["sqlite"] == sqlite3.sqlite_version
        old = sqlite3.sqlite_version_info < (3, 51, 3)
        assert any(sqlite3.sqlite_version in warning for warning in store.warnings) == old
