"""What every WorkflowRepository does (docs/workflows.md): which runs a bot is to open."""

from __future__ import annotations

import pytest

from bus.model.records import BotOwner, RunStatus
from bus.model.repository import WorkflowRepository

from .conftest import Clock, Place
from .samples import ANN, BOB, at, definition, run

pytestmark = pytest.mark.anyio


async def opened(
    workflows: WorkflowRepository, workflow: str = "w", bot: str = ANN, **options: object
) -> list[str]:
    """Return the ids of the runs that a bot is to open."""
    found = await workflows.list_open_runs(workflow, bot, **options)  # type: ignore[arg-type]
    return [each.id for each in found]


async def test_it_opens_what_nobody_is_at_work_on(place: Place, workflows: WorkflowRepository) -> None:
    await workflows.save_definition(definition("w"))
    for number, id in enumerate(["pending", "held", "resting", "released", "crashed", "failed"]):
        await workflows.create_run(run(id, started_at=at(number)))
    for id, seconds in (("held", 100), ("resting", 100), ("released", 100), ("crashed", 1)):
        fence = (await workflows.claim_run(id, ANN, seconds)).fence
        if id in ("resting", "released"):
            status = RunStatus.PAUSED if id == "resting" else RunStatus.PENDING
            await workflows.release_run(id, fence, status)
    await workflows.update_run_status("failed", RunStatus.FAILED, "no page")
    place.clock.advance(2)
    await place.recover_runs()
    assert await opened(workflows) == ["pending", "released", "crashed"]
    assert await opened(workflows, resting=True) == ["pending", "resting", "released", "crashed"]
    assert await opened(workflows, resting=True, run_ids=["crashed", "held", "resting"]) == ["resting", "crashed"]
    assert await opened(workflows, limit=1, offset=1) == ["released"]
    assert await opened(workflows, "another") == []


async def test_what_a_person_or_an_error_paused_waits(workflows: WorkflowRepository) -> None:
    await workflows.save_definition(definition("w"))
    for id in ("stopped", "error"):
        await workflows.create_run(run(id))
    await workflows.update_run_status("stopped", RunStatus.PAUSED, "not now")
    claim = await workflows.claim_run("error", ANN, 100)
    await workflows.update_run_status("error", RunStatus.PAUSED, "a bug", fence=claim.fence)
    assert await opened(workflows, resting=True) == []
    await workflows.update_run_status("stopped", RunStatus.PENDING)
    await workflows.retry_run("error")
    assert sorted(await opened(workflows)) == ["error", "stopped"]


async def test_runs_belong_to_who_held_them_last(
    place: Place, workflows: WorkflowRepository, others: WorkflowRepository
) -> None:
    await place.add_bots(ANN, BOB)
    await workflows.save_definition(definition("w"))
    await workflows.save_definition(definition("of-bob", owner=BotOwner(bot_id=BOB)))
    await workflows.create_run(run("a"))
    await workflows.create_run(run("b", "of-bob"))
    assert (await opened(workflows), await opened(others, bot=BOB)) == (["a"], ["a"])
    assert (await opened(workflows, "of-bob"), await opened(others, "of-bob", BOB)) == ([], ["b"])
    claim = await others.claim_run("a", BOB, 100)
    await others.release_run("a", claim.fence)
    assert (await opened(workflows), await opened(others, bot=BOB)) == ([], ["a"])


async def test_a_run_is_not_opened_before_its_time(workflows: WorkflowRepository, clock: Clock) -> None:
    await workflows.save_definition(definition("w"))
    await workflows.create_run(run("later", not_before=clock.after(10)))
    assert await opened(workflows) == []
    clock.advance(10)
    assert await opened(workflows) == ["later"]
