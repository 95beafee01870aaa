"""What every WorkflowRepository does (docs/workflows.md): how many runs are running at once, and who waits."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus.errors import SlotsTaken
from bus.model.records import RunStatus
from bus.model.repository import WorkflowRepository

from .conftest import Clock, Place
from .samples import ANN, BOB, at, definition, run

pytestmark = pytest.mark.anyio


async def runs(workflows: WorkflowRepository, *ids: str, concurrency: int | None = 1, **fields: Any) -> None:
    """Runs of w, of which so many may run at once."""
    await workflows.save_definition(definition("w", concurrency=concurrency))
    for id in ids:
        await workflows.create_run(run(id, **fields))


async def waits(workflows: WorkflowRepository, id: str, *, seconds: float = 10) -> int:
    """Try to claim a run that has to wait; give how many are ahead of it."""
    with pytest.raises(SlotsTaken) as refusal:
        await workflows.claim_run(id, ANN, seconds)
    assert refusal.value.run_id == id
    return refusal.value.ahead


async def test_no_more_run_at_once_than_the_definition_allows(workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b", "c", concurrency=2)
    before = await workflows.get_run("c")
    for id in ("a", "b"):
        await workflows.claim_run(id, ANN, 10)
    with pytest.raises(SlotsTaken) as refusal:
        await workflows.claim_run("c", ANN, 10)
    assert (refusal.value.run_id, refusal.value.concurrency, refusal.value.ahead) == ("c", 2, 0)
    assert await workflows.get_run("c") == before
    assert await workflows.get_lease("c") is None


async def test_without_a_limit_all_run_at_once(workflows: WorkflowRepository) -> None:
    await runs(workflows, *map(str, range(20)), concurrency=None)
    for number in range(20):
        await workflows.claim_run(f"{number}", ANN, 10)


async def test_keys_and_workflows_have_slots_of_their_own(workflows: WorkflowRepository) -> None:
    await runs(workflows, "none")
    await runs(workflows, "x", concurrency_key="x")
    await runs(workflows, "empty", concurrency_key="")
    await runs(workflows, "null", "null2")
    await workflows.save_definition(definition("v", concurrency=1))
    await workflows.create_run(run("v", "v"))
    for id in ("none", "x", "empty", "v"):
        await workflows.claim_run(id, ANN, 10)
    await waits(workflows, "null")
    await workflows.create_run(run("x2", concurrency_key="x"))
    await waits(workflows, "x2")
    await workflows.update_run_status("x", RunStatus.COMPLETED)
    await workflows.claim_run("x2", ANN, 10)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "paused", "pending", "released"])
async def test_a_slot_is_free_when_its_run_does_not_run(workflows: WorkflowRepository, how: str) -> None:
    await runs(workflows, "a", "b")
    fence = (await workflows.claim_run("a", ANN, 10)).fence
    await waits(workflows, "b")
    if how == "released":
        await workflows.release_run("a", fence)
    else:
        await workflows.update_run_status("a", RunStatus(how))
    await workflows.claim_run("b", ANN, 10)


async def test_a_crash_leaks_no_slot(place: Place, workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b")
    await workflows.claim_run("a", ANN, 10)
    place.clock.advance(10)
    await waits(workflows, "b")
    await place.recover_runs()
    await workflows.claim_run("b", ANN, 10)
    await waits(workflows, "a")


async def test_whoever_takes_over_a_run_has_its_slot(place: Place, workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b")
    await workflows.claim_run("a", ANN, 10)
    place.clock.advance(10)
    await waits(workflows, "b")
    assert (await place.others.claim_run("a", BOB, 10)).fence == 2


async def test_runs_that_run_without_a_lease_take_slots(workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b")
    await workflows.update_run_status("a", RunStatus.RUNNING)
    await waits(workflows, "b")


async def test_the_rest_wait_in_order(workflows: WorkflowRepository, clock: Clock) -> None:
    await runs(workflows, "a", "b", "c", "d")
    await workflows.claim_run("a", ANN, 100)
    assert [await waits(workflows, id) for id in ("c", "b")] == [0, 1]
    clock.advance(1)
    assert [await waits(workflows, id) for id in ("d", "b", "c")] == [2, 1, 0]
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    for turn, behind in (("c", ["b", "d"]), ("b", ["d"]), ("d", [])):
        assert [await waits(workflows, id) for id in behind] == list(range(1, len(behind) + 1))
        claimed = await workflows.claim_run(turn, ANN, 100)
        assert [await waits(workflows, id) for id in behind] == list(range(len(behind)))
        await workflows.update_run_status(turn, RunStatus.COMPLETED, fence=claimed.fence)


async def test_a_newcomer_does_not_overtake(workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b", "c", concurrency=2)
    for id in ("a", "b"):
        await workflows.claim_run(id, ANN, 100)
    await waits(workflows, "c")
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    await workflows.create_run(run("d", started_at=at(1)))
    assert await waits(workflows, "d") == 1
    await workflows.claim_run("c", ANN, 100)
    await workflows.update_run_status("b", RunStatus.COMPLETED)
    await workflows.claim_run("d", ANN, 100)


async def test_a_slot_that_nobody_ahead_needs_is_given_away(workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b", "c", "d", "e", concurrency=3)
    for id in ("a", "b", "c"):
        await workflows.claim_run(id, ANN, 100)
    assert [await waits(workflows, id) for id in ("d", "e")] == [0, 1]
    for id in ("a", "b"):
        await workflows.update_run_status(id, RunStatus.COMPLETED)
    await workflows.claim_run("e", ANN, 100)
    await workflows.claim_run("d", ANN, 100)


async def test_a_waiter_that_died_blocks_for_no_longer_than_its_lease(
    workflows: WorkflowRepository, clock: Clock
) -> None:
    await runs(workflows, "a", "b", "c")
    await workflows.claim_run("a", ANN, 100)
    await waits(workflows, "b", seconds=10)
    clock.advance(5)
    await waits(workflows, "b", seconds=10)
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    clock.advance(9.999)
    assert await waits(workflows, "c", seconds=1) == 1
    clock.advance(0.001)
    await workflows.claim_run("c", ANN, 100)
    assert await waits(workflows, "b") == 0


async def test_whoever_comes_back_late_has_its_old_place(workflows: WorkflowRepository, clock: Clock) -> None:
    await runs(workflows, "a", "b", "c")
    await workflows.claim_run("a", ANN, 100)
    await waits(workflows, "b", seconds=10)
    clock.advance(20)
    assert await waits(workflows, "c") == 0
    assert await waits(workflows, "b") == 0
    assert await waits(workflows, "c") == 1


@pytest.mark.parametrize("how", ["cancelled", "failed", "running", "paused"])
async def test_a_run_that_was_moved_does_not_wait_any_more(workflows: WorkflowRepository, how: str) -> None:
    await runs(workflows, "a", "b", "c", concurrency=2)
    for id in ("a", "b"):
        await workflows.create_run(run(f"{id}0"))
        await workflows.claim_run(f"{id}0", ANN, 100)
    await waits(workflows, "b")
    await workflows.update_run_status("b", RunStatus(how))
    await workflows.update_run_status("a0", RunStatus.COMPLETED)
    if how == "running":
        assert await waits(workflows, "c") == 0, "it waits for a slot, and for nobody"
        await workflows.update_run_status("b", RunStatus.COMPLETED)
    await workflows.claim_run("c", ANN, 100)


@pytest.mark.parametrize("status", ["paused", "crashed"])
async def test_a_run_that_goes_on_waits_too(workflows: WorkflowRepository, status: str) -> None:
    await runs(workflows, "a")
    stored = await workflows.create_run(run("b", status=RunStatus(status), error="before"))
    await workflows.claim_run("a", ANN, 10)
    await waits(workflows, "b")
    assert await workflows.get_run("b") == stored


async def test_who_waits_is_listed(workflows: WorkflowRepository, clock: Clock) -> None:
    await runs(workflows, "a", "b")
    await workflows.claim_run("a", ANN, 100)
    await waits(workflows, "b")
    since = clock.after(0)
    clock.advance(1)
    await waits(workflows, "b")
    assert {run.id: run.queued_at for run in await workflows.list_all_runs()} == {"a": None, "b": since}
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    await workflows.claim_run("b", ANN, 100)
    assert [run.queued_at for run in await workflows.list_all_runs()] == [None, None]


async def test_the_limit_is_that_of_the_definition_as_it_is_now(workflows: WorkflowRepository) -> None:
    await runs(workflows, "a", "b")
    await workflows.claim_run("a", ANN, 100)
    await waits(workflows, "b")
    await workflows.save_definition(definition("w", concurrency=2))
    await workflows.claim_run("b", ANN, 100)


async def test_a_slot_is_taken_once(workflows: WorkflowRepository, others: WorkflowRepository) -> None:
    await runs(workflows, *map(str, range(20)), concurrency=3)
    claimed: list[str] = []
    waiting: list[str] = []

    async def claim(id: str) -> None:
        repository, bot = (workflows, ANN) if int(id) % 2 else (others, BOB)
        try:
            await repository.claim_run(id, bot, 10)
        except SlotsTaken:
            waiting.append(id)
        else:
            claimed.append(id)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(claim, f"{number}")
    assert (len(claimed), len(waiting)) == (3, 17)
    assert {run.id for run in await workflows.list_all_runs(RunStatus.RUNNING)} == set(claimed)
