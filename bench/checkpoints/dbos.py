"""What the process does that executes runs with DBOS, on SQLite or PostgreSQL, configured as served it best.

DBOS is a library: its workflows are executed in this process. They are plain functions here, each lane of them in a
thread; bench/README.md says what else was tried.
"""

from __future__ import annotations

import sqlite3
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from .loads import Run, in_threads, serve

__all__ = ["execute"]

_CONNECTIONS = {"sqlite": 1, "postgresql": 20}
"""On SQLite, threads that share one connection do not wait for the file's lock in sleeps. 20 is DBOS's default."""


def execute(pipe: Connection, url: str) -> None:
    """Execute runs in a database, that of a URL of SQLAlchemy's."""
    import sqlalchemy.event
    from dbos import DBOS, Serializer, SetWorkflowID

    class Json(Serializer):  # type: ignore[misc]
        """JSON, as the others keep it: the default is a pickle in base64, a third longer."""

        def serialize(self, data: Any) -> str:
            return msgspec.json.encode(data).decode()

        def deserialize(self, serialized_data: str) -> Any:
            return msgspec.json.decode(serialized_data)

    said: set[str] = set()
    backend = url.partition(":")[0].partition("+")[0]
    if backend == "sqlite":
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", lambda connection, _: said.add(_prepare(connection)))
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "log_level": "ERROR",
            "serializer": Json(),
            "db_engine_kwargs": {
                "pool_size": _CONNECTIONS[backend],
                "max_overflow": 0,
                "pool_timeout": 600,
                "pool_pre_ping": False,
            },
        }
    )
    runs: dict[str, Run] = {}

    @DBOS.workflow()  # type: ignore[untyped-decorator]
    def workflow(id: str) -> None:
        run = runs.pop(id)
        while run.more:
            DBOS.run_step({"name": "step"}, run.__call__)

    def follow(run: Run) -> None:
        runs[run.id] = run
        with SetWorkflowID(run.id):
            workflow(run.id)

    DBOS.launch()
    versions = {name: version(name) for name in ("dbos", "sqlalchemy", "psycopg")}
    serve(pipe, {"durability": sorted(said), "versions": versions}, in_threads(follow))


def _prepare(connection: sqlite3.Connection) -> str:
    """Set what makes each commit durable, and read it back."""
    [[mode]] = connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    [[synchronous]] = connection.execute("PRAGMA synchronous")
    return f"journal_mode={mode} synchronous={synchronous}"
