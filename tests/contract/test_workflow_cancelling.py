"""Cancelling a run: at once, or when its program has cleaned up, and with all its children."""

from __future__ import annotations

import pytest

from bus.errors import Fenced, InvalidTransition, InvalidValue, RunHeld, RunPaused, SlotsTaken
from bus.model.records import CONTINUED, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, timestamp
from bus.model.repository import WorkflowRepository
from bus.model.workflows import WorkflowRules

from .conftest import Clock, Place
from .samples import ANN, BOB, definition, run, step

pytestmark = pytest.mark.anyio

GRACE = WorkflowRules().cancel_seconds


async def status(workflows: WorkflowRepository, run_id: str) -> RunStatus:
    found = await workflows.get_run(run_id)
    assert found is not None
    return found.status


async def cleaning(workflows: WorkflowRepository, run_id: str = "r", holder: str = ANN, lease: float = 600) -> int:
    """Let a program claim a run that cleans up; return the fence."""
    return (await workflows.claim_run(run_id, holder, lease, cleans_up=True)).fence


# ── At once ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_run_that_nobody_began_is_cancelled_at_once(
    workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    for _ in range(2):  # the first answer may be lost
        cancelled = await workflows.cancel_run("r", "changed my mind")
        assert (cancelled.status, cancelled.error, cancelled.cancel_by) == (
            RunStatus.CANCELLED,
            "changed my mind",
            None,
        )
    assert await workflows.get_run("r") == cancelled
    with pytest.raises(InvalidTransition):
        await workflows.claim_run("r", ANN, cleans_up=True)


