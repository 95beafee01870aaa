"""A commit beside other writes: it shares their transaction, and a neighbour that fails takes nothing of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import anyio
import msgspec
import pytest

from bus.errors import Conflict, NotFound, RecordDamaged, TooLarge
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import (
    AddBot,
    AddMessages,
    Appended,
    Committed,
    CommitWork,
    FindRequest,
    LogMessage,
    MailboxState,
    MessageLog,
    NotCommitted,
    SaveMailbox,
    Store,
    UnsettledState,
    WorkflowRules,
    lots_of,
)
from store import open_store

from .samples import at, bot, direct

pytestmark = pytest.mark.anyio


def work(id: str, *recipients: str, run_id: str | None = None, **fields: Any) -> CommitWork:
    """A commit that sends one message to each recipient, for a run or for none."""
    defaults = CommitWork(
        id=id,
        bot_id="ann",
        digest="of its contents",
        run_id=run_id,
        fence=None if run_id is None else 1,
        steps=[],
        status=None,
        error=None,
        context=None,
        lots=lots_of(direct(f"{id} to {recipient}", "ann", recipient) for recipient in recipients),
        channels=[],
        known_only=False,
        timestamp=at(0),
        number=1,
    )
    return msgspec.structs.replace(defaults, **fields)


def change(path: Path, sql: str) -> None:
    """Change what is stored, as nobody does who goes through the store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


async def hold_run(store: Store, id: str) -> None:
    """Let a run of the workflow w be held, with the fence 1."""
    await store.workflows.save_definition(WorkflowDefinition(id="w", name="w", owner=GlobalOwner()))
    run = WorkflowRun(id=id, workflow_id="w", workflow_name="w", trigger_type="manual", started_at=at(0))
    await store.workflows.create_run(run)
    await store.workflows.claim_run(id, "ann")


async def test_neighbours_that_fail_take_nothing_of_it(store: Store) -> None:
    """It is first in its group, which is rolled back for the second's sake, and is carried out a second time."""
    answers: dict[str, Any] = {}

    async def apply(name: str, change: Any) -> None:
        [answers[name]] = (await store.log.apply([change])).answers

    async def fails() -> None:
        with pytest.raises(NotFound):
            await store.workflows.update_run_status("nowhere", RunStatus.RUNNING)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(apply, "commit", work("c", "bob"))
            tasks.start_soon(fails)
            tasks.start_soon(apply, "next", AddMessages(lots_of([direct("d", "ann", "bob")]), at(1)))
        answers["again"] = (await store.log.apply([work("c", "bob")])).answers[0]
    assert isinstance(answers["commit"], Committed)
    assert answers["commit"].added is not None, "nothing of the first time stayed"
    assert answers["commit"].added + answers["next"] == [Appended(1), Appended(2)]
    assert answers["again"] == Committed([1])
    found = [await store.log.find(FindRequest(id)) for id in ("c to bob", "d")]
    assert [message.seq for message in found if isinstance(message, LogMessage)] == [1, 2]


async def test_one_that_is_refused_leaves_its_neighbours(log: MessageLog) -> None:
    refused, done = (await log.apply([work("c", "bob", run_id="nowhere"), work("d", "bob")])).answers
    assert not isinstance(refused, Committed)
    assert done.seqs == [1]
    assert await log.find(FindRequest("c to bob")) is None


async def test_a_commit_that_is_alone_goes_to_the_disk_with_what_follows_it(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict):
        await log.apply([work("c", "ann"), AddBot(bot("ann"))])
    assert (await log.load()).last_seq == 0
    assert (await log.apply([work("c", "ann", known_only=True)])).answers == [None], "nothing without the rest"


async def test_a_commit_settles_in_its_own_transaction(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    state = MailboxState("ann", 0, (UnsettledState(7, 1, 0),))
    answers = (await log.apply([work("c", "ann"), SaveMailbox(state, {1: [7]})])).answers
    assert isinstance(answers[0], Committed)
    [mailbox] = (await log.load()).mailboxes
    assert mailbox.unsettled == ()


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


async def test_a_new_step_that_could_not_be_sent_to_who_reads_it_is_refused(path: Path) -> None:
    """Its numbers are longer as they are stored than as they came."""
    output = [1e15] * 100
    step = WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s", output=output)
    async with open_store(str(path), rules=WorkflowRules(record_bytes_max=1_500)) as store:
        await hold_run(store, "r")
        [answer] = (await store.log.apply([work("c", "bob", run_id="r", steps=[step])])).answers
        assert isinstance(answer, NotCommitted)
        assert isinstance(answer.error, TooLarge)
        assert await store.workflows.list_step_logs("r") == []
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
