"""The schema: numbered migrations, applied in order, and a check that the file is one we know.

Owns `migrations/*.sql`. A released migration never changes: its name and checksum are recorded in each database
that it was applied to, and a database with an unknown set of migrations is refused unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from importlib import resources
from pathlib import Path

import msgspec

from bus.errors import DatabaseDamaged, DatabaseLocked, DatabaseNewer, DatabaseUnusable, StoreFailed
from bus.model.records import timestamp
from bus.model.repository import StoreWatch

from ...moving.movable import Move, State
from .connection import StoreConnection
from .header import check_header
from .reader import lenient_text

__all__ = [
    "TRUST_NOTHING",
    "Identity",
    "Migration",
    "inspect",
    "migrate",
    "migrations",
    "read_move",
    "schema_faults",
    "statements",
]

_CREATE_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       TEXT PRIMARY KEY,
    checksum   TEXT NOT NULL,
    applied_at TEXT NOT NULL
)
"""


_Object = tuple[str, str, str]
"""The type, the name and the SQL of a table or an index."""

_SCHEMA = "SELECT type, name, CAST(sql AS TEXT) FROM sqlite_master WHERE sql IS NOT NULL"

TRUST_NOTHING = "PRAGMA trusted_schema = OFF"
"""For every connection: no schema of a file that was handed over calls a function with side effects."""

_DEFENSIVE = 1010
"""`SQLITE_DBCONFIG_DEFENSIVE`, which Python names since 3.12."""

_NOT_ONLY_OURS = "chat_sessions"
"""The one table that may have existed before the first migration."""


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema's history."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of its text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Identity(msgspec.Struct, frozen=True):
    """Which log a database holds, and where it ends."""

    epoch: str
    last_seq: int
    move: Move | None = None
    """The move that it is part of."""


@cache
def migrations() -> list[Migration]:
    """Return all migrations in the order in which they are applied."""
    folder = resources.files("store.sqlite") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for file in files]


def inspect(path: Path) -> Identity | None:
    """Check whether a file is a database that can be served, without changing it. Return None if it has no log yet.

    Raises DatabaseDamaged if it is not a readable database, DatabaseNewer if it has migrations that are unknown or
    differ from ours, DatabaseLocked if another program prevents reading it, DatabaseUnusable if this SQLite cannot
    make or migrate one, and StoreFailed if the disk reports an error.
    """
    if not path.exists() or path.stat().st_size == 0:
        _made_by(_all())  # a library that cannot make one is refused
        return None
    # Even for reading, SQLite creates a WAL and its index beside the file, unless `immutable` says that there is no
    # writer. After a worker was killed they exist already, and the end of the log is in them.
    alone = not path.with_name(f"{path.name}-wal").exists()
    check_header(path, whole=alone)
    try:
        mode = "mode=ro&immutable=1" if alone else "mode=ro"
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)
        connection.text_factory = lenient_text
        try:
            connection.execute(TRUST_NOTHING)
            applied = _applied(connection)
            _check_known(path, applied)
            faults = schema_faults(connection, applied)
            if faults:
                raise DatabaseDamaged(f"{path} is damaged: {'; '.join(faults)}; restore a copy")
            _rehearse(path, connection, applied)
            identity = _identity(connection) if applied else None
        finally:
            connection.close()
    except (sqlite3.Error, ValueError) as error:  # SQLite's error may contain the damaged text
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise DatabaseLocked(str(path)) from error
        if code == sqlite3.SQLITE_CANTOPEN:
            raise StoreFailed(
                f"{path} cannot be opened; check its permissions and the limit on open files"
            ) from error
        if code == sqlite3.SQLITE_IOERR:
            raise StoreFailed(f"{path} cannot be read ({error}); check the disk, then start again") from error
        raise DatabaseDamaged(
            f"{path} cannot be read ({error}); run 'posthouse check', or restore a copy"
        ) from error
    return identity


def _check_known(path: Path, applied: Mapping[str, str]) -> None:
    known = {migration.name: migration.checksum for migration in migrations()}
    for name, checksum in applied.items():
        if name not in known:
            raise DatabaseNewer(f"{path} was written by a newer posthouse (it has {name!r}); upgrade to serve it")
        if known[name] != checksum:
            raise DatabaseNewer(f"{path} was made with another version of {name}; it cannot be served by this one")


def _rehearse(path: Path, connection: sqlite3.Connection, applied: Mapping[str, str]) -> None:
    """Apply missing migrations to an empty copy in memory, so that a foreign file is refused unchanged."""
    missing = [migration for migration in migrations() if migration.name not in applied]
    if not missing:
        return
    theirs = connection.execute(f"{_SCHEMA} ORDER BY rowid").fetchall()
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        for _, _, sql in theirs:
            # What cannot be copied (for instance a virtual table's own tables) is left to the migration itself.
            with contextlib.suppress(sqlite3.Error, UnicodeError):
                copy.execute(sql)
        try:
            for migration in missing:
                _carry_out(copy, migration)
        except sqlite3.Error as error:
            raise DatabaseDamaged(
                f"{path} has tables that are not posthouse's ({error}); serve another file"
            ) from error


