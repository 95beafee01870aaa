"""What every WorkflowRepository does (docs/workflows.md): runs that have ended are deleted as a whole."""

from __future__ import annotations

import pytest

from bus.errors import Conflict
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRepository

from .conftest import Clock
from .samples import ANN, run, step

pytestmark = pytest.mark.anyio

ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


@pytest.mark.parametrize("status", ENDED)
async def test_a_run_that_has_ended_is_deleted_with_its_steps(
    workflows: WorkflowRepository, running: WorkflowRun, status: RunStatus
) -> None:
    await workflows.create_step_log(step("s", status=StepStatus.COMPLETED))
    await workflows.create_run(run("other", status=RunStatus.COMPLETED))
    await workflows.create_step_log(step("t", "other", status=StepStatus.COMPLETED))
    await workflows.update_run_status("r", status)
    assert await workflows.delete_run("r") is True
    assert await workflows.get_run("r") is None
    assert await workflows.list_step_logs("r") == []
    assert await workflows.get_step_log("s") is None
    assert await workflows.get_run_definition("r") is None
    assert [found.id for found in await workflows.list_all_runs()] == ["other"]
    assert [found.id for found in await workflows.list_step_logs("other")] == ["t"]


async def test_a_deletion_is_repeated(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    await workflows.create_run(run("r", status=RunStatus.COMPLETED))
    assert await workflows.delete_run("r") is True
    assert await workflows.delete_run("r") is False
    assert await workflows.delete_run("never was") is False


@pytest.mark.parametrize("status", sorted(set(RunStatus) - set(ENDED)))
async def test_a_run_that_has_not_ended_is_not_deleted(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, status: RunStatus
) -> None:
    await workflows.create_run(run("r", status=status))
    await workflows.create_step_log(step("s", status=StepStatus.COMPLETED))
    with pytest.raises(Conflict, match=f"run 'r' is {status}: .* cancel it first"):
        await workflows.delete_run("r")
    assert len(await workflows.list_step_logs("r")) == 1
    await workflows.update_run_status("r", RunStatus.CANCELLED)
    assert await workflows.delete_run("r") is True


async def test_a_run_that_is_held_is_not_deleted(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    await workflows.claim_run("r", ANN, 10)
    clock.advance(100)
    with pytest.raises(Conflict):
        await workflows.delete_run("r")


async def test_the_id_of_a_deleted_run_is_free(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    await workflows.create_run(run("r", status=RunStatus.COMPLETED, context={"n": 1}))
    await workflows.create_step_log(step("s", status=StepStatus.COMPLETED))
    await workflows.delete_run("r")
    again = run("r", context={"n": 2})
    assert await workflows.create_run(again) == again
    assert await workflows.list_step_logs("r") == []


async def test_a_definition_whose_runs_are_deleted_can_be_deleted(
    workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    await workflows.create_run(run("r", status=RunStatus.FAILED))
    await workflows.delete_run("r")
    assert await workflows.delete_definition("w") is True


@pytest.mark.parametrize("status", sorted(set(RunStatus) - {RunStatus.COMPLETED, RunStatus.CANCELLED}))
async def test_a_run_stays_while_the_run_that_started_it_may_go_on(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, status: RunStatus
) -> None:
    await workflows.create_run(run("parent", status=status))
    await workflows.create_run(run("child", status=RunStatus.COMPLETED, parent_run_id="parent"))
    with pytest.raises(Conflict, match="started by run 'parent'"):
        await workflows.delete_run("child")
    if status == RunStatus.FAILED:
        assert await workflows.delete_run("parent") is True
    else:
        await workflows.update_run_status("parent", RunStatus.CANCELLED)
    assert await workflows.delete_run("child") is True
