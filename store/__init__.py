"""The store: messages, subscriptions, mailboxes and workflow checkpoints.

Use `open_store(url)`. Importing this package loads no backend; opening a store does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path

import anyio

from bus.errors import DatabaseUnusable
from bus.model.databases import LogHead, LogReader, Moved, MoveSurvey, Tell
from bus.model.engines import is_engine
from bus.model.leadership import Candidate, Election
from bus.model.repository import Store, StoreCheck, StoreWatch, WorkflowRules

from .moving.movable import Site
from .urls import check_engine_url, database_path, shown

__all__ = [
    "back_up",
    "begin_again",
    "check_of",
    "database_path",
    "described",
    "examine",
    "house_key",
    "move",
    "open_election",
    "open_log",
    "open_store",
    "reopen",
    "restore",
    "site_of",
    "survey",
]


def open_store(
    url: str,
    *,
    rules: WorkflowRules | None = None,
    clock: Callable[[], datetime] | None = None,
    watch: StoreWatch | None = None,
    candidate: Candidate | None = None,
) -> AbstractAsyncContextManager[Store]:
    """Open the store at a URL.

    That is a plain path, `sqlite:///relative.db` or `sqlite:////absolute.db` for a file, and
    `postgresql://user@host1,host2/database` for a database of PostgreSQL, with parameters as asyncpg takes them.

    Workflows follow `rules`. `clock` returns times with a zone; it gives workflows their timestamps and leases. By
    default timestamps use the system's clock, and leases a clock that is not affected if the system's is set while
    the store is open; with PostgreSQL, both use the server's clock. While it is open, `watch` receives warnings for
    its operators.

    With a `candidate`, which needs PostgreSQL, it is opened for one of several workers, which leads as long as it
    has its lease: OwnershipLost is raised, now if another worker leads, and later if the lease is lost.

    Inside the context the store is ready, recovered and locked against a second worker; leaving the context flushes
    and closes it. Raises ValueError for another URL, and DatabaseUnusable, DatabaseInUse, DatabaseDamaged,
    DatabaseNewer or StoreFailed if the database cannot be used; it is then left unchanged. StoreFailed also ends
    the context later, if the disk reports an error, or the file is removed, moved or replaced; or if no server of
    PostgreSQL can be reached for two minutes.
    """
    if is_engine(url):
        check_engine_url(url)
        with _driver():
            from .postgresql.store import open_postgresql_store
        alone = candidate is None
        return open_postgresql_store(url, rules or WorkflowRules(), clock, watch, candidate=candidate, alone=alone)
    path = database_path(url)
    from .sqlite import open_sqlite_store

    return open_sqlite_store(path, rules or WorkflowRules(), clock, watch)


def open_election(url: str) -> Election:
    """Return what a worker that stands by sees of the workers of a house in PostgreSQL. Raises as `open_store`."""
    check_engine_url(url)
    with _driver():
        import_module(".postgresql.store", __name__)  # now: who takes over has no time for it
        from .postgresql.server.election import PostgresqlElection
    return PostgresqlElection(url)


@contextmanager
def _driver() -> Iterator[None]:
    """Import the backend for PostgreSQL within. Raise DatabaseUnusable if its driver is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise DatabaseUnusable("PostgreSQL needs asyncpg: pip install 'posthouse[postgresql]'") from None


def described(url: str) -> str:
    """Return what a URL of `open_store` names, for people: an absolute path, or a URL without its password."""
    return shown(url) if is_engine(url) else str(Path(database_path(url)).absolute())


def check_of(url: str) -> StoreCheck:
    """Return a check of the store at a URL of `open_store`, which may be in use by another process.

    The process that has a file open must not check it: closing the file would drop its locks. A database of
    PostgreSQL is checked in an event loop of the check's own. Raise ValueError and DatabaseUnusable as
    `open_store`.
    """
    if is_engine(url):
        check_engine_url(url)
        with _driver():
            from .postgresql.check import Check as EngineCheck
        return EngineCheck(url)
    path = database_path(url)
    from .sqlite.check import Check

    return Check(Path(path))


async def begin_again(url: str) -> str:
    """Assign a new epoch to the log of an engine that was restored to an earlier moment; return it.

    Clients then forget the seqs that they knew, and whoever holds a run loses it. Raise ValueError,
    DatabaseUnusable, DatabaseNewer or StoreFailed as `open_store` does.
    """
    check_engine_url(url)
    with _driver():
        from .postgresql import restoring
    return await restoring.begin_again(url)


async def house_key(url: str, noted: str | None = None) -> str | None:
    """Return the public key by which the workers at an engine are known; without one, note this one first.

    A house that no worker has served yet has none, and none can be noted. Raise as `begin_again` does.
    """
    check_engine_url(url)
    with _driver():
        from .postgresql.house_key import house_key as engine_key
    return await engine_key(url, noted)


def examine(url: str) -> list[str]:
    """Return warnings about the backend of a URL, and about where its database is, each with what to do.

    The store is not opened. Raises ValueError for another scheme, DatabaseUnusable if it could not be served there,
    and StoreFailed for a disk error.
    """
    if is_engine(url):
        check_engine_url(url)
        with _driver():
            from .postgresql.examining import examine as examine_server
        return anyio.run(examine_server, url)
    path = database_path(url)
    from .sqlite import examine

    return examine(path)


def open_log(url: str) -> AbstractAsyncContextManager[LogReader]:
    """Open the log at a URL of `open_store` to read all of it, while another process may be using it.

    The process that has a file open must not do this. Raise ValueError, DatabaseUnusable, DatabaseDamaged or
    DatabaseNewer if it cannot be read.
    """
    if is_engine(url):
        check_engine_url(url)
        with _driver():
            from .postgresql.exporting import open_log as open_engine
        return open_engine(url)
    path = database_path(url)
    from .sqlite.exporting import open_log as open_file

    return open_file(Path(path))


def back_up(database: Path, target: Path, tell: Tell) -> StoreCheck:
    """Copy a file that a worker may be using; see `store.sqlite.backup.back_up`."""
    from .sqlite import backup

    return backup.back_up(database, target, tell)


def restore(backup: Path, database: Path, tell: Tell) -> tuple[StoreCheck, Path | None]:
    """Put a copy of a backup in the place of a file; see `store.sqlite.backup.restore`."""
    from .sqlite.backup import restore

    return restore(backup, database, tell)


def site_of(url: str) -> Site:
    """Return where the store at a URL of `open_store` is, or is to be. Raise DatabaseUnusable for another URL."""
    try:
        if is_engine(url):
            check_engine_url(url)
            with _driver():
                from .postgresql.moving import PostgresqlSite
            return PostgresqlSite(url)
        path = database_path(url)
    except ValueError as error:
        raise DatabaseUnusable(str(error)) from None
    from .sqlite.moving import SqliteSite

    return SqliteSite(path)


async def survey(source: str, target: str) -> MoveSurvey:
    """Return what would be moved from one URL to another; see `store.moving.mover.survey`."""
    from .moving import mover

    here, there = site_of(source), site_of(target)
    found, arrived = await mover.survey(here, there)
    return MoveSurvey(here.name, there.name, found.counts, sum(arrived.counts.values()))


async def move(source: str, target: str, tell: Tell) -> Moved:
    """Move the store at a URL to another one; see `store.moving.mover.move`."""
    from .moving import mover

    return await mover.move(site_of(source), site_of(target), tell)


async def reopen(source: str) -> LogHead:
    """Let the store at a URL, which was moved, go on under a new epoch; see `store.moving.mover.reopen`."""
    from .moving import mover

    return await mover.reopen(site_of(source))