def schema_faults(connection: sqlite3.Connection, applied: Collection[str]) -> list[str]:
    """Return which tables and indexes are missing, or differ from what these migrations made.

    No checksum covers the schema: one flipped letter in a column's name or a condition would be noticed late.
    Triggers and views are faults, too: with them, a file that was handed over runs SQL of its own.
    """
    theirs, ours = _texts(connection.execute(_SCHEMA)), _texts(_made_by(frozenset(applied)))
    foreign = [f"the {kind} {name!r} is not posthouse's" for kind, name in theirs if kind in ("trigger", "view")]
    return foreign + [
        f"the {kind} {name} is {'altered' if (kind, name) in theirs else 'missing'}"
        for (kind, name), text in ours.items()
        if theirs.get((kind, name)) != text
    ]


@cache
def _made_by(applied: frozenset[str]) -> list[_Object]:
    """Return what migrations make. A process that opens one store after the other, as tests do, asks often."""
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        for migration in migrations():
            if migration.name in applied:
                _carry_out(made, migration)
        return made.execute(f"{_SCHEMA} ORDER BY rowid").fetchall()


def _texts(schema: Iterable[_Object]) -> dict[tuple[str, str], str]:
    """Return the normalized SQL of each object: SQLite may change quotes and spaces when a table is altered."""
    return {
        (kind, name): "".join(sql.replace('"', "").split()) for kind, name, sql in schema if name != _NOT_ONLY_OURS
    }


def _applied(connection: sqlite3.Connection) -> dict[str, str]:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "schema_migrations" not in tables:
        return {}
    return dict(connection.execute("SELECT name, checksum FROM schema_migrations ORDER BY name"))


def _identity(connection: sqlite3.Connection) -> Identity | None:
    row = connection.execute("SELECT epoch FROM log").fetchone()
    last_seq: int = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM bot_messages").fetchone()[0]
    return Identity(row[0], last_seq, read_move(connection)) if row else None


def read_move(connection: sqlite3.Connection) -> Move | None:
    """Return the move that a database is part of; one of an earlier version is part of none."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'house_move'").fetchall():
        return None
    row = connection.execute("SELECT id, state, place, at FROM house_move").fetchone()
    return None if row is None else Move(row[0], State(row[1]), row[2], row[3])


async def migrate(connection: StoreConnection, watch: StoreWatch | None = None) -> list[str]:
    """Apply missing migrations, each in one transaction with the row that records it; return their names.

    In an empty database, one transaction makes what all of them make. Raises sqlite3.Error if one cannot be applied
    (for instance if a table of that name exists); it is rolled back.
    """
    if not await connection.execute_fetchall("SELECT 1 FROM sqlite_master LIMIT 1"):
        await connection.run(_create)
        return [migration.name for migration in migrations()]
    await connection.execute(_CREATE_MIGRATIONS)
    rows = await connection.execute_fetchall("SELECT name FROM schema_migrations")
    applied = {row[0] for row in rows}
    missing = [migration for migration in migrations() if migration.name not in applied]
    for migration in missing:
        await connection.run(partial(_apply, migration=migration))
    if missing and applied and watch is not None:
        watch.migrated(max(applied), missing[-1].name)
    return [migration.name for migration in missing]


def _create(connection: sqlite3.Connection) -> None:
    """Make what all migrations together make of an empty database."""
    with _transaction(connection):
        connection.execute(_CREATE_MIGRATIONS)
        for _, _, sql in _made_by(_all()):
            connection.execute(sql)
        for migration in migrations():
            _record(connection, migration)


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    with _transaction(connection):
        _carry_out(connection, migration)
        _record(connection, migration)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield


def _record(connection: sqlite3.Connection, migration: Migration) -> None:
    values = migration.name, migration.checksum, timestamp(datetime.now(UTC))
    connection.execute("INSERT INTO schema_migrations (name, checksum, applied_at) VALUES (?, ?, ?)", values)


def _all() -> frozenset[str]:
    return frozenset(migration.name for migration in migrations())


def _carry_out(connection: sqlite3.Connection, migration: Migration) -> None:
    """Carry out a migration, in the caller's transaction."""
    # Some libraries protect the table of the schema by default. Python 3.11 cannot tell them not to.
    if hasattr(connection, "setconfig"):
        connection.setconfig(_DEFENSIVE, False)
    try:
        for statement in statements(migration.sql):
            connection.execute(statement)
    except sqlite3.OperationalError as error:
        if "may not be modified" in str(error):
            raise DatabaseUnusable(
                f"this SQLite library protects the schema ({error}), so it can neither make nor migrate a database;"
                " use Python 3.12 or later, or one with a SQLite of its own"
            ) from error
        raise


@cache
def statements(sql: str) -> list[str]:
    """Split a script into statements, where SQLite says that a statement is complete."""
    found: list[str] = []
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement.strip())
            statement = ""
    return found
