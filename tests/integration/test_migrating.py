"""What a worker logs when its database has an earlier schema, on either engine."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import asyncpg

from bus.model.engines import is_engine
from store.postgresql.server import schema as postgresql
from store.postgresql.server.checks import SCHEMA
from store.sqlite.file import schema as sqlite

from .forked_worker import forked_worker


def lines(folder: Path, store_url: str) -> list[dict[str, Any]]:
    """Serve a store, stop, and return what the worker logged meanwhile about its schema."""
    log = folder / "worker.log"
    before = len(log.read_bytes()) if log.exists() else 0
    with forked_worker(folder, "[log]\nformat = 'json'\n", store_url) as worker:
        worker.stop()
    entries = [json.loads(line) for line in log.read_bytes()[before:].splitlines()]
    return [entry for entry in entries if entry["event"] == "schema_migrated"]


def make_earlier(store_url: str, names: list[str]) -> None:
    """Make the store that a version with these migrations would have made."""
    if is_engine(store_url):
        anyio.run(_make_earlier, store_url, names)
        return
    Path(store_url).unlink()
    with closing(sqlite3.connect(store_url)) as connection:
        connection.execute("CREATE TABLE schema_migrations (name TEXT PRIMARY KEY, checksum TEXT, applied_at TEXT)")
        for each in sqlite.migrations()[: len(names)]:
            connection.executescript(each.sql)
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?, '')", (each.name, each.checksum))
        connection.commit()


async def _make_earlier(url: str, names: list[str]) -> None:
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    try:
        await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}")
        await connection.execute(postgresql.CREATE_MIGRATIONS)
        for each in postgresql.written()[: len(names)]:
            await connection.execute(each.sql)
            await connection.execute("INSERT INTO schema_migrations VALUES ($1, $2, '')", each.name, each.checksum)
    finally:
        await connection.close()


def test_a_migration_is_logged_once(tmp_path: Path, store_url: str) -> None:
    known = [each.name for each in (postgresql.written() if is_engine(store_url) else sqlite.migrations())]
    make_earlier(store_url, known[:-2])
    [told] = lines(tmp_path, store_url)
    assert (told["level"], told["before"], told["after"]) == ("info", known[-3], known[-1])
    assert lines(tmp_path, store_url) == []


def test_a_new_database_is_not_migrated(tmp_path: Path, store_url: str) -> None:
    make_earlier(store_url, [])
    if not is_engine(store_url):
        Path(store_url).unlink()
    assert lines(tmp_path, store_url) == []
