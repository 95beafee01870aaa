"""What every WorkflowRepository does (docs/workflows.md): runs that are retried and forked."""

from __future__ import annotations

import pytest

from bus.errors import Conflict, Fenced, InvalidTransition, NotFound, RunGivenUp, RunHeld
from bus.model.records import RunStatus, StepStatus, WorkflowRun
from bus.model.repository import WorkflowRepository

from .conftest import Place
from .samples import ANN, at, run, step

pytestmark = pytest.mark.anyio


async def records(workflows: WorkflowRepository, run_id: str = "r") -> list[str]:
    return [row.step_id for row in await workflows.list_step_logs(run_id)]


@pytest.fixture
async def history(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    """Steps a, b and c of r, a question, and two attempts at d that failed."""
    done, failed = StepStatus.COMPLETED, StepStatus.FAILED
    for second, name in enumerate("abc"):
        times = {"started_at": at(second), "completed_at": at(second)}
        await workflows.create_step_log(step(name, status=done, output=name, **times))
    await workflows.create_step_log(step("q", status=StepStatus.WAITING_APPROVAL, started_at=at(3)))
    for attempt in (1, 2):
        times = {"started_at": at(3 + attempt), "completed_at": at(3 + attempt)}
        row = step(f"d{attempt}", step_id="d", status=failed, attempt=attempt, error="broken", **times)
        await workflows.create_step_log(row)


async def test_a_run_that_an_error_stopped_goes_on_without_its_failed_steps(
    workflows: WorkflowRepository, history: None
) -> None:
    await workflows.update_run_status("r", RunStatus.FAILED, error="broken")
    retried = await workflows.retry_run("r")
    assert (retried.status, retried.error, retried.completed_at) == (RunStatus.PENDING, None, None)
    assert await records(workflows) == ["a", "b", "c", "q", "d#set-aside", "d#set-aside"]
    assert await workflows.retry_run("r") == retried == await workflows.get_run("r")
    assert (await workflows.claim_run("r", ANN, 10)).run.status == RunStatus.RUNNING
    assert await workflows.get_completed_step_ids("r") == ["a", "b", "c"]


async def test_a_run_that_its_program_paused_with_an_error_goes_on_without_its_failed_steps(
    workflows: WorkflowRepository, history: None
) -> None:
    await workflows.update_run_status("r", RunStatus.PENDING)
    fence = (await workflows.claim_run("r", ANN, 10)).fence
    await workflows.update_run_status("r", RunStatus.PAUSED, error="broken", fence=fence)
    await workflows.retry_run("r")
    assert await records(workflows) == ["a", "b", "c", "q", "d#set-aside", "d#set-aside"]


@pytest.mark.parametrize("status", [RunStatus.CRASHED, RunStatus.PAUSED, RunStatus.RUNNING])
async def test_a_run_that_a_person_or_a_crash_stopped_goes_on_where_it_was(
    workflows: WorkflowRepository, history: None, status: RunStatus
) -> None:
    """Its program may have seen the last failure, such as a wait that timed out, and gone on from there."""
    await workflows.update_run_status("r", status, error="a question")
    retried = await workflows.retry_run("r")
    assert (retried.status, retried.error, retried.completed_at) == (RunStatus.PENDING, None, None)
    assert await records(workflows) == ["a", "b", "c", "q", "d", "d"]
    assert await workflows.retry_run("r") == retried


async def test_a_run_goes_on_from_a_step(workflows: WorkflowRepository, history: None) -> None:
    await workflows.update_run_status("r", RunStatus.FAILED)
    with pytest.raises(NotFound):
        await workflows.retry_run("r", "nothing")
    assert await records(workflows) == ["a", "b", "c", "q", "d", "d"]
    retried = await workflows.retry_run("r", "c")
    expected = ["a", "b", "c#set-aside", "q#set-aside", "d#set-aside", "d#set-aside"]
    assert await records(workflows) == expected
    assert await workflows.get_completed_step_ids("r") == ["a", "b"]
    assert await workflows.list_waiting_approvals("r") == [], "a question that is set aside is not asked"
    assert await workflows.retry_run("r", "c") == retried, "its answer may have been lost"
    assert await records(workflows) == expected


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.CANCELLED])
async def test_a_run_that_has_ended_otherwise_is_not_retried(
    workflows: WorkflowRepository, history: None, status: RunStatus
) -> None:
    ended = await workflows.update_run_status("r", status)
    with pytest.raises(InvalidTransition):
        await workflows.retry_run("r")
    assert await workflows.get_run("r") == ended
    with pytest.raises(NotFound):
        await workflows.retry_run("nowhere")


