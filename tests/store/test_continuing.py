"""Runs that continued as new ones, on disk: long chains of them, and those of the version before."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from bus.errors import SuccessorDeleted
from bus.model.records import WorkflowRun
from bus.runs.handle import RunHandle
from bus.runs.timing import Timing
from store import open_store
from store.sqlite.file.schema import migrations

pytestmark = pytest.mark.anyio

KNOWS_ITS_SUCCESSOR = "20261130_0017_ends_of_runs"

RUNS = 2500


def older(path: Path) -> None:
    """Make a file as the version before made it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE schema_migrations (name TEXT PRIMARY KEY, checksum TEXT, applied_at TEXT)")
        for migration in migrations():
            if migration.name < KNOWS_ITS_SUCCESSOR:
                connection.executescript(migration.sql)
                applied = (migration.name, migration.checksum)
                connection.execute("INSERT INTO schema_migrations VALUES (?, ?, '')", applied)
        connection.execute("INSERT INTO workflows VALUES ('w', 'w', 'global', NULL, '{}', '', '')")
        connection.commit()


def add(path: Path, runs: Sequence[tuple[str, str, str | None, str | None]]) -> None:
    """Add runs: id, status, parent, result."""
    with closing(sqlite3.connect(path)) as connection:
        for id, status, parent, result in runs:
            trigger = "manual" if parent is None else "continued"
            connection.execute(
                "INSERT INTO workflow_runs (id, workflow_id, workflow_name, status, trigger_type, started_at,"
                " parent_run_id, result) VALUES (?, 'w', 'w', ?, ?, '2026-01-01T00:00:00.000000Z', ?, ?)",
                (id, status, trigger, parent, result),
            )
        connection.commit()


async def test_runs_of_the_version_before_know_their_successors(path: Path) -> None:
    older(path)
    add(
        path,
        [
            ("a", "completed", None, None),
            ("a~2", "completed", "a", None),
            ("a~3", "running", "a~2", None),
            ("b", "completed", None, "1"),
            ("b~2", "running", "b", None),
            ("c", "completed", None, None),
        ],
    )
    async with open_store(str(path)) as store:
        known = {run.id: run.continued_as for run in await store.workflows.list_runs("w")}
        latest = await store.workflows.get_latest_run("a")
    assert known == {"a": "a~2", "a~2": "a~3", "a~3": None, "b": None, "b~2": None, "c": None}
    assert latest is not None
    assert latest.id == "a~3"


async def test_a_long_chain_is_followed_in_few_calls(path: Path) -> None:
    older(path)
    ids = [f"r{number}" for number in range(RUNS)]
    parents = [None, *ids]
    add(path, [(id, "completed", parent, None) for id, parent in zip(ids, parents, strict=False)])
    async with open_store(str(path)) as store:
        asked: list[str] = []
        get_latest_run = store.workflows.get_latest_run

        async def counted(run_id: str) -> WorkflowRun | None:
            asked.append(run_id)
            return await get_latest_run(run_id)

        store.workflows.get_latest_run = counted  # type: ignore[method-assign]
        handle = RunHandle(store.workflows, ids[0], Timing())
        assert (await handle.run()).id == ids[-1]
        assert asked == ["r0", "r1000", "r2000"]
        await store.workflows.delete_run(ids[-1])
        with pytest.raises(SuccessorDeleted, match=r"'r2498' continued as 'r2499', which was deleted"):
            await handle.run()
