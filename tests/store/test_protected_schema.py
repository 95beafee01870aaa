"""Some SQLite libraries protect the table of the schema, which migrations write."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from bus.errors import DatabaseUnusable
from store import open_store
from store.sqlite.file import schema
from store.sqlite.file.schema import migrations

DEFENSIVE = 1010
CAN_CONFIGURE = sys.version_info >= (3, 12)
"""Whether this Python can tell SQLite to protect the schema, or not to."""


class Protected(sqlite3.Connection):
    """A connection that protects the schema."""

    def __init__(self, *where: Any, **options: Any) -> None:
        super().__init__(*where, **options)
        if sys.version_info >= (3, 12):
            super().setconfig(DEFENSIVE, True)


class Unconfigurable(Protected):
    """One whose Python cannot change that."""

    @property
    def setconfig(self) -> Any:
        raise AttributeError("setconfig")

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if not CAN_CONFIGURE and sql.startswith("UPDATE sqlite_master"):
            raise sqlite3.OperationalError("table sqlite_master may not be modified")
        return super().execute(sql, *parameters)


@pytest.fixture(params=[None, "ids_of_senders", "priorities"])
def file(request: pytest.FixtureRequest, path: Path) -> Path:
    """The path of no file, or of one as a version before a migration made it."""
    if request.param is not None:
        with closing(sqlite3.connect(path)) as database:
            database.execute(
                "CREATE TABLE schema_migrations (name TEXT PRIMARY KEY, checksum TEXT, applied_at TEXT)"
            )
            for migration in migrations():
                if migration.name.endswith(request.param):
                    break
                database.executescript(migration.sql)
                row = (migration.name, migration.checksum)
                database.execute("INSERT INTO schema_migrations VALUES (?, ?, '')", row)
            database.commit()
    return path


async def serve(path: Path) -> None:
    async with open_store(str(path)) as store:
        assert (await store.log.load()).last_seq == 0


def test_a_library_that_cannot_write_it_is_refused_before_a_file_is_changed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema._made_by.cache_clear()
    before = file.read_bytes() if file.exists() else None
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Unconfigurable))
    with pytest.raises(DatabaseUnusable, match=r"protects the schema .*use Python 3\.12 or later"):
        anyio.run(serve, file)
    assert (file.read_bytes() if file.exists() else None) == before
    assert not file.with_name(f"{file.name}-wal").exists()


@pytest.mark.skipif(not CAN_CONFIGURE, reason="this Python cannot protect it")
def test_a_library_that_protects_it_by_default_is_told_not_to(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema._made_by.cache_clear()
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Protected))
    for _ in range(2):
        anyio.run(serve, file)
