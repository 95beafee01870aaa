"""What of a run is removed from the file, and how the runs to remove are found."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.model.records import WorkflowStepLog
from bus.model.repository import MessageLog, RemoveRuns, Store
from store.sqlite.workflows import keeping

from ..contract.store.samples import at, fill_runs

pytestmark = pytest.mark.anyio


async def test_runs_are_removed_with_all_that_is_theirs(store: Store, log: MessageLog, path: Path) -> None:
    await fill_runs(store, "w", "a", "b")
    for id in ("a", "b"):
        await store.workflows.create_step_log(WorkflowStepLog(id=id, run_id=id, step_id="s", step_name="s"))
    with closing(sqlite3.connect(path)) as connection:
        for id in ("a", "b"):
            connection.execute("INSERT INTO workflow_commits VALUES (?, 'ann', ?, '', '[]', '')", (id, id))
            connection.execute("INSERT INTO workflow_run_attributes VALUES ('n', 'v', '', ?)", (id,))
        connection.commit()
    assert (await log.apply([RemoveRuns(("a", "nowhere"), at(9))])).answers == [1]
    with closing(sqlite3.connect(path)) as connection:
        for table in ("workflow_runs", "workflow_steps", "workflow_commits", "workflow_run_attributes"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (1,), table


async def test_a_survey_reads_no_more_than_it_returns(store: Store, log: MessageLog, path: Path) -> None:
    await fill_runs(store, "w", *"abc")
    with closing(sqlite3.connect(path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {keeping.SURVEY}", ("w", "", -1, at(9), -1, 10)).fetchall()
    steps = [row[3] for row in plan]
    assert "SEARCH run USING INDEX idx_workflow_runs_ended (workflow_id=? AND <expr>>? AND <expr><?)" in steps
    assert not any("TEMP B-TREE" in step for step in steps)
