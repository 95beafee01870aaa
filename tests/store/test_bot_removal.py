"""What the removal of a bot costs where there are many runs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bus.model.records import RunStatus
from bus.model.repository import Store
from store import removing

pytestmark = pytest.mark.anyio

HOLDABLE = [*set(RunStatus) - {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}]


async def test_a_bot_is_removed_without_reading_runs_that_have_ended(store: Store, path: Path) -> None:
    sql = removing._PARTS["runs of bot"]
    assert all(f"'{status}'" in sql for status in HOLDABLE)
    with closing(sqlite3.connect(path)) as connection:
        [step] = connection.execute(f"EXPLAIN QUERY PLAN SELECT COUNT(*) FROM {sql}", ("b",)).fetchall()
    assert step[3].startswith("SEARCH workflow_runs USING INDEX"), step
