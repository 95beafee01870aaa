"""What is measured: the systems, where each keeps its checkpoints, what its process does, and how they are counted.

Owns the list. A system has a place, which is new in each turn: a file, a worker, or a server.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ..peers.postgresql import PostgreSQL
from ..peers.restate import Restate
from ..processes import DATABASE, Worker, data_folder
from . import dbos, langgraph, limits, posthouse, restate
from .figures import DBOS, GRAPHS, LONG, OURS, QUIET, SAVERS, SHIPPED, STORE, TUNED, System
from .loads import LOADS

__all__ = ["CONTESTANTS", "DURABLE", "Contestant", "Place"]

DURABLE = frozenset(
    {
        "journal_mode=wal synchronous=2",
        "fsync=on full_page_writes=on synchronous_commit=on",
    }
)
"""What the databases of other systems say of themselves: SQLite's 2 is FULL."""


class Place(msgspec.Struct, frozen=True):
    """Where a system keeps its checkpoints: what its process is told of it, and how they are counted there.

    `pid` is the process of a server; None if there is none.
    """

    arguments: tuple[Any, ...]
    count: Callable[[], int]
    pid: int | None = None
    versions: dict[str, str] = {}
    durability: str | None = None


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """A system and what it takes to measure it. `modules` are the packages without which it is left out."""

    system: System
    work: Callable[..., None]
    place: Callable[[Path | None], AbstractContextManager[Place]]
    """Gives a new place; the argument is where a worker is to leave its profile."""
    modules: tuple[str, ...] = ()
    server: type[PostgreSQL] | type[Restate] | None = None
    loads: tuple[str, ...] = tuple(LOADS)

    def missing(self) -> str | None:
        """Say what is missing to measure it; None where nothing is. A server that is missing is installed first."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if absent:
            return f"the Python package {absent[0]} is not installed; make bench-checkpoints installs it"
        if self.server is None or self.server.missing() is None:
            return None
        said = self.server.install()
        why = self.server.missing()
        return None if why is None else f"{why}{f' ({said})' if said else ''}"


# ── The places ───────────────────────────────────────────────────────────────────────────────────────────


def _in_file(sql: str | None, prefix: str = "") -> Callable[[Path | None], AbstractContextManager[Place]]:
    @contextmanager
    def place(profile: Path | None) -> Iterator[Place]:
        with data_folder() as folder:
            database = Path(folder, DATABASE)
            yield Place((f"{prefix}{database}",), partial(_count, database, sql))

    return place


@contextmanager
def _at_worker(profile: Path | None) -> Iterator[Place]:
    with Worker(profile=profile) as worker:
        yield Place((worker.url,), partial(_count, worker.database, _OURS), worker.pid, worker.versions)


def _in_postgresql(sql: str, scheme: str) -> Callable[[Path | None], AbstractContextManager[Place]]:
    @contextmanager
    def place(profile: Path | None) -> Iterator[Place]:
        with PostgreSQL() as server:
            yield Place(
                (f"{scheme}{server.url.removeprefix('postgresql')}",),
                lambda: int(server.query(sql)[0][0]),
                server.pid,
                {"postgresql": server.version()},
                " ".join(f"{name}={setting}" for name, setting in server.query(_SETTINGS)),
            )

    return place


def _in_restate(partitions: int | None) -> Callable[[Path | None], AbstractContextManager[Place]]:
    @contextmanager
    def place(profile: Path | None) -> Iterator[Place]:
        with Restate(partitions=partitions) as server:
            yield Place(
                (server.url, server.ingress_port),
                lambda: int(server.query(_RESTATE)[0]["kept"]),
                server.pid,
                {"restate-server": server.version()},
            )

    return place


def _count(database: Path, sql: str | None) -> int:
    """Count what is in a file, without writing to it; or lines, where it is no database."""
    if sql is None:
        with database.open("rb") as lines:
            return sum(1 for _ in lines)
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return int(connection.execute(sql).fetchone()[0])


_SETTINGS = """SELECT name, setting FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name"""

_OURS = "SELECT COUNT(*) FROM workflow_steps WHERE status = 'completed'"
_DBOS = "SELECT COUNT(*) FROM {}operation_outputs WHERE function_name = 'step'"
_LANGGRAPH = "SELECT COUNT(*) FROM checkpoints WHERE json_extract(CAST(metadata AS TEXT), '$.step') > 0"
_LANGGRAPH_POSTGRESQL = "SELECT COUNT(*) FROM checkpoints WHERE (metadata->>'step')::int > 0"
_RESTATE = "SELECT COUNT(*) AS kept FROM sys_journal WHERE entry_type = 'Notification: Run'"


# ── The systems ──────────────────────────────────────────────────────────────────────────────────────────

_OUTPUT = "a step's output, before the next step begins"
_STATE = "the state after a step, before the next step begins"
_PUT = "one `aput` of the state, with no graph around it"

_SQLITE_SAVER = ("langgraph", "langgraph.checkpoint.sqlite")
_POSTGRESQL_SAVER = ("langgraph", "langgraph.checkpoint.postgres", "psycopg_pool")

_ALL = (
    Contestant(
        system=System(OURS, "a step's output, before the next step begins; and its beginning, with its attempt"),
        work=partial(posthouse.execute, announce=True),
        place=_at_worker,
    ),
    Contestant(system=System(QUIET, _OUTPUT), work=partial(posthouse.execute, announce=False), place=_at_worker),
    Contestant(
        system=System(STORE, "a step's output, by one call in the program's own process, with no bus around it"),
        work=posthouse.execute_alone,
        place=_in_file(_OURS),
    ),
    Contestant(
        system=System(DBOS[0], _OUTPUT),
        work=dbos.execute,
        place=_in_file(_DBOS.format(""), "sqlite:///"),
        modules=("dbos",),
    ),
    Contestant(
        system=System(DBOS[1], _OUTPUT),
        work=dbos.execute,
        place=_in_postgresql(_DBOS.format("dbos."), "postgresql+psycopg"),
        modules=("dbos", "psycopg"),
        server=PostgreSQL,
    ),
    Contestant(
        system=System(GRAPHS[0], _STATE), work=langgraph.execute, place=_in_file(_LANGGRAPH), modules=_SQLITE_SAVER
    ),
    Contestant(
        system=System(GRAPHS[1], _STATE),
        work=langgraph.execute,
        place=_in_postgresql(_LANGGRAPH_POSTGRESQL, "postgresql"),
        modules=_POSTGRESQL_SAVER,
        server=PostgreSQL,
    ),
    Contestant(
        system=System(SAVERS[0], _PUT),
        work=langgraph.execute_alone,
        place=_in_file(_LANGGRAPH),
        modules=_SQLITE_SAVER,
    ),
    Contestant(
        system=System(SAVERS[1], _PUT),
        work=langgraph.execute_alone,
        place=_in_postgresql(_LANGGRAPH_POSTGRESQL, "postgresql"),
        modules=_POSTGRESQL_SAVER,
        server=PostgreSQL,
    ),
    Contestant(
        system=System(SHIPPED, _OUTPUT),
        work=restate.execute,
        place=_in_restate(None),
        modules=("restate", "hypercorn"),
        server=Restate,
    ),
    Contestant(
        system=System(TUNED, _OUTPUT),
        work=restate.execute,
        place=_in_restate(2),
        modules=("restate", "hypercorn"),
        server=Restate,
    ),
    Contestant(
        system=System("SQLite, one row a commit", "a limit: nothing around it, one after the other", limit=True),
        work=limits.sqlite,
        place=_in_file("SELECT COUNT(*) FROM steps"),
        loads=(LONG,),
    ),
    Contestant(
        system=System("fdatasync, one output a sync", "a limit: a file, one after the other", limit=True),
        work=limits.fdatasync,
        place=_in_file(None),
        loads=(LONG,),
    ),
)

CONTESTANTS = {each.system.name: each for each in _ALL}
"""All that can be measured, by name."""
