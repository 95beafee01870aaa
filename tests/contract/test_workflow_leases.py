"""What every WorkflowRepository does (docs/workflows.md): who holds a run, and how it is lost.

What runs wait for is in test_workflow_slots, and how they are given up in test_workflow_recovery.
"""

from __future__ import annotations

import anyio
import pytest

from bus.errors import Fenced, InvalidTransition, InvalidValue, NotFound, RunHeld, RunPaused, StoreError
from bus.model.records import Lease, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRepository

from .conftest import Clock, Place, WorkflowBackend
from .samples import ANN, BOB, definition, run, step

pytestmark = pytest.mark.anyio

ENDS = ["completed", "failed", "cancelled"]


# ── Claiming ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["pending", "paused", "crashed", "running"])
async def test_a_run_that_nobody_holds_can_be_claimed(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock, status: str
) -> None:
    stored = await workflows.create_run(run("r", status=RunStatus(status), context={"n": 1}, trigger_payload=[1]))
    assert await workflows.get_lease("r") is None
    claimed = await workflows.claim_run("r", ANN, 10)
    assert claimed.run == await workflows.get_run("r")
    assert (claimed.run.status, claimed.run.completed_at) == (RunStatus.RUNNING, None)
    assert (claimed.run.context, claimed.run.trigger_payload) == (stored.context, stored.trigger_payload)
    assert (claimed.fence, claimed.expires_at) == (1, clock.after(10))
    assert await workflows.get_lease("r") == Lease(run_id="r", holder=ANN, fence=1, expires_at=clock.after(10))


@pytest.mark.parametrize("status", ENDS)
async def test_a_run_that_has_ended_cannot_be_claimed(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, status: str
) -> None:
    stored = await workflows.create_run(run("r", status=RunStatus(status)))
    with pytest.raises(InvalidTransition) as refusal:
        await workflows.claim_run("r", ANN, 10)
    assert (refusal.value.current, refusal.value.wanted) == (status, "running")
    assert await workflows.get_run("r") == stored


async def test_a_run_that_a_person_paused_is_not_claimed_before_it_is_resumed(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun
) -> None:
    held = await workflows.claim_run("r", ANN, 10)
    paused = await others.update_run_status("r", RunStatus.PAUSED, "paused by bob: lunch")
    for repository, bot in ((workflows, ANN), (others, BOB)):
        with pytest.raises(RunPaused, match="paused by bob: lunch") as refusal:
            await repository.claim_run("r", bot, 10)
        assert (refusal.value.run_id, refusal.value.reason) == ("r", "paused by bob: lunch")
    assert await workflows.get_run("r") == paused
    assert await workflows.get_lease("r") is None
    await others.update_run_status("r", RunStatus.PENDING)
    again = await workflows.claim_run("r", ANN, 10)
    assert again.fence > held.fence


async def test_a_person_pauses_a_run_that_its_holder_gave_back_to_wait(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun
) -> None:
    held = await workflows.claim_run("r", ANN, 10)
    await workflows.release_run("r", held.fence, RunStatus.PAUSED)
    await others.update_run_status("r", RunStatus.PAUSED, "paused by bob")
    with pytest.raises(Fenced):
        await workflows.release_run("r", held.fence, RunStatus.PENDING)
    with pytest.raises(RunPaused):
        await workflows.claim_run("r", ANN, 10)


async def test_a_holder_that_pauses_its_run_with_an_error_keeps_nobody_out(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun
) -> None:
    held = await workflows.claim_run("r", ANN, 10)
    await workflows.update_run_status("r", RunStatus.PAUSED, "waits for bob", fence=held.fence)
    assert (await others.claim_run("r", BOB, 10)).fence == held.fence + 1


