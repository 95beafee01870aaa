"""Databases that have the schema already, each lent to one test after another and emptied in between.

To make a database and apply the migrations takes much longer than to delete what a test has stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

import anyio
import asyncpg
from anyio.from_thread import BlockingPortal

from store.postgresql.server import database
from store.postgresql.server.catalog import schema_faults
from store.postgresql.server.connecting import SCHEMA
from store.postgresql.server.schema import migrate

from .cluster import Node

__all__ = ["Databases"]

# No foreign key counts while the tables are emptied, in whatever order. A table that had rows from the beginning,
# such as the end of the log, gets them back. The statements are written down, so that a session plans them once.
_BRING_BACK = f"""
    CREATE SCHEMA pristine;
    DO $$ DECLARE name text; kept boolean; statements text := ''; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{SCHEMA}' LOOP
            EXECUTE format('CREATE TABLE pristine.%I AS TABLE {SCHEMA}.%I', name, name);
            EXECUTE format('SELECT EXISTS (SELECT FROM pristine.%I)', name) INTO kept;
            statements := statements || format('DELETE FROM {SCHEMA}.%I;', name);
            IF kept THEN
                statements := statements || format('INSERT INTO {SCHEMA}.%I TABLE pristine.%I;', name, name);
            END IF;
        END LOOP;
        EXECUTE format('CREATE FUNCTION pristine.bring_back() RETURNS void LANGUAGE plpgsql
            SET session_replication_role = replica AS %L',
            'BEGIN PERFORM pg_terminate_backend(pid, 60000) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid(); ' || statements || ' END');
    END $$"""


_LENT = "lent_"


class Databases:
    """The databases of a node that are lent to tests: as many as are in use at a time.

    Each is emptied by a connection that stays open, in a thread: to start `psql`, and a session that knows no table
    yet, takes several times as long as the rest.
    """

    def __init__(self, node: Node, portal: BlockingPortal) -> None:
        self._node = node
        self._portal = portal
        self._numbers = count(1)
        self._free: list[_Lent] = []
        node.query("CREATE DATABASE migrated")
        anyio.run(_migrate, node.url("migrated"))
        node.query(_BRING_BACK, "migrated")
        database.schema_faults = _faults_elsewhere  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<Databases of {self._node} free={len(self._free)}>"

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Yield the URL of a database that is as the migrations made it."""
        lent = self._free.pop() if self._free else self._make()
        yield lent.url
        if lent.connection.is_closed():  # a test ended all sessions
            lent = self._connected(lent.url)
        self._portal.call(lent.connection.execute, "SELECT pristine.bring_back()")
        self._free.append(lent)

    def close(self) -> None:
        """End the connections."""
        for lent in self._free:
            self._portal.call(lent.connection.close)

    def _make(self) -> _Lent:
        name = f"{_LENT}{next(self._numbers)}"
        self._node.query(f"CREATE DATABASE {name} TEMPLATE migrated")
        return self._connected(self._node.url(name))

    def _connected(self, url: str) -> _Lent:
        return _Lent(url, self._portal.call(asyncpg.connect, url))


class _Lent(NamedTuple):
    url: str
    connection: asyncpg.Connection


async def _faults_elsewhere(connection: asyncpg.Connection) -> list[str]:
    """Compare no schema of a database that is lent: it is that of the migrations, and to see that takes long."""
    name = await connection.fetchval("SELECT current_database()")
    return [] if name.startswith(_LENT) else await schema_faults(connection)


async def _migrate(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"search_path": SCHEMA})
    await migrate(connection)
    await connection.close()
