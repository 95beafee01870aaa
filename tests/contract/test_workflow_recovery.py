"""What every WorkflowRepository does (docs/workflows.md) with runs that lost their holders.

Giving them up is the worker's work, not a bot's: a place does it here.
"""

from __future__ import annotations

import pytest

from bus.errors import Conflict, Fenced, InvalidValue
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRepository

from .conftest import Place
from .samples import ANN, BOB, run, step

pytestmark = pytest.mark.anyio


async def test_live_work_is_not_crashed(place: Place, workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    claimed = await workflows.claim_run("r", ANN, 10)
    assert await workflows.list_crashed_runs() == []
    place.clock.advance(9.999)
    assert await place.recover_runs() == []
    place.clock.advance(0.001)
    assert await workflows.list_crashed_runs() == [claimed.run]


async def test_recovering_gives_up_what_nobody_holds(
    place: Place, workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    await workflows.claim_run("r", ANN, 10)
    await workflows.update_run_status("r", RunStatus.RUNNING, context={"n": 1}, fence=1)
    for status in StepStatus:
        await workflows.create_step_log(step(status, status=status), fence=1)
    before = {log.id: log for log in await workflows.list_step_logs("r")}
    place.clock.advance(10)
    [recovered] = await place.recover_runs()
    assert recovered.holder == ANN
    stored = await workflows.get_run("r")
    assert stored is not None
    assert (stored.status, stored.context, stored.completed_at) == ("crashed", {"n": 1}, place.clock.after(0))
    assert "interrupted" in (stored.error or "")
    summary = recovered.run
    assert (summary.id, summary.status, summary.error) == ("r", "crashed", stored.error)
    assert (summary.fence, summary.holder, summary.lease_expires_at, summary.recoveries) == (2, None, None, 1)
    assert await workflows.list_all_runs() == [summary]
    after = {log.id: log for log in await workflows.list_step_logs("r")}
    assert {id for id in before if before[id] != after[id]} == {"running"}
    assert (after["running"].status, after["running"].error) == ("failed", "interrupted")
    assert [log.id for log in await workflows.list_waiting_approvals("r")] == ["waiting_approval"]
    with pytest.raises(Fenced) as refusal:
        await workflows.update_run_status("r", RunStatus.COMPLETED, fence=1)
    assert refusal.value.status == "crashed"
    assert await place.recover_runs() == []


async def test_runs_that_were_never_leased_are_left_alone(
    place: Place, workflows: WorkflowRepository, running: WorkflowRun
) -> None:
    at_work = await workflows.create_step_log(step("s", status=StepStatus.RUNNING))
    place.clock.advance(1_000_000)
    assert await place.recover_runs() == []
    assert await workflows.list_crashed_runs() == [running]
    assert await workflows.list_step_logs("r") == [at_work]


async def test_recovering_takes_the_oldest_first_and_no_more_than_asked(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    for number, second in ((0, 3), (1, 1), (2, 2)):
        await workflows.create_run(run(f"{number}", started_at=place.clock.after(second)))
        await workflows.claim_run(f"{number}", ANN, 10)
    await workflows.create_run(run("live"))
    await workflows.claim_run("live", ANN, 1000)
    place.clock.advance(10)
    assert [recovered.run.id for recovered in await place.recover_runs(limit=2)] == ["1", "2"]
    assert [recovered.run.id for recovered in await place.recover_runs(limit=2)] == ["0"]
    assert await place.recover_runs(limit=2) == []
    assert [crashed.id for crashed in await workflows.list_all_runs(RunStatus.RUNNING)] == ["live"]


async def crash(place: Place, how: str) -> None:
    """Lose the holder of r once; by a sweep, or by whoever is quicker than that."""
    repository, bot = (place.workflows, ANN) if how != "taken over" else (place.others, BOB)
    await repository.claim_run("r", bot, 10)
    place.clock.advance(10)
    if how == "swept":
        await place.recover_runs()


@pytest.mark.parametrize("how", ["swept", "taken over"])
async def test_a_run_that_loses_its_holder_too_often_waits_for_a_person(
    place: Place, workflows: WorkflowRepository, pending: WorkflowRun, how: str
) -> None:
    for _ in range(6):
        await crash(place, how)
    with pytest.raises(Conflict, match="posthouse retry"):
        await workflows.claim_run("r", ANN, 10)
    await place.recover_runs()
    with pytest.raises(Conflict, match="lost its holder 6 times"):
        await workflows.claim_run("r", ANN, 10)
    await workflows.update_run_status("r", RunStatus.PENDING)
    for _ in range(6):
        await crash(place, how)
    await place.recover_runs()
    with pytest.raises(Conflict, match="lost its holder 6 times"):
        await workflows.claim_run("r", ANN, 10)
    await workflows.update_run_status("r", RunStatus.PAUSED)
    await workflows.claim_run("r", ANN, 10)


async def test_five_crashes_are_forgiven(place: Place, workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    for _ in range(5):
        await crash(place, "swept")
    claimed = await workflows.claim_run("r", ANN, 10)
    [summary] = await workflows.list_all_runs()
    assert (summary.recoveries, claimed.fence) == (5, 11)
    await workflows.release_run("r", claimed.fence)
    await workflows.claim_run("r", ANN, 10)
    [summary] = await workflows.list_all_runs()
    assert summary.recoveries == 5, "giving a run back is not a person's resuming it"


async def test_an_id_at_which_a_list_would_end_is_refused(
    workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    """A hundred such runs that were lost kept all others from being given up, and such a signal waited for ever."""
    with pytest.raises(InvalidValue, match="zero character"):
        await workflows.create_run(run("a\0b"))
    with pytest.raises(InvalidValue, match="zero character"):
        await workflows.fork_run("r", "a\0b")
    with pytest.raises(InvalidValue, match="zero character"):
        await workflows.create_step_log(step("a\0b"))
    with pytest.raises(InvalidValue, match="zero character"):
        await workflows.send_signal("r", "a\0b")
