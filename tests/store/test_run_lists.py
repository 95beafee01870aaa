"""Lists of runs and of what waits: they are found by an index, however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bus.model.filters import RunFilter
from bus.model.records import RunStatus
from bus.model.repository import Store, WorkflowStore
from store.sqlite.file.reader import Reader

pytestmark = pytest.mark.anyio


async def plan(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[WorkflowStore], Awaitable[Any]]
) -> list[str]:
    """Return how SQLite carries out what a question asks."""
    asked: list[tuple[str, Sequence[Any]]] = []
    execute_fetchall = Reader.execute_fetchall

    async def note(reader: Reader, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        asked.append((sql, parameters))
        return await execute_fetchall(reader, sql, parameters)

    monkeypatch.setattr(Reader, "execute_fetchall", note)
    await ask(store.workflows)
    [(sql, parameters)] = asked
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]


@pytest.mark.parametrize(
    ("ask", "step"),
    [
        (
            lambda workflows: workflows.list_runs("w"),
            "SEARCH workflow_runs USING INDEX idx_workflow_runs_newest_of_workflow (workflow_id=?)",
        ),
        (
            lambda workflows: workflows.list_all_runs(RunStatus.COMPLETED),
            "SEARCH workflow_runs USING INDEX idx_workflow_runs_newest_of_status (status=?)",
        ),
        (
            lambda workflows: workflows.list_all_runs(),
            "SCAN workflow_runs USING INDEX idx_workflow_runs_started_at",
        ),
        (
            lambda workflows: workflows.list_all_runs(where=RunFilter(concurrency_key="k")),
            "SEARCH workflow_runs USING INDEX idx_workflow_runs_newest_of_key (concurrency_key=?)",
        ),
        (
            lambda workflows: workflows.list_all_runs(where=RunFilter(since="2026-01-01T00:00:00Z")),
            "SEARCH workflow_runs USING INDEX idx_workflow_runs_started_at (started_at>?)",
        ),
    ],
    ids=["of a workflow", "of a status", "all", "of a key", "since a time"],
)
async def test_runs_are_found_newest_first(
    store: Store,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[WorkflowStore], Awaitable[Any]],
    step: str,
) -> None:
    assert await plan(store, path, monkeypatch, ask) == [step], "and nothing is sorted"


async def test_runs_are_found_by_an_attribute_newest_first(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = RunFilter(attributes={"customer": "ann", "plan": "big"})
    steps = await plan(store, path, monkeypatch, lambda workflows: workflows.list_all_runs(where=where))
    assert steps[:2] == [
        "SEARCH workflow_run_attributes USING PRIMARY KEY (name=? AND value=?)",
        "SEARCH workflow_runs USING INDEX sqlite_autoindex_workflow_runs_1 (id=?)",
    ], "and nothing is sorted"
    assert not any("TEMP B-TREE" in step for step in steps)


async def test_a_run_is_found_by_the_beginning_of_its_id(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = RunFilter(id_prefix="r")
    steps = await plan(store, path, monkeypatch, lambda workflows: workflows.list_all_runs(where=where))
    assert steps[0] == "SEARCH workflow_runs USING INDEX sqlite_autoindex_workflow_runs_1 (id>? AND id<?)"


async def test_what_waits_of_one_run_is_found(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = await plan(store, path, monkeypatch, lambda workflows: workflows.list_waiting_approvals("r"))
    assert steps[0] == "SEARCH workflow_steps USING INDEX idx_workflow_steps_waiting (run_id=?)"
