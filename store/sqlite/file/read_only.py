"""Opening a database for reading only, in another process than the worker's, which may be using it.

Closing the file in the worker's own process would drop the worker's locks (docs/design.md).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bus.errors import DatabaseDamaged, DatabaseLocked, DatabaseNewer, DatabaseUnusable, StoreFailure

from .header import check_header
from .reader import lenient_text
from .schema import TRUST_NOTHING, migrations

__all__ = ["UNREADABLE", "is_posthouses", "open_read_only", "unreadable"]

_MIGRATED = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'"

UNREADABLE = (sqlite3.Error, UnicodeDecodeError, TypeError)
"""A SQLite error about damage may contain the damaged text, which Python cannot decode; a column with a damaged
declaration may have values of another type."""


def open_read_only(path: Path, *, alone: bool) -> sqlite3.Connection:
    """Open a posthouse database; with `alone`, one that nobody writes, and which has no WAL.

    Raises DatabaseDamaged or DatabaseNewer for a file that is none of ours, and DatabaseUnusable or DatabaseLocked
    if it cannot be read, regardless of its contents.
    """
    try:
        # What is missing here may still be in a WAL.
        check_header(path, whole=alone)
    except OSError as error:
        raise unreadable(path, error) from error
    mode = "mode=ro&immutable=1" if alone else "mode=ro"
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise DatabaseDamaged(f"{path} cannot be opened: {error}") from error
    try:
        connection.text_factory = lenient_text
        connection.execute(TRUST_NOTHING)
        _check_migrations(path, connection)
    except UNREADABLE as error:
        connection.close()
        raise unreadable(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def unreadable(path: Path, error: Exception) -> StoreFailure:
    """Return why a file cannot be read at all: it is damaged, locked or not readable by this user."""
    reason = getattr(error, "strerror", None) or str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseLocked(str(path))
    if isinstance(error, PermissionError) or code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return DatabaseUnusable(f"{path} cannot be read by this user ({reason}); run this as the worker's user")
    return DatabaseDamaged(f"{path} cannot be read: {reason}")


def is_posthouses(connection: sqlite3.Connection) -> bool:
    """Return True if posthouse made the schema of a database, of whichever version."""
    return bool(connection.execute(_MIGRATED).fetchall())


def _check_migrations(path: Path, connection: sqlite3.Connection) -> None:
    if not is_posthouses(connection):
        raise DatabaseDamaged(f"{path} is a SQLite database, but not posthouse's")
    applied = dict(connection.execute("SELECT name, checksum FROM schema_migrations ORDER BY name"))
    for migration in migrations():
        checksum = applied.pop(migration.name, None)
        if checksum is None:
            raise DatabaseDamaged(
                f"{path} is older than this posthouse: use the version that serves it, or serve it once with this"
                " one, which migrates it"
            )
        if checksum != migration.checksum:
            raise DatabaseNewer(f"{path} was made with another version of {migration.name}")
    if applied:
        newest = max(applied)
        raise DatabaseNewer(f"{path} was written by a newer posthouse (it has {newest!r}); upgrade to read it")
