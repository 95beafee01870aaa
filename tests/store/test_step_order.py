"""A run's steps are read in their order without being sorted, so that the time for a page does not grow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio

from store import open_store
from store.sqlite.workflows.steps import STEP_ORDER, STEPS_FROM_PLACE


def test_no_statement_sorts_the_steps_of_a_run(path: Path) -> None:
    async def migrate() -> None:
        async with open_store(str(path)):
            pass

    anyio.run(migrate)
    whole = f"SELECT * FROM workflow_steps WHERE run_id = ?1 {STEP_ORDER}"
    with closing(sqlite3.connect(path)) as connection:
        for sql, parameters in zip((whole, *STEPS_FROM_PLACE), ("r", ("r", "t", 1), ("r", "t")), strict=True):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", tuple(parameters))]
            assert len(plan) == 1
            assert "USING INDEX idx_workflow_steps_run_id" in plan[0]
