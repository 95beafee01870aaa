"""Runs and steps that are damaged: each is reported as that, and keeps nobody from the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus.errors import RecordDamaged
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import (
    AddBot,
    AddMessages,
    Appended,
    Recovered,
    RecoverRuns,
    Store,
    WorkflowStore,
    lots_of,
)
from store import open_store
from store.sqlite.check import Check

from ..contract.store.samples import at, bot, direct

pytestmark = pytest.mark.anyio

NO_TEXT = "CAST(X'ff' AS TEXT)"


def change(path: Path, sql: str) -> None:
    """Change what is stored from another connection, as other programs can."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


async def create_runs(store: Store, *ids: str) -> None:
    """Create runs of the workflow w, the first begun first."""
    await store.workflows.save_definition(WorkflowDefinition(id="w", name="w", owner=GlobalOwner()))
    for second, id in enumerate(ids):
        run = WorkflowRun(id=id, workflow_id="w", workflow_name="w", trigger_type="manual", started_at=at(second))
        await store.workflows.create_run(run)


async def status(store: Store, id: str) -> RunStatus:
    run = await store.workflows.get_run(id)
    assert run is not None
    return run.status


def recovery(runs_max: int) -> RecoverRuns:
    return RecoverRuns(runs_max, sender_id="worker", sender_name="worker", timestamp=at(60))


@pytest.mark.parametrize(
    "column", ["id", "workflow_name", "trigger_type", "started_at", "error", "concurrency_key"]
)
@pytest.mark.parametrize("runs_max", [1, 2, 3, 100])
async def test_a_damaged_run_keeps_no_other_from_being_given_up(path: Path, column: str, runs_max: int) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with open_store(str(path), clock=lambda: now) as store:
        await create_runs(store, "a", "b", "good")
        await store.log.apply([AddBot(bot("ann"))])
        for id in ("a", "b", "good"):
            await store.workflows.claim_run(id, "ann")
        change(path, f"UPDATE workflow_runs SET {column} = COALESCE({column}, '') || {NO_TEXT} WHERE id = 'a'")
        change(path, f"UPDATE workflow_runs SET error = {NO_TEXT} WHERE id = 'b'")
        now = datetime(2026, 1, 2, tzinfo=UTC)
        beside = AddMessages(lots_of([direct("m", "ann", "bob")]), at(60))
        [added], recovered = (await store.log.apply([beside, recovery(runs_max)])).answers
        assert added == Appended(1)
        assert isinstance(recovered, Recovered)
        assert [found.run.id for found in recovered.runs] == ["good"]
        assert [message.recipient_bot_id for message in recovered.messages] == ["ann"]
        assert await status(store, "good") == RunStatus.CRASHED
        with pytest.raises(RecordDamaged):
            await store.workflows.get_run("b")
        change(path, "UPDATE workflow_runs SET error = NULL WHERE id = 'b'")
        assert await status(store, "b") == RunStatus.RUNNING, "it was left as it was"
        [recovered] = (await store.log.apply([recovery(runs_max)])).answers
        assert [found.run.id for found in recovered.runs] == ["b"]


WRITES: dict[str, Callable[[WorkflowStore], Awaitable[Any]]] = {
    "claim": lambda workflows: workflows.claim_run("r", "bob"),
    "move": lambda workflows: workflows.update_run_status("r", RunStatus.COMPLETED),
    "renew": lambda workflows: workflows.renew_run("r", 1),
    "release": lambda workflows: workflows.release_run("r", 1),
    "step": lambda workflows: workflows.update_step_status("s", StepStatus.COMPLETED),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_write_to_what_is_damaged_fails_alone_and_leaves_no_snapshot_open(
    store: Store, path: Path, write: Callable[[WorkflowStore], Awaitable[Any]]
) -> None:
    """Another program's write is what a snapshot that is still open could not be followed by."""
    await create_runs(store, "r", "other")
    await store.workflows.claim_run("r", "ann")
    await store.workflows.create_step_log(WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s"))
    change(path, f"UPDATE workflow_runs SET claim_id = {NO_TEXT} WHERE id = 'r'")
    change(path, f"UPDATE workflow_steps SET error = {NO_TEXT}")
    with pytest.raises(RecordDamaged, match="posthouse check"):
        await write(store.workflows)
    change(path, "UPDATE bots SET name = name")
    change(path, "UPDATE workflow_runs SET concurrency_key = 'changed' WHERE id = 'other'")
    moved = await store.workflows.update_run_status("other", RunStatus.RUNNING)
    assert moved.concurrency_key == "changed"


READS: dict[str, Callable[[WorkflowStore], Awaitable[Any]]] = {
    "run": lambda workflows: workflows.get_run("r"),
    "runs": lambda workflows: workflows.list_runs("w"),
    "summaries": lambda workflows: workflows.list_all_runs(),
    "definition": lambda workflows: workflows.get_definition("w"),
    "steps": lambda workflows: workflows.list_step_logs("r"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_what_is_no_text_is_not_handed_out(
    store: Store, path: Path, read: Callable[[WorkflowStore], Awaitable[Any]]
) -> None:
    await create_runs(store, "r")
    await store.workflows.create_step_log(WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s"))
    change(path, f"UPDATE workflow_runs SET error = {NO_TEXT}")
    change(path, f"UPDATE workflow_steps SET step_name = {NO_TEXT}")
    change(path, "UPDATE workflows SET definition = CAST(X'22ff22' AS TEXT)")
    with pytest.raises(RecordDamaged) as report:
        await read(store.workflows)
    assert str(report.value).encode(), "whoever asked can be told"


async def test_a_damaged_id_can_be_told(store: Store, path: Path) -> None:
    await create_runs(store, "r")
    change(path, f"UPDATE workflow_runs SET id = {NO_TEXT}")
    with pytest.raises(RecordDamaged, match=r"id \?") as report:
        await store.workflows.list_runs("w")
    assert str(report.value).encode()


async def test_a_check_finds_what_is_no_text(path: Path) -> None:
    async with open_store(str(path)) as store:
        await create_runs(store, "r")
        await store.workflows.create_step_log(WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s"))
    change(path, f"UPDATE workflow_runs SET error = {NO_TEXT}")
    change(path, f"UPDATE workflow_steps SET step_name = {NO_TEXT}")
    check = Check(path)
    for _ in check.run():
        pass
    assert check.damage == [
        "a text of 'r' in workflow_runs is not UTF-8",
        "a text of 's' in workflow_steps is not UTF-8",
    ]
