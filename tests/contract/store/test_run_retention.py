"""Runs that have ended, as the store finds and removes them for retention."""

from __future__ import annotations

from typing import Any

import pytest

from bus.model.records import RunStatus, WorkflowRun, WorkflowStepLog
from bus.model.repository import MessageLog, RemoveRuns, RunSurvey, Store

from .samples import add, at, direct, fill_runs

pytestmark = pytest.mark.anyio


@pytest.fixture
def log(store: Store) -> MessageLog:
    return store.log


def survey(**fields: Any) -> RunSurvey:
    defaults: dict[str, Any] = {
        "workflow_id": None,
        "after_workflow_id": "",
        "after": ("", -1),
        "before": "",
        "newest_max": 0,
        "runs_max": 100,
    }
    return RunSurvey(**defaults | fields)


async def ids(log: MessageLog, **fields: Any) -> list[str]:
    return [run.id for run in (await log.survey_runs(survey(**fields))).runs]


async def test_runs_are_found_by_their_age(store: Store, log: MessageLog) -> None:
    await fill_runs(store, "w", *"abcde")
    assert await ids(log) == []
    assert await ids(log, before=at(3)) == ["a", "b", "c"]
    assert await ids(log, before=at(100)) == ["a", "b", "c", "d", "e"]
    assert await ids(log, before=at(100), runs_max=2) == ["a", "b"]


async def test_runs_are_found_by_their_number(store: Store, log: MessageLog) -> None:
    await fill_runs(store, "w", *"abcde")
    assert await ids(log, newest_max=2) == ["a", "b", "c"]
    assert await ids(log, newest_max=5) == []
    assert await ids(log, newest_max=4, before=at(2)) == ["a", "b"]
    assert await ids(log, newest_max=1, before=at(2)) == ["a", "b", "c", "d"]


async def test_a_survey_goes_on_after_a_place(store: Store, log: MessageLog) -> None:
    await fill_runs(store, "w", *"abc")
    await fill_runs(store, "w", *"de", first=2)
    seen: list[str] = []
    after = ("", -1)
    while found := (await log.survey_runs(survey(after=after, before=at(9), runs_max=2))).runs:
        seen += [run.id for run in found]
        after = found[-1].place
    assert seen == ["a", "b", "c", "d", "e"], "two of them ended at the same time"


async def test_only_runs_that_have_ended_are_found(store: Store, log: MessageLog) -> None:
    for status in RunStatus:
        await fill_runs(store, "w", str(status), status=status)
    assert sorted(await ids(log, before=at(9))) == ["cancelled", "completed", "failed"]


async def test_workflows_are_gone_through_by_their_ids(store: Store, log: MessageLog) -> None:
    for workflow in "vwx":
        await fill_runs(store, workflow, *(f"{workflow}{number}" for number in range(3)))
    found = await log.survey_runs(survey(newest_max=1))
    assert (found.workflow_id, [run.id for run in found.runs]) == ("v", ["v0", "v1"])
    found = await log.survey_runs(survey(newest_max=1, after_workflow_id="v"))
    assert (found.workflow_id, [run.id for run in found.runs]) == ("w", ["w0", "w1"])
    found = await log.survey_runs(survey(newest_max=1, workflow_id="x"))
    assert (found.workflow_id, [run.id for run in found.runs]) == ("x", ["x0", "x1"])
    found = await log.survey_runs(survey(newest_max=1, after_workflow_id="x"))
    assert (found.workflow_id, found.runs) == (None, [])


async def test_runs_are_found_with_their_steps_and_messages(store: Store, log: MessageLog) -> None:
    await fill_runs(store, "w", "a", "b")
    for number in range(3):
        step = WorkflowStepLog(id=f"s{number}", run_id="a", step_id=f"s{number}", step_name="s")
        await store.workflows.create_step_log(step)
    await add(log, direct("x", "ann", "bob"), direct("b", "ann", "bob"), direct("b", "bob", "ann"))
    first, second = (await log.survey_runs(survey(before=at(9)))).runs
    assert (first.steps, list(first.messages)) == (3, [])
    assert second.steps == 0
    assert sorted((row.seq, row.sender_bot_id, row.recipient_bot_id) for row in second.messages) == [
        (2, "ann", "bob"),
        (3, "bob", "ann"),
    ]


async def test_a_run_that_goes_on_meanwhile_stays(store: Store, log: MessageLog) -> None:
    await fill_runs(store, "w", "a", "b", "c", status=RunStatus.FAILED)
    await store.workflows.retry_run("a")
    await store.workflows.retry_run("b")
    await store.workflows.update_run_status("b", RunStatus.FAILED)
    assert (await log.apply([RemoveRuns(("a", "b", "c"), at(9))])).answers == [1]
    assert sorted(run.id for run in await store.workflows.list_all_runs()) == ["a", "b"]


async def test_a_run_stays_while_the_run_that_started_it_may_go_on(store: Store, log: MessageLog) -> None:
    await fill_runs(store, "v", "parent", status=RunStatus.FAILED)
    await fill_runs(store, "w")
    child = WorkflowRun(
        id="child",
        workflow_id="w",
        workflow_name="w",
        trigger_type="manual",
        started_at=at(0),
        completed_at=at(0),
        status=RunStatus.COMPLETED,
        parent_run_id="parent",
    )
    await store.workflows.create_run(child)
    assert await ids(log, workflow_id="w", before=at(9)) == []
    assert (await log.apply([RemoveRuns(("child",), at(9))])).answers == [0]
    assert await store.workflows.delete_run("parent") is True
    assert await ids(log, workflow_id="w", before=at(9)) == ["child"]
