"""What the process does that executes runs with LangGraph, on SQLite or PostgreSQL: a graph, or its saver alone.

The graph has one node that follows itself. It is asynchronous, on uvloop, and its durability is "sync": a step's
checkpoint is written before the next step begins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any, TypedDict

import aiosqlite
from anyio.from_thread import start_blocking_portal

from .loads import Run, in_tasks, serve

__all__ = ["execute", "execute_alone"]

_STEPS_MAX = 10**9

_CONNECTIONS = 20

_PACKAGES = ("langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg")


class _State(TypedDict):
    """What a graph keeps: the last step's output, and no more, so that its checkpoints stay small."""

    run: str
    output: dict[str, Any]


def execute(pipe: Connection, address: str) -> None:
    """Execute runs as graphs; `address` is a file of SQLite, or a URL of PostgreSQL."""
    _serve(pipe, address, _graph)


def execute_alone(pipe: Connection, address: str) -> None:
    """Keep checkpoints with the saver, with no graph around it."""
    _serve(pipe, address, lambda saver: partial(_put, saver))


def _serve(pipe: Connection, address: str, way: Callable[[Any], Callable[[Run], Awaitable[Any]]]) -> None:
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(_saver(address)) as (saver, durability),
    ):
        facts = {"durability": durability, "versions": {name: version(name) for name in _PACKAGES}}
        serve(pipe, facts, partial(portal.call, in_tasks(way(saver))))


@asynccontextmanager
async def _saver(address: str) -> AsyncIterator[tuple[Any, list[str]]]:
    if address.startswith("postgresql:"):
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(address, kwargs=options, min_size=_CONNECTIONS) as pool:
            in_server = AsyncPostgresSaver(pool)
            await in_server.setup()
            yield in_server, []
    else:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with aiosqlite.connect(address) as connection:
            await connection.execute("PRAGMA synchronous = FULL")
            in_file = AsyncSqliteSaver(connection)
            await in_file.setup()
            [[mode]] = await connection.execute_fetchall("PRAGMA journal_mode")
            [[synchronous]] = await connection.execute_fetchall("PRAGMA synchronous")
            yield in_file, [f"journal_mode={mode} synchronous={synchronous}"]


def _graph(saver: Any) -> Callable[[Run], Awaitable[Any]]:
    from langgraph.graph import END, START, StateGraph

    runs: dict[str, Run] = {}

    async def step(state: _State) -> dict[str, Any]:
        return {"output": runs[state["run"]]()}

    builder = StateGraph(_State)
    builder.add_node("step", step)
    builder.add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if runs[state["run"]].more else END, ["step", END])
    graph = builder.compile(checkpointer=saver)

    async def follow(run: Run) -> None:
        runs[run.id] = run
        config = {"configurable": {"thread_id": run.id}, "recursion_limit": _STEPS_MAX}
        await graph.ainvoke({"run": run.id, "output": {}}, config, durability="sync")
        del runs[run.id]

    return follow


async def _put(saver: Any, run: Run) -> None:
    from langgraph.checkpoint.base import empty_checkpoint

    config = {"configurable": {"thread_id": run.id, "checkpoint_ns": ""}}
    while run.more:
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"output": run()}
        checkpoint["channel_versions"] = changed = {"output": run.steps}
        config = await saver.aput(config, checkpoint, {"source": "loop", "step": run.steps, "parents": {}}, changed)
