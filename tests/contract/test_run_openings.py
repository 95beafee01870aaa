"""What every WorkflowRepository does (docs/protocol.md): a run is found or created, and claimed, in one call."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.errors import Conflict, InvalidTransition, InvalidValue, NotFound, RunHeld, SlotsTaken
from bus.model.openings import RunOpening
from bus.model.records import RunStatus, StepStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRepository

from .conftest import Clock, Place
from .samples import ANN, BOB, at, definition, owned, run, step

pytestmark = pytest.mark.anyio

KIB = 1024


def opening(run_id: str = "r", workflow: str = "w", **fields: Any) -> RunOpening:
    return RunOpening(run_id=run_id, workflow=workflow, **fields)


async def test_a_new_run_is_created_and_claimed(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    asked = opening(
        input={"n": 1},
        context={"m": 2},
        concurrency_key="k",
        attributes={"team": "a"},
        trigger_type="message",
        trigger_payload=[1],
        lease_seconds=10,
    )
    opened = await workflows.open_run(asked, ANN)
    made = opened.claim.run
    assert made == await workflows.get_run("r")
    assert (made.workflow_id, made.workflow_name, made.status) == ("w", "w", RunStatus.RUNNING)
    assert (made.context, made.trigger_type, made.trigger_payload) == ({"m": 2, "input": {"n": 1}}, "message", [1])
    assert (made.concurrency_key, made.attributes, made.started_at) == ("k", {"team": "a"}, clock.after(0))
    assert (opened.claim.fence, opened.claim.expires_at, opened.created) == (1, clock.after(10), True)
    assert opened.definition == workflow == await workflows.get_run_definition("r")
    assert opened.steps is not None
    assert (opened.steps.steps, opened.steps.more) == ((), False)


async def test_a_run_that_exists_is_claimed_with_its_definition_and_steps(
    workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    await workflows.create_run(run("r", context={"input": 1, "kept": True}))
    first = await workflows.claim_run("r", ANN, 10)
    done = await workflows.create_step_log(
        step("a", status=StepStatus.COMPLETED, started_at=at(0), output=1), fence=first.fence
    )
    begun = await workflows.create_step_log(step("b", status=StepStatus.RUNNING), fence=first.fence)
    await workflows.release_run("r", first.fence)
    await workflows.save_definition(msgspec.structs.replace(workflow, version="2"))
    opened = await workflows.open_run(opening(input=1, context={"ignored": True}), ANN)
    assert (opened.claim.fence, opened.created, opened.definition) == (2, False, workflow)
    assert opened.claim.run.context == {"input": 1, "kept": True}
    assert opened.steps is not None
    assert opened.steps.steps[0] == done
    assert (opened.steps.steps[1].id, opened.steps.steps[1].error) == (begun.id, "interrupted")


async def test_only_the_first_of_many_steps_come_with_it(
    workflows: WorkflowRepository, pending: WorkflowRun
) -> None:
    for number in range(15):
        row = step(f"{number:02}", status=StepStatus.COMPLETED, started_at=at(number), output="x" * (100 * KIB))
        await workflows.create_step_log(row)
    opened = await workflows.open_run(opening(), ANN)
    steps = opened.steps or await workflows.page_step_logs("r")  # over a connection, it may not fit into the frame
    assert steps.more
    assert [each.id for each in steps.steps] == [f"{number:02}" for number in range(len(steps.steps))]


async def test_it_may_be_repeated(
    workflows: WorkflowRepository, others: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    asked = opening(input=1, claim_id="c")
    first = await workflows.open_run(asked, ANN)
    again = await workflows.open_run(asked, ANN)
    assert (first.claim.fence, again.claim.fence) == (1, 1)
    assert (first.created, again.created) == (True, False)
    assert (await workflows.claim_run("r", ANN, claim_id="c")).fence == 1
    with pytest.raises(RunHeld):
        await others.open_run(opening(input=1), BOB)
    with pytest.raises(RunHeld):
        await workflows.open_run(opening(input=1, claim_id="d"), ANN)


async def test_a_workflow_is_meant_by_its_owners_in_order(place: Place, workflow: WorkflowDefinition) -> None:
    workflows = place.workflows
    await place.add_bots(ANN)
    await workflows.save_definition(definition("theirs-by-id", name="w2"))
    await workflows.save_definition(owned("w-ann", ANN, name="w"))
    assert (await workflows.open_run(opening("1"), ANN)).claim.run.workflow_id == "w-ann"
    assert (await place.others.open_run(opening("2"), BOB)).claim.run.workflow_id == "w"
    assert (await workflows.open_run(opening("3", "w2"), ANN)).claim.run.workflow_id == "theirs-by-id"
    assert (await workflows.open_run(opening("4", "w-ann"), ANN)).claim.run.workflow_name == "w"
    with pytest.raises(NotFound):
        await workflows.open_run(opening("5", "none"), ANN)
    assert await workflows.get_run("5") is None


@pytest.mark.parametrize(
    ("stored", "given", "counts"),
    [("1.2", "1.2", "1.2"), ("1.10", "1.9", "1.10"), ("1.2", "1.3", None), ("x", "y", None), (None, "1", None)],
    ids=["the same", "newer", "older", "another", "none"],
)
async def test_a_definition_that_is_passed_counts_if_it_is_stored(
    workflows: WorkflowRepository, stored: str | None, given: str, counts: str | None
) -> None:
    if stored is not None:
        await workflows.save_definition(definition("w", version=stored))
    asked = opening(definition=definition("w", version=given))
    if counts is None:
        with pytest.raises(NotFound):
            await workflows.open_run(asked, ANN)
        assert await workflows.get_run("r") is None
    else:
        opened = await workflows.open_run(asked, ANN)
        assert opened.definition == definition("w", version=counts)


async def test_another_run_is_not_claimed(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    await workflows.save_definition(definition("v"))
    stored = await workflows.create_run(run("r", context={"input": {"a": 1, "b": 2}}))
    with pytest.raises(Conflict, match="belongs to workflow 'w'"):
        await workflows.open_run(opening(workflow="v"), ANN)
    with pytest.raises(Conflict, match="another input"):
        await workflows.open_run(opening(input={"a": 2}), ANN)
    assert await workflows.get_run("r") == stored
    assert (await workflows.open_run(opening(input={"b": 2, "a": 1}), ANN)).claim.fence == 1


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
async def test_a_run_that_has_ended_is_not_opened(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, status: RunStatus
) -> None:
    stored = await workflows.create_run(run("r", status=status))
    with pytest.raises(InvalidTransition) as refusal:
        await workflows.open_run(opening(), ANN)
    assert (refusal.value.current, refusal.value.wanted) == (status, "running")
    assert await workflows.get_run("r") == stored


async def test_a_run_without_a_slot_is_created_and_keeps_its_place(
    workflows: WorkflowRepository, others: WorkflowRepository
) -> None:
    await workflows.save_definition(definition("w", concurrency=1))
    first = await workflows.open_run(opening("1"), ANN)
    with pytest.raises(SlotsTaken):
        await workflows.open_run(opening("2"), ANN)
    waiting = await workflows.get_run("2")
    assert waiting is not None
    assert waiting.status is RunStatus.PENDING
    with pytest.raises(SlotsTaken) as refusal:
        await others.open_run(opening("3"), BOB)
    assert refusal.value.ahead == 1
    await workflows.update_run_status("1", RunStatus.COMPLETED, fence=first.claim.fence)
    assert (await workflows.open_run(opening("2"), ANN)).claim.fence == 1


async def test_what_cannot_be_recorded_creates_nothing(
    workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    for wrong in (opening(attributes={"": "x"}), opening(lease_seconds=-1), opening(place_seconds=-1)):
        with pytest.raises(InvalidValue):
            await workflows.open_run(wrong, ANN)
    assert await workflows.get_run("r") is None
