"""A commit of what is damaged, and how often it reads its run."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from bus.errors import RecordDamaged
from bus.model.records import RunStatus, StepStatus, WorkflowStepLog
from bus.model.repository import (
    AddMessages,
    Appended,
    Committed,
    FindRequest,
    NotCommitted,
    Store,
    lots_of,
)

from ..contract.store.samples import at, direct, hold_run, work

pytestmark = pytest.mark.anyio


def change(path: Path, sql: str) -> None:
    """Change what is stored, as nobody does who goes through the store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("UPDATE workflow_runs SET context = '{broken'", "workflow_runs"),
        ("UPDATE workflow_steps SET output = '{broken'", "workflow_steps"),
    ],
)
async def test_one_of_what_is_damaged_leaves_its_neighbours(store: Store, path: Path, sql: str, table: str) -> None:
    await hold_run(store, "r")
    step = WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s", status=StepStatus.RUNNING, output=1)
    await store.workflows.create_step_log(step, fence=1)
    change(path, sql)
    fields: dict[str, Any] = {"run_id": "r", "steps": [step], "context": {"n": 1}}
    damaged, [added] = (
        await store.log.apply(
            [work("c", "bob", **fields), AddMessages(lots_of([direct("d", "ann", "bob")]), at(1))]
        )
    ).answers
    assert isinstance(damaged, NotCommitted)
    assert isinstance(damaged.error, RecordDamaged)
    assert damaged.error.table == table
    assert added == Appended(1)
    assert await store.log.find(FindRequest("c to bob")) is None


@pytest.mark.parametrize(
    ("fields", "read"),
    [({}, [False]), ({"context": {"n": 1}}, [True]), ({"status": RunStatus.COMPLETED}, [True])],
    ids=["fence alone", "context", "status"],
)
async def test_a_commit_reads_its_run_once_and_the_context_only_to_change_the_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], read: list[bool]
) -> None:
    await hold_run(store, "r")
    found: list[bool] = []
    execute_fetchall = aiosqlite.Connection.execute_fetchall

    def note(connection: aiosqlite.Connection, sql: str, parameters: Any = ()) -> Any:
        if "FROM workflow_runs" in sql:
            found.append("context" in sql)
        return execute_fetchall(connection, sql, parameters)

    monkeypatch.setattr(aiosqlite.Connection, "execute_fetchall", note)
    [answer] = (await store.log.apply([work("c", "bob", run_id="r", **fields)])).answers
    assert isinstance(answer, Committed)
    assert found == read
