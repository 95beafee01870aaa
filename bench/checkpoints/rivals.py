"""What the processes do that execute runs with other systems, on SQLite, each configured as served it best.

Owns what every system needs to promise the same: a write-ahead log, and a sync for each commit. Both are read back
from each connection that a system uses, and are among the facts. The packages are those of the benchmark's own
environment, and are imported only in their processes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any, TypedDict

import aiosqlite
import anyio
from anyio.from_thread import start_blocking_portal

from .loads import Run, serve

__all__ = ["dbos", "langgraph"]

_STEPS_MAX = 10**9


def dbos(pipe: Connection, path: str) -> None:
    """Execute runs with DBOS: synchronous workflows, each in a thread, as its plain functions are.

    Its threads share one connection: with a pool of the usual size they wait for SQLite's lock in sleeps, which is
    slower. Asynchronous workflows are no faster: they go to a thread for each statement.
    """
    import sqlalchemy.event
    from dbos import DBOS

    connections: list[str] = []

    def prepare(connection: sqlite3.Connection, record: object) -> None:
        mode = _one(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connections.append(_durability(mode, _one(connection, "PRAGMA synchronous")))

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", prepare)
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{path}",
            "log_level": "ERROR",
            "db_engine_kwargs": {"pool_size": 1, "max_overflow": 0, "pool_timeout": 600},
        }
    )
    runs: dict[str, Run] = {}

    def execute(id: str) -> None:
        run = runs[id]
        while run.more:
            DBOS.run_step({"name": "step"}, run.__call__)

    workflow = DBOS.workflow()(execute)

    def carry_out(wanted: Sequence[Run]) -> None:
        runs.update((run.id, run) for run in wanted)
        for handle in [DBOS.start_workflow(workflow, run.id) for run in wanted]:
            handle.get_result()

    DBOS.launch()
    packages = ("dbos", "sqlalchemy")
    serve(pipe, {"durability": sorted(set(connections)), "versions": _versions(packages)}, carry_out)


class _State(TypedDict):
    """What a graph keeps: the last step's output, and no more, so that its checkpoints stay small."""

    run: str
    output: dict[str, Any]


def langgraph(pipe: Connection, path: str, way: str) -> None:
    """Execute runs with LangGraph: a graph of one node that follows itself, or its saver alone.

    The graph is asynchronous, on uvloop, and its durability is "sync": a step's checkpoint is written before
    the next step begins.
    """
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(aiosqlite.connect(path)) as connection,
    ):
        facts, carry_out = portal.call(_langgraph, connection, way)
        serve(pipe, facts, partial(portal.call, carry_out))


async def _langgraph(connection: aiosqlite.Connection, way: str) -> tuple[dict[str, Any], Any]:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    await connection.execute("PRAGMA synchronous = FULL")
    saver = AsyncSqliteSaver(connection)
    await saver.setup()
    [[mode]] = await connection.execute_fetchall("PRAGMA journal_mode")
    [[synchronous]] = await connection.execute_fetchall("PRAGMA synchronous")
    execute = _graph(saver) if way == "graph" else partial(_saver, saver)

    async def carry_out(runs: Sequence[Run]) -> None:
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(execute, run)

    packages = ("langgraph", "langgraph-checkpoint-sqlite", "aiosqlite")
    return {"durability": [_durability(mode, synchronous)], "versions": _versions(packages)}, carry_out


def _graph(saver: Any) -> Any:
    from langgraph.graph import END, START, StateGraph

    runs: dict[str, Run] = {}

    async def step(state: _State) -> dict[str, Any]:
        return {"output": runs[state["run"]]()}

    builder = StateGraph(_State)
    builder.add_node("step", step)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if runs[state["run"]].more else END, ["step", END])
    graph = builder.compile(checkpointer=saver)

    async def execute(run: Run) -> None:
        runs[run.id] = run
        config = {"configurable": {"thread_id": run.id}, "recursion_limit": _STEPS_MAX}
        await graph.ainvoke({"run": run.id, "output": {}}, config, durability="sync")

    return execute


async def _saver(saver: Any, run: Run) -> None:
    from langgraph.checkpoint.base import empty_checkpoint

    config = {"configurable": {"thread_id": run.id, "checkpoint_ns": ""}}
    while run.more:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"output": run()}
        config = await saver.aput(config, checkpoint, {"source": "loop", "step": run.steps, "parents": {}}, {})


def _one(connection: sqlite3.Connection, sql: str) -> Any:
    return connection.execute(sql).fetchone()[0]


def _durability(journal_mode: str, synchronous: int) -> str:
    levels = ("OFF", "NORMAL", "FULL", "EXTRA")
    return f"journal_mode={journal_mode.upper()} synchronous={levels[synchronous]}"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: version(name) for name in packages}