async def test_a_run_that_is_held_is_not_retried(place: Place, pending: WorkflowRun) -> None:
    workflows = place.workflows
    claim = await workflows.claim_run("r", ANN, 10)
    with pytest.raises(RunHeld):
        await workflows.retry_run("r")
    place.clock.advance(10)
    await workflows.retry_run("r")
    with pytest.raises(Fenced):
        await workflows.renew_run("r", claim.fence)


async def test_a_retry_resets_the_count_of_lost_holders(place: Place, pending: WorkflowRun) -> None:
    workflows = place.workflows
    for _ in range(6):
        await workflows.claim_run("r", ANN, 10)
        place.clock.advance(10)
        await place.recover_runs()
    with pytest.raises(RunGivenUp) as refusal:
        await workflows.claim_run("r", ANN, 10)
    assert refusal.value.recoveries == 6
    await workflows.retry_run("r")
    await workflows.claim_run("r", ANN, 10)


async def test_progress_since_the_last_loss_resets_the_count(place: Place, pending: WorkflowRun) -> None:
    workflows = place.workflows
    for number in range(20):
        claim = await workflows.claim_run("r", ANN, 10)
        if number % 5 == 4:  # fewer losses without progress than are allowed
            await workflows.create_step_log(step(f"{number}", status=StepStatus.COMPLETED), fence=claim.fence)
        place.clock.advance(10)
        if number % 2:
            await place.recover_runs()
    [summary] = await workflows.list_all_runs()
    assert summary.recoveries <= 5


async def test_a_fork_begins_with_what_ended_before_a_step(workflows: WorkflowRepository, history: None) -> None:
    before = await workflows.get_run("r")
    assert before is not None
    forked = await workflows.fork_run("r", "new", "c")
    assert forked.status == RunStatus.PENDING
    assert (forked.workflow_id, forked.context, forked.error) == (before.workflow_id, before.context, None)
    assert await records(workflows, "new") == ["a", "b"]
    assert [row.output for row in await workflows.list_step_logs("new")] == ["a", "b"]
    assert await workflows.get_run("r") == before
    assert await workflows.get_run_definition("new") == await workflows.get_run_definition("r")
    assert await workflows.fork_run("r", "new", "c") == forked, "its answer may have been lost"
    with pytest.raises(Conflict):
        await workflows.fork_run("r", "new", "b")
    with pytest.raises(Conflict):
        await workflows.fork_run("new", "r")
    await workflows.fork_run("r", "whole")
    assert await records(workflows, "whole") == ["a", "b", "c", "d", "d"], "no error has stopped it"
    await workflows.update_run_status("r", RunStatus.FAILED, error="broken")
    await workflows.fork_run("r", "retried")
    assert await records(workflows, "retried") == ["a", "b", "c"]
    for run_id, step_id in (("r", "nothing"), ("nowhere", None)):
        with pytest.raises(NotFound):
            await workflows.fork_run(run_id, "other", step_id)
    assert await workflows.get_run("other") is None


async def test_a_fork_of_a_run_is_a_run_of_its_own(workflows: WorkflowRepository, history: None) -> None:
    await workflows.create_run(run("other"))
    await workflows.update_run_status("r", RunStatus.COMPLETED)
    await workflows.fork_run("r", "first", "b")
    await workflows.fork_run("first", "second")
    await workflows.claim_run("second", ANN, 10)
    assert await records(workflows, "second") == ["a"]
    assert await records(workflows, "other") == []