async def test_who_gave_a_run_back_does_not_run_it_with_the_old_fence(
    workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    held = await workflows.claim_run("r", ANN, 10)
    released = await workflows.release_run("r", held.fence)
    with pytest.raises(Fenced) as refusal:
        await workflows.update_run_status("r", RunStatus.RUNNING, fence=held.fence)
    assert refusal.value.status == "pending"
    assert await workflows.get_run("r") == released, "nobody holds it: as running it would keep its slot for ever"


async def test_a_run_that_is_not_there_cannot_be_held(workflows: WorkflowRepository) -> None:
    for refused in (
        workflows.claim_run("nowhere", ANN, 10),
        workflows.renew_run("nowhere", 1, 10),
        workflows.release_run("nowhere", 1),
        workflows.update_run_status("nowhere", RunStatus.PAUSED, fence=1),
        workflows.update_step_status("nowhere", StepStatus.RUNNING, fence=1),
        workflows.create_step_log(step("s", "nowhere"), fence=1),
    ):
        with pytest.raises(NotFound):
            await refused
    assert await workflows.get_lease("nowhere") is None
    assert await workflows.get_run_definition("nowhere") is None


async def test_a_live_lease_keeps_everybody_out(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    await workflows.claim_run("r", ANN, 10)
    clock.advance(9.999)
    for repository, bot in ((others, BOB), (workflows, ANN)):
        with pytest.raises(RunHeld, match=ANN) as refusal:
            await repository.claim_run("r", bot, 10)
        assert (refusal.value.run_id, refusal.value.holder) == ("r", ANN)
        assert refusal.value.expires_at == clock.after(0.001)
    assert await others.get_lease("r") == Lease(run_id="r", holder=ANN, fence=1, expires_at=clock.after(0.001))


async def test_a_lease_that_ran_out_can_be_taken_over(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    first = await workflows.claim_run("r", ANN, 10)
    clock.advance(10)
    second = await others.claim_run("r", BOB, 20)
    assert (first.fence, second.fence, second.expires_at) == (1, 2, clock.after(20))
    assert await workflows.get_lease("r") == Lease(run_id="r", holder=BOB, fence=2, expires_at=clock.after(20))
    with pytest.raises(Fenced) as refusal:
        await workflows.update_run_status("r", RunStatus.COMPLETED, fence=1)
    assert (refusal.value.run_id, refusal.value.fence, refusal.value.status) == ("r", 1, "running")
    assert await others.get_run("r") == second.run


async def test_of_two_claims_at_once_one_wins(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun
) -> None:
    outcomes: list[str] = []

    async def claim(repository: WorkflowRepository, bot: str) -> None:
        try:
            await repository.claim_run("r", bot, 10)
        except RunHeld as refusal:
            outcomes.append(f"not {bot}: {refusal.holder}")
        else:
            outcomes.append(bot)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim, workflows, ANN)
            tasks.start_soon(claim, others, BOB)
    lease = await workflows.get_lease("r")
    assert lease is not None
    loser = BOB if lease.holder == ANN else ANN
    assert sorted(outcomes) == sorted([lease.holder, f"not {loser}: {lease.holder}"])
    assert lease.fence == 1


async def test_a_claim_may_be_repeated_with_its_id(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    first = await workflows.claim_run("r", ANN, 10, claim_id="c")
    await workflows.create_step_log(step("s", status=StepStatus.RUNNING), fence=1)
    clock.advance(5)
    again = await workflows.claim_run("r", ANN, 10, claim_id="c")
    assert (again.run, again.fence, again.expires_at) == (first.run, 1, clock.after(10))
    [log] = await workflows.list_step_logs("r")
    assert log.status == StepStatus.RUNNING, "it is the same hold, and nothing was interrupted"
    clock.advance(20)
    assert (await workflows.claim_run("r", ANN, 10, claim_id="c")).fence == 1
    with pytest.raises(RunHeld):
        await workflows.claim_run("r", ANN, 10, claim_id="another")
    with pytest.raises(RunHeld):
        await others.claim_run("r", BOB, 10, claim_id="c")
    await workflows.release_run("r", 1)
    assert (await workflows.claim_run("r", ANN, 10, claim_id="c")).fence == 2


async def test_claiming_a_crashed_run_begins_it_anew(
    workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    await workflows.create_run(run("r", status=RunStatus.RUNNING))
    await workflows.update_run_status("r", RunStatus.CRASHED, error="the house burnt down")
    claimed = await workflows.claim_run("r", ANN, 10)
    assert (claimed.run.error, claimed.run.completed_at) == (None, None)


@pytest.mark.parametrize("how", ["taken over", "given back", "paused by a person", "never held"])
async def test_whoever_claims_a_run_finds_no_step_at_work(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, how: str
) -> None:
    await workflows.create_run(run("r", status=RunStatus.RUNNING if how == "never held" else RunStatus.PENDING))
    fence = None if how == "never held" else (await workflows.claim_run("r", ANN, 10)).fence
    for status in StepStatus:
        await workflows.create_step_log(step(status, status=status), fence=fence)
    before = {log.id: log for log in await workflows.list_step_logs("r")}
    if how == "taken over":
        place.clock.advance(10)
    elif how == "given back":
        await workflows.release_run("r", 1)
    elif how == "paused by a person":
        await workflows.update_run_status("r", RunStatus.PAUSED)
    await place.others.claim_run("r", BOB, 10)
    after = {log.id: log for log in await workflows.list_step_logs("r")}
    changed = {id for id in before if before[id] != after[id]}
    assert changed == {"running"}
    assert (after["running"].status, after["running"].error) == (StepStatus.FAILED, "interrupted")
    assert after["running"].completed_at == place.clock.after(0)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 3600.001])
async def test_a_lease_has_an_end(workflows: WorkflowRepository, pending: WorkflowRun, seconds: float) -> None:
    with pytest.raises(InvalidValue):
        await workflows.claim_run("r", ANN, seconds)
    assert await workflows.get_run("r") == pending
    claimed = await workflows.claim_run("r", ANN, 3600)
    with pytest.raises(InvalidValue):
        await workflows.renew_run("r", claimed.fence, seconds)
    lease = await workflows.get_lease("r")
    assert lease is not None
    assert lease.expires_at == claimed.expires_at


async def test_a_lease_is_fifteen_seconds_unless_said_otherwise(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    claimed = await workflows.claim_run("r", ANN)
    assert claimed.expires_at == clock.after(15)
    clock.advance(4)
    assert (await workflows.renew_run("r", claimed.fence)).expires_at == clock.after(15)


# ── Renewing and giving back ─────────────────────────────────────────────────────────────────────────────


async def test_a_renewed_lease_begins_anew(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    await workflows.claim_run("r", ANN, 10)
    clock.advance(9)
    lease = await workflows.renew_run("r", 1, 10)
    assert lease == Lease(run_id="r", holder=ANN, fence=1, expires_at=clock.after(10))
    assert lease == await workflows.get_lease("r")
    clock.advance(9)
    with pytest.raises(RunHeld):
        await others.claim_run("r", BOB, 10)


async def test_a_lease_that_ran_out_can_be_renewed_by_who_is_quick(
    place: Place, workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    await workflows.claim_run("r", ANN, 10)
    place.clock.advance(100)
    assert (await workflows.renew_run("r", 1, 10)).expires_at == place.clock.after(10)
    assert await place.recover_runs() == []
    assert await workflows.list_crashed_runs() == []


@pytest.mark.parametrize("how", ["taken over", "given up", "given back", "cancelled", "completed", "never held"])
async def test_what_is_not_held_cannot_be_renewed(
    place: Place, workflows: WorkflowRepository, pending: WorkflowRun, how: str
) -> None:
    fence, status = 1, {"given back": "pending", "taken over": "running", "given up": "crashed"}.get(how, how)
    if how == "never held":
        fence, status = 0, "pending"
    else:
        await workflows.claim_run("r", ANN, 10)
    if how == "given back":
        await workflows.release_run("r", 1)
    elif how == "cancelled":
        await place.others.update_run_status("r", RunStatus.CANCELLED)
    elif how == "completed":
        await workflows.update_run_status("r", RunStatus.COMPLETED, fence=1)
    place.clock.advance(10)
    if how == "taken over":
        await place.others.claim_run("r", BOB, 10)
    elif how == "given up":
        await place.recover_runs()
    lease = await workflows.get_lease("r")
    with pytest.raises(Fenced) as refusal:
        await workflows.renew_run("r", fence, 10)
    assert refusal.value.status == status
    assert await workflows.get_lease("r") == lease


@pytest.mark.parametrize("status", ["pending", "paused"])
async def test_a_run_is_given_back(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, status: str
) -> None:
    await workflows.claim_run("r", ANN, 10)
    await workflows.update_run_status("r", RunStatus.RUNNING, "slow", {"n": 1}, fence=1)
    released = await workflows.release_run("r", 1, RunStatus(status))
    assert (released.status, released.error, released.context) == (status, "slow", {"n": 1})
    assert await workflows.get_run("r") == released
    assert await workflows.get_lease("r") is None
    assert await workflows.release_run("r", 1, RunStatus(status)) == released, "the answer may have been lost"
    assert (await others.claim_run("r", BOB, 10)).fence == 2
    with pytest.raises(Fenced):
        await workflows.release_run("r", 1, RunStatus(status))


@pytest.mark.parametrize("status", ["running", *ENDS, "crashed"])
async def test_a_run_is_given_back_to_go_on(
    workflows: WorkflowRepository, pending: WorkflowRun, status: str
) -> None:
    await workflows.claim_run("r", ANN, 10)
    with pytest.raises(InvalidValue, match="released"):
        await workflows.release_run("r", 1, RunStatus(status))
    assert await workflows.get_lease("r") is not None


# ── Fences ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_holder_writes_with_its_fence(workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    fence = (await workflows.claim_run("r", ANN, 10)).fence
    await workflows.create_step_log(step("s", status=StepStatus.RUNNING), fence=fence)
    moved = await workflows.update_step_status("s", StepStatus.COMPLETED, output=1, fence=fence)
    assert await workflows.list_step_logs("r") == [moved]
    await workflows.update_run_status("r", RunStatus.RUNNING, context={"n": 1}, fence=fence)
    assert await workflows.get_lease("r") is not None, "a checkpoint ends no hold"
    done = await workflows.update_run_status("r", RunStatus.COMPLETED, context={"n": 2}, fence=fence)
    assert await workflows.get_lease("r") is None
    again = await workflows.update_run_status("r", RunStatus.COMPLETED, context={"n": 2}, fence=fence)
    assert again == done, "the answer may have been lost"


@pytest.mark.parametrize("fence", [0, 1, 3, -1])
async def test_a_fence_of_another_hold_changes_nothing(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock, fence: int
) -> None:
    await workflows.claim_run("r", ANN, 10)
    await workflows.create_step_log(step("s", status=StepStatus.PENDING), fence=1)
    clock.advance(10)
    held = await workflows.claim_run("r", ANN, 10)
    steps = await workflows.list_step_logs("r")
    lease = await workflows.get_lease("r")
    for refused in (
        workflows.update_run_status("r", RunStatus.RUNNING, context={"n": 1}, fence=fence),
        workflows.update_run_status("r", RunStatus.COMPLETED, fence=fence),
        workflows.create_step_log(step("s2"), fence=fence),
        workflows.create_step_log(steps[0], fence=fence),
        workflows.update_step_status("s", StepStatus.RUNNING, fence=fence),
        workflows.renew_run("r", fence, 10),
        workflows.release_run("r", fence),
    ):
        with pytest.raises(Fenced) as refusal:
            await refused
        assert (refusal.value.run_id, refusal.value.fence, refusal.value.status) == ("r", fence, "running")
    assert await workflows.get_run("r") == held.run
    assert await workflows.list_step_logs("r") == steps
    assert await workflows.get_lease("r") == lease


@pytest.mark.parametrize("status", ["pending", "paused", "crashed", *ENDS])
async def test_a_holder_learns_what_somebody_else_did_to_its_run(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, status: str
) -> None:
    await workflows.claim_run("r", ANN, 10)
    await workflows.create_step_log(step("s", status=StepStatus.RUNNING), fence=1)
    moved = await others.update_run_status("r", RunStatus(status), "because")
    assert await others.get_lease("r") is None
    for refused in (
        workflows.update_step_status("s", StepStatus.COMPLETED, output=1, fence=1),
        workflows.update_run_status("r", RunStatus.RUNNING, fence=1),
        workflows.renew_run("r", 1, 10),
    ):
        with pytest.raises(Fenced, match=f"is {status}") as refusal:
            await refused
        assert refusal.value.status == status
    assert await workflows.get_run("r") == moved


async def test_a_write_without_a_fence_leaves_a_hold_that_goes_on(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun
) -> None:
    claimed = await workflows.claim_run("r", ANN, 10)
    await others.update_run_status("r", RunStatus.RUNNING, context={"note": "from outside"})
    lease = await workflows.get_lease("r")
    assert lease is not None
    assert (lease.fence, lease.expires_at) == (1, claimed.expires_at)
    await workflows.update_run_status("r", RunStatus.COMPLETED, fence=1)


async def test_what_nobody_holds_keeps_its_fence(workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.RUNNING, RunStatus.CRASHED, RunStatus.PENDING):
        await workflows.update_run_status("r", status)
    assert (await workflows.claim_run("r", ANN, 10)).fence == 1


# ── Restarts and callers ─────────────────────────────────────────────────────────────────────────────────


async def test_leases_outlive_the_place(backend: WorkflowBackend) -> None:
    async with backend.open() as place:
        await place.workflows.save_definition(definition("w"))
        await place.workflows.create_run(run("r"))
        await place.workflows.claim_run("r", ANN, 10)
        lease = await place.workflows.get_lease("r")
    async with backend.open() as place:
        assert await place.workflows.get_lease("r") == lease
        assert await place.recover_runs() == []
        with pytest.raises(RunHeld):
            await place.others.claim_run("r", BOB, 10)
        await place.workflows.renew_run("r", 1, 10)
        place.clock.advance(10)
        assert (await place.others.claim_run("r", BOB, 10)).fence == 2


async def test_concurrent_writes_of_old_and_new_holders(
    workflows: WorkflowRepository, others: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    """Whatever order they are carried out in, nothing of the old holder's is stored after the new one's claim."""
    await workflows.claim_run("r", ANN, 10)
    clock.advance(10)
    fenced: list[StoreError] = []
    fence = 0

    async def old(number: int) -> None:
        try:
            await workflows.update_run_status("r", RunStatus.RUNNING, context={"old": number}, fence=1)
        except Fenced as error:
            fenced.append(error)

    async def new() -> None:
        nonlocal fence
        fence = (await others.claim_run("r", BOB, 10)).fence
        await others.update_run_status("r", RunStatus.RUNNING, context={"new": 1}, fence=fence)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(old, number)
            tasks.start_soon(new)
            for number in range(20, 40):
                tasks.start_soon(old, number)
    stored = await workflows.get_run("r")
    assert stored is not None
    assert (fence, stored.context) == (2, {"new": 1})