async def test_a_program_that_does_not_clean_up_is_fenced_at_once(
    workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    fence = (await workflows.claim_run("r", ANN)).fence
    assert (await workflows.cancel_run("r")).status == RunStatus.CANCELLED
    with pytest.raises(Fenced) as refused:
        await workflows.renew_run("r", fence)
    assert refused.value.status == RunStatus.CANCELLED


@pytest.mark.parametrize("ended", [RunStatus.COMPLETED, RunStatus.FAILED])
@pytest.mark.parametrize("cleans_up", [False, True])
async def test_a_run_that_has_ended_is_not_cancelled(
    workflows: WorkflowRepository, pending: WorkflowRun, ended: RunStatus, cleans_up: bool
) -> None:
    fence = (await workflows.claim_run("r", ANN, cleans_up=cleans_up)).fence
    await workflows.update_run_status("r", ended, fence=fence)
    with pytest.raises(InvalidTransition):
        await workflows.cancel_run("r")


async def test_the_steps_of_a_cancelled_run_are_closed(
    workflows: WorkflowRepository, running: WorkflowRun, clock: Clock
) -> None:
    statuses = [StepStatus.PENDING, StepStatus.RUNNING, StepStatus.WAITING_APPROVAL, StepStatus.COMPLETED]
    for number, each in enumerate(statuses):
        await workflows.create_step_log(step(f"s{number}", status=each))
    await workflows.cancel_run("r")
    rows = [await workflows.get_step_log(f"s{number}") for number in range(4)]
    assert [(row and row.status, row and row.error) for row in rows] == [
        *[(StepStatus.FAILED, "cancelled")] * 3,
        (StepStatus.COMPLETED, None),
    ]
    assert rows[0] is not None
    assert rows[0].completed_at == timestamp(clock.now)
    assert await workflows.list_waiting_approvals("r") == []
    with pytest.raises(InvalidTransition):
        await workflows.update_step_status("s2", StepStatus.COMPLETED, {"approved": True})


async def test_what_is_cancelled_by_its_status_is_closed_too(
    workflows: WorkflowRepository, running: WorkflowRun
) -> None:
    await workflows.create_step_log(step("s", status=StepStatus.WAITING_APPROVAL))
    await workflows.create_run(run("c", parent_run_id="r"))
    await workflows.update_run_status("r", RunStatus.CANCELLED, "by hand")
    row = await workflows.get_step_log("s")
    assert row is not None
    assert row.error == "cancelled"
    child = await workflows.get_run("c")
    assert child is not None
    assert (child.status, child.error) == (RunStatus.CANCELLED, "run r was cancelled: by hand")


# ── When its program has cleaned up ──────────────────────────────────────────────────────────────────────


async def test_a_program_that_cleans_up_keeps_its_hold(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    fence = await cleaning(workflows)
    await workflows.create_step_log(step("open", status=StepStatus.RUNNING), fence=fence)
    assert (await workflows.renew_run("r", fence)).cancel_by is None
    asked = await workflows.cancel_run("r", "too late")
    until = clock.after(GRACE)
    assert (asked.status, asked.cancel_by, asked.error) == (RunStatus.RUNNING, until, None)
    assert await workflows.get_run("r") == asked
    [summary] = await workflows.list_all_runs()
    assert summary.cancel_by == until
    lease = await workflows.renew_run("r", fence)
    assert lease.cancel_by == until
    assert await workflows.get_lease("r") == lease
    with pytest.raises(RunHeld):
        await workflows.claim_run("r", ANN, cleans_up=True)
    with pytest.raises(RunHeld):
        await workflows.claim_run("r", ANN)
    await workflows.create_step_log(step("undo", status=StepStatus.COMPLETED), fence=fence)
    for _ in range(2):  # the first answer may be lost
        done = await workflows.update_run_status("r", RunStatus.CANCELLED, fence=fence)
        assert (done.status, done.error, done.cancel_by) == (RunStatus.CANCELLED, "too late", None)
    closed = await workflows.get_step_log("open")
    assert closed is not None
    assert closed.error == "cancelled"


async def test_a_program_has_its_time_and_no_more(place: Place, pending: WorkflowRun) -> None:
    workflows = place.workflows
    fence = await cleaning(workflows)
    await workflows.create_step_log(step("open", status=StepStatus.RUNNING), fence=fence)
    await workflows.cancel_run("r", "too late")
    place.clock.advance(GRACE - 1)
    assert await place.recover_runs() == []
    assert (await workflows.renew_run("r", fence)).fence == fence
    place.clock.advance(1)
    assert await place.recover_runs() == []
    found = await workflows.get_run("r")
    assert found is not None
    assert (found.status, found.error) == (RunStatus.CANCELLED, "too late")
    with pytest.raises(Fenced):
        await workflows.renew_run("r", fence)
    row = await workflows.get_step_log("open")
    assert row is not None
    assert row.error == "cancelled"


async def test_cancelling_again_only_shortens_the_time(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    await cleaning(workflows)
    assert (await workflows.cancel_run("r", "first")).cancel_by == clock.after(GRACE)
    assert (await workflows.cancel_run("r", "second", 100)).cancel_by == clock.after(GRACE)
    assert (await workflows.cancel_run("r", "third", 5)).cancel_by == clock.after(5)
    cancelled = await workflows.cancel_run("r", "at once", 0)
    assert (cancelled.status, cancelled.error) == (RunStatus.CANCELLED, "at once")
    for seconds in (-1, WorkflowRules().lease_seconds_max + 1):
        with pytest.raises(InvalidValue, match="grace_seconds"):
            await workflows.cancel_run("r", grace_seconds=seconds)


async def test_a_run_that_waits_may_clean_up_too(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    fence = await cleaning(workflows)
    await workflows.release_run("r", fence, RunStatus.PAUSED)
    asked = await workflows.cancel_run("r", "too late")
    assert (asked.status, asked.cancel_by) == (RunStatus.PAUSED, clock.after(GRACE))
    claimed = await workflows.claim_run("r", ANN, cleans_up=True)
    assert claimed.run.cancel_by == clock.after(GRACE)
    await workflows.release_run("r", claimed.fence)
    assert (await workflows.claim_run("r", ANN, cleans_up=True)).run.cancel_by == clock.after(GRACE)


async def test_who_does_not_clean_up_ends_a_run_by_claiming_it(
    workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    fence = await cleaning(workflows)
    await workflows.create_step_log(step("open", status=StepStatus.PENDING), fence=fence)
    await workflows.release_run("r", fence, RunStatus.PAUSED)
    await workflows.cancel_run("r", "too late")
    with pytest.raises(InvalidTransition) as refused:
        await workflows.claim_run("r", ANN)
    assert refused.value.current == RunStatus.CANCELLED
    found = await workflows.get_run("r")
    assert found is not None
    assert (found.status, found.error) == (RunStatus.CANCELLED, "too late")
    row = await workflows.get_step_log("open")
    assert row is not None
    assert row.error == "cancelled"


async def test_cleaning_up_waits_for_no_slot_and_no_person(workflows: WorkflowRepository) -> None:
    await workflows.save_definition(definition("w", concurrency=1))
    for id in ("r", "q"):
        await workflows.create_run(run(id))
    fence = await cleaning(workflows)
    await workflows.release_run("r", fence, RunStatus.PAUSED)
    await workflows.update_run_status("r", RunStatus.PAUSED, "by hand")
    await cleaning(workflows, "q")
    with pytest.raises((SlotsTaken, RunPaused)):
        await cleaning(workflows)
    await workflows.cancel_run("r")
    await cleaning(workflows)


async def test_a_holder_that_is_lost_while_it_cleans_up_leaves_the_rest_of_the_time(
    place: Place, pending: WorkflowRun
) -> None:
    await cleaning(place.workflows, lease=10)
    await place.workflows.cancel_run("r")
    place.clock.advance(11)
    await place.recover_runs()  # unless the worker's own sweep came first
    lost = await place.workflows.get_run("r")
    assert lost is not None
    assert (lost.status, lost.cancel_by) == (RunStatus.CRASHED, place.clock.after(GRACE - 11))
    assert (await place.others.claim_run("r", BOB, cleans_up=True)).run.cancel_by == place.clock.after(GRACE - 11)


async def test_a_retry_does_not_take_the_cancelling_back(place: Place, pending: WorkflowRun) -> None:
    fence = await cleaning(place.workflows)
    await place.workflows.cancel_run("r", "too late")
    await place.workflows.update_run_status("r", RunStatus.PAUSED, "broken", fence=fence)
    retried = await place.workflows.retry_run("r")
    assert (retried.status, retried.cancel_by) == (RunStatus.PENDING, place.clock.after(GRACE))
    place.clock.advance(GRACE)
    await place.recover_runs()
    assert await status(place.workflows, "r") == RunStatus.CANCELLED


async def test_a_run_that_completes_in_time_is_completed(place: Place, pending: WorkflowRun) -> None:
    fence = await cleaning(place.workflows)
    await place.workflows.cancel_run("r", "too late")
    done = await place.workflows.update_run_status("r", RunStatus.COMPLETED, fence=fence, result=1)
    assert (done.status, done.cancel_by) == (RunStatus.COMPLETED, None)
    place.clock.advance(GRACE)
    await place.recover_runs()
    assert await status(place.workflows, "r") == RunStatus.COMPLETED


# ── Children ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_children_are_cancelled_with_their_parent(place: Place, workflow: WorkflowDefinition) -> None:
    workflows = place.workflows
    for id, parent in (("r", None), ("a", "r"), ("b", "r"), ("done", "r"), ("aa", "a"), ("under", "done")):
        await workflows.create_run(run(id, parent_run_id=parent))
    fences = {id: await cleaning(workflows, id) for id in ("r", "a")}
    await workflows.update_run_status("done", RunStatus.COMPLETED)
    asked = await workflows.cancel_run("r", "too late", 10)
    children = {each.id: each for each in await workflows.list_runs("w")}
    assert children["a"].cancel_by == asked.cancel_by == place.clock.after(10)
    assert {id: each.status for id, each in children.items()} == {
        "r": RunStatus.RUNNING,
        "a": RunStatus.RUNNING,
        "b": RunStatus.CANCELLED,
        "done": RunStatus.COMPLETED,
        "aa": RunStatus.CANCELLED,
        "under": RunStatus.PENDING,
    }
    assert children["aa"].error == "run r was cancelled: too late"
    later = run("undo", parent_run_id="r")
    await workflows.create_run(later, fence=fences["r"])
    await workflows.update_run_status("r", RunStatus.CANCELLED, fence=fences["r"])
    assert await status(workflows, "undo") == RunStatus.PENDING, "it was started to clean up"
    assert await status(workflows, "a") == RunStatus.RUNNING, "it cleans up for itself"
    place.clock.advance(10)
    await place.recover_runs()
    found = await workflows.get_run("a")
    assert found is not None
    assert (found.status, found.error) == (RunStatus.CANCELLED, "run r was cancelled: too late")


async def test_the_successor_of_a_child_is_cancelled_with_the_parent(
    workflows: WorkflowRepository, running: WorkflowRun
) -> None:
    for id, parent, trigger in (("c", "r", "run"), ("c~2", "c", CONTINUED), ("c~3", "c~2", CONTINUED)):
        await workflows.create_run(run(id, parent_run_id=parent, trigger_type=trigger))
        if id != "c~3":
            await workflows.update_run_status(id, RunStatus.COMPLETED)
    await workflows.cancel_run("r")
    assert [await status(workflows, id) for id in ("c", "c~2", "c~3")] == [
        RunStatus.COMPLETED,
        RunStatus.COMPLETED,
        RunStatus.CANCELLED,
    ]


async def test_a_program_that_cancels_its_own_run_cancels_the_children(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    fence = await cleaning(workflows)
    for id in ("a", "b"):
        await workflows.create_run(run(id, parent_run_id="r"), fence=fence)
    await cleaning(workflows, "b")
    await workflows.update_run_status("r", RunStatus.CANCELLED, fence=fence)
    assert await status(workflows, "a") == RunStatus.CANCELLED
    asked = await workflows.get_run("b")
    assert asked is not None
    assert (asked.status, asked.cancel_by) == (RunStatus.RUNNING, clock.after(GRACE))


async def test_a_fork_of_a_cancelled_run_goes_on_where_it_was(
    workflows: WorkflowRepository, running: WorkflowRun
) -> None:
    await workflows.create_step_log(step("done", status=StepStatus.COMPLETED))
    await workflows.create_step_log(step("open", status=StepStatus.RUNNING))
    await workflows.cancel_run("r")
    forked = await workflows.fork_run("r", "f")
    assert (forked.status, forked.error, forked.cancel_by) == (RunStatus.PENDING, None, None)
    assert [row.step_id for row in await workflows.list_step_logs("f")] == ["done"]
