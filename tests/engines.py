"""Which engine a test's store is kept in.

A test that asks for a store's URL, directly or through a fixture, runs on each engine. On PostgreSQL it runs on one
event loop of its client, for the client does not see the engine. `--engine` is for one engine alone, or for all
engines on all loops.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from anyio.from_thread import start_blocking_portal

from store.postgresql.server.connecting import SCHEMA
from store.sqlite.file.compacting import prepare_to_compact
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.schema import migrate

__all__ = [
    "empty_store",
    "engine_name",
    "new_file",
    "pytest_addoption",
    "pytest_generate_tests",
    "query",
    "shared_store_url",
    "sqlite_only",
    "store_url",
    "without_repetitions",
]

ENGINES = ("sqlite", "postgresql")

LOOP = ("asyncio", {"use_uvloop": False})
"""On which a client is tested with every engine."""


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Return a mark for what is about the file, or does not see the engine; `reason` says which."""
    return pytest.mark.sqlite_only(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=[*ENGINES, "all"],
        help="the engine of tests that have a worker; by default both, and PostgreSQL with one event loop",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine_name" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--engine")
    engines: list[Any] = [chosen] if chosen in ENGINES else list(ENGINES)
    marker = metafunc.definition.get_closest_marker("sqlite_only")
    if marker is not None and "postgresql" in engines:
        skip = pytest.mark.skip(reason=f"with SQLite only: {marker.args[0]}")
        engines[engines.index("postgresql")] = pytest.param("postgresql", marks=skip)
    metafunc.parametrize("engine_name", engines, indirect=True, scope="module")


def without_repetitions(items: list[pytest.Item]) -> list[pytest.Item]:
    """Leave out PostgreSQL on further loops, unless that was asked for."""
    return [item for item in items if not _is_repetition(item)]


def _is_repetition(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or item.config.getoption("--engine") is not None:
        return False
    parameters = getattr(item, "callspec", None)
    if parameters is None or parameters.params.get("engine_name") != "postgresql":
        return False
    return bool(parameters.params.get("anyio_backend", LOOP) != LOOP)


@pytest.fixture(scope="module")
def engine_name(request: pytest.FixtureRequest) -> str:
    """The kind of store."""
    return str(request.param)


@pytest.fixture
def store_url(engine_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the test's own store is: nothing was stored there yet."""
    with empty_store(engine_name, tmp_path, request) as url:
        yield url


@pytest.fixture(scope="module")
def shared_store_url(
    engine_name: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Where a store is that the tests of a file share."""
    with empty_store(engine_name, tmp_path_factory.mktemp("shared"), request) as url:
        yield url


@contextmanager
def empty_store(engine_name: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of a store in which nothing was stored yet."""
    if engine_name == "sqlite":
        yield str(new_file(folder / "posthouse.db"))
    else:
        with request.getfixturevalue("postgresql_databases").lent() as url:
            yield url


def new_file(path: Path) -> Path:
    """Make a database that has the schema and no log yet: a start that was killed between the two leaves it.

    To apply the migrations takes several times as long as the rest of a start.
    """
    path.write_bytes(_migrated())
    return path


@cache
def _migrated() -> bytes:
    async def made() -> None:
        connection = StoreConnection(path, isolation_level="IMMEDIATE")
        await connection
        await prepare_to_compact(connection)
        await migrate(connection)
        await connection.close()

    with tempfile.TemporaryDirectory() as folder, start_blocking_portal() as portal:
        path = Path(folder) / "migrated.db"
        portal.call(made)
        return path.read_bytes()


async def query(store_url: str, sql: str, *values: Any) -> list[Any]:
    """Carry out a statement that both engines know, with `$1` for a value, and return its rows."""
    return await anyio.to_thread.run_sync(_query, store_url, sql, values)


def _query(store_url: str, sql: str, values: tuple[Any, ...]) -> list[Any]:
    if store_url.startswith("postgresql:"):
        return asyncio.run(_fetch(store_url, sql, values))
    with closing(sqlite3.connect(store_url)) as database, database:
        return database.execute(sql, {f"{place}": value for place, value in enumerate(values, 1)}).fetchall()


async def _fetch(url: str, sql: str, values: tuple[Any, ...]) -> list[Any]:
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    try:
        rows: list[Any] = await connection.fetch(sql, *values)
        return rows
    finally:
        await connection.close()
