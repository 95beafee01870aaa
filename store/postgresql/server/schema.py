"""The schema: numbered migrations, applied in order, each in one transaction with the row that records it.

Owns `migrations/*.sql`. A released migration never changes: its name and checksum are recorded in each database
that it was applied to, and a database with an unknown set of migrations is refused unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources

import asyncpg
import msgspec

from bus.errors import DatabaseDamaged, DatabaseNewer, DatabaseUnusable
from bus.model.records import timestamp
from bus.model.repository import StoreWatch

from .connecting import SCHEMA

__all__ = ["CREATE_MIGRATIONS", "Written", "is_complete", "migrate", "missing_migrations", "written"]

_LOCK = "SELECT pg_advisory_xact_lock(hashtext('posthouse.schema_migrations'))"
"""Workers that start at the same time migrate one after the other."""

CREATE_MIGRATIONS = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name       text COLLATE "C" PRIMARY KEY,
        checksum   text NOT NULL,
        applied_at text NOT NULL
    )"""

_APPLIED = "SELECT name, checksum FROM schema_migrations"


class Written(msgspec.Struct, frozen=True):
    """One step of the schema's history."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of its text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@cache
def written() -> list[Written]:
    """Return all migrations in the order in which they are applied."""
    folder = resources.files("store.postgresql") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Written(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8")) for file in files]


async def is_complete(connection: asyncpg.Connection) -> bool:
    """Return True if no migration is missing. Raise DatabaseNewer if one is unknown, or differs from ours."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        return _missing(dict(await connection.fetch(_APPLIED))) is None
    return False


async def migrate(connection: asyncpg.Connection, watch: StoreWatch | None = None) -> list[str]:
    """Apply missing migrations, and return their names.

    Raise DatabaseNewer, with the database unchanged, if it has migrations that are unknown or differ from ours, and
    DatabaseUnusable if the role may not create the schema.
    """
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        try:
            async with connection.transaction():
                await connection.execute(_LOCK)  # two such statements at once would fail
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        except asyncpg.InsufficientPrivilegeError as error:
            raise DatabaseUnusable(
                f"the role may not create a schema in this database ({error}): as its owner,"
                f" CREATE SCHEMA {SCHEMA} AUTHORIZATION the role"
            ) from error
    names: list[str] = []
    before: str | None = None
    while True:
        async with connection.transaction():
            await connection.execute(_LOCK)
            await connection.execute(CREATE_MIGRATIONS)
            applied = dict(await connection.fetch(_APPLIED))
            missing = _missing(applied)
            if missing is None:
                break
            if not names:
                before = max(applied, default=None)
            await connection.execute(missing.sql)
            await connection.execute(
                "INSERT INTO schema_migrations (name, checksum, applied_at) VALUES ($1, $2, $3)",
                missing.name,
                missing.checksum,
                timestamp(datetime.now(UTC)),
            )
            names.append(missing.name)
    if before is not None and watch is not None:
        watch.migrated(before, names[-1])
    return names


async def missing_migrations(connection: asyncpg.Connection, name: str) -> bool:
    """Return True if a database lacks migrations. Raise DatabaseDamaged if it has no schema, and DatabaseNewer."""
    if not await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL"):
        raise DatabaseDamaged(f"{name} is not posthouse's: it has no schema {SCHEMA!r} that a worker made")
    return _missing(dict(await connection.fetch(_APPLIED))) is not None


def _missing(applied: Mapping[str, str]) -> Written | None:
    """Return the first migration that is not applied. Raise DatabaseNewer if one is that is not ours."""
    known = {migration.name: migration.checksum for migration in written()}
    for name, checksum in applied.items():
        if name not in known:
            raise DatabaseNewer(
                f"the database was written by a newer posthouse (it has {name!r}); upgrade to serve it"
            )
        if known[name] != checksum:
            raise DatabaseNewer(
                f"the database was made with another version of {name}; it cannot be served by this one"
            )
    return next((migration for migration in written() if migration.name not in applied), None)
