"""What every WorkflowRepository does (docs/design.md): the step logs of a run."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import Conflict, NotFound, TooLarge
from bus.model.records import StepStatus, WorkflowRun
from bus.model.repository import WorkflowRepository

from .conftest import Place
from .samples import at, run, step

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def test_step_comes_back_as_given(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    full = step(
        "s",
        step_id="fetch",
        step_name="Fetch",
        status=StepStatus.FAILED,
        attempt=3,
        idempotency_key="k",
        input={"url": "ü"},
        output=[None, 1.5],
        error="e",
        started_at=at(1),
        completed_at=at(2),
    )
    plain = step("plain")
    assert await workflows.create_step_log(full) == full
    assert await workflows.create_step_log(plain) == plain
    assert await workflows.list_step_logs("r") == [full, plain]
    assert await workflows.list_step_logs("nowhere") == []


async def test_step_created_twice_is_there_once(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    first = await workflows.create_step_log(step("s", input=(1, 2)))
    assert await workflows.create_step_log(step("s", input=[1, 2])) == first
    assert await workflows.list_step_logs("r") == [first]


@pytest.mark.parametrize("status", [StepStatus.RUNNING, StepStatus.WAITING_APPROVAL])
async def test_step_that_begins_has_a_time_of_that(place: Place, running: WorkflowRun, status: StepStatus) -> None:
    workflows, began = place.workflows, place.clock.after(0)
    created = await workflows.create_step_log(step("created", status=status))
    await workflows.create_step_log(step("moved"))
    moved = await workflows.update_step_status("moved", status)
    place.clock.advance(1)
    assert (created.started_at, moved.started_at) == (began, began)
    assert await workflows.create_step_log(step("created", status=status)) == created, "it may be said again"
    assert await workflows.update_step_status("moved", status) == moved
    given = await workflows.create_step_log(step("given", status=status, started_at=at(1)))
    assert given.started_at == at(1)
    assert {row.id for row in await workflows.list_step_logs("r")} == {"created", "moved", "given"}


@pytest.mark.parametrize(
    "other",
    [
        {"run_id": "r2"},
        {"step_id": "x"},
        {"step_name": "x"},
        {"status": StepStatus.RUNNING},
        {"attempt": 2},
        {"idempotency_key": "x"},
        {"input": {"n": True}},
        {"output": 1},
        {"error": "x"},
        {"started_at": at(1)},
        {"completed_at": at(1)},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_step_created_with_other_fields_conflicts(
    workflows: WorkflowRepository, running: WorkflowRun, other: dict[str, Any]
) -> None:
    await workflows.create_run(run("r2"))
    first = await workflows.create_step_log(step("s", input={"n": 1}))
    with pytest.raises(Conflict, match="'s'"):
        await workflows.create_step_log(step("s", **{"input": {"n": 1}, **other}))
    assert await workflows.list_step_logs("r") == [first]
    assert await workflows.list_step_logs("r2") == []


async def test_step_of_an_unknown_run(workflows: WorkflowRepository) -> None:
    with pytest.raises(NotFound) as refusal:
        await workflows.create_step_log(step("s", "nowhere"))
    assert (refusal.value.what, refusal.value.key) == ("run", "nowhere")


async def test_update_of_an_unknown_step(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_step_log(step("s", step_id="by-this-id-it-is-not-known"))
    with pytest.raises(NotFound) as refusal:
        await workflows.update_step_status("by-this-id-it-is-not-known", StepStatus.RUNNING)
    assert (refusal.value.what, refusal.value.key) == ("step", "by-this-id-it-is-not-known")


async def test_steps_in_the_order_they_began(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    for id, started_at in (("waits", None), ("b", at(2)), ("c", at(3)), ("a", at(1)), ("d", at(3))):
        await workflows.create_step_log(step(id, started_at=started_at))
    await workflows.create_step_log(step("never-ran", status=StepStatus.SKIPPED, completed_at=at(2)))
    order = [log.id for log in await workflows.list_step_logs("r")]
    assert order == ["a", "b", "never-ran", "c", "d", "waits"]
    await workflows.update_step_status("waits", StepStatus.RUNNING)
    await workflows.create_step_log(step("not-yet"))
    assert [log.id for log in await workflows.list_step_logs("r")][-2:] == ["waits", "not-yet"]


async def test_completed_step_ids(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_run(run("r2"))
    await workflows.create_step_log(step("x", "r2", status=StepStatus.COMPLETED))
    completed, skipped, failed = StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED
    for number, (step_id, status, second) in enumerate(
        [
            ("third", completed, 5),
            ("first", completed, 1),
            ("second", failed, 2),
            ("skipped", skipped, 3),
            ("second", completed, 4),
            ("first", completed, 6),
            ("failed", failed, 7),
            ("running", StepStatus.RUNNING, 8),
        ]
    ):
        await workflows.create_step_log(
            step(f"{number}", step_id=step_id, status=status, attempt=number + 1, started_at=at(second))
        )
    assert await workflows.get_completed_step_ids("r") == ["first", "second", "third"]
    assert await workflows.get_completed_step_ids("nowhere") == []


@pytest.mark.parametrize("field", ["input", "output"])
async def test_step_values_have_a_limit(workflows: WorkflowRepository, running: WorkflowRun, field: str) -> None:
    limit = MIB if field == "input" else workflows.output_bytes_max
    assert limit == (MIB if field == "input" else 16 * MIB)
    most = "ü" * (limit // 2 - 1)
    created = await workflows.create_step_log(step("s", step_id="fetch", **{field: most}))
    with pytest.raises(TooLarge, match=f"{field} of step 'fetch'") as refusal:
        await workflows.create_step_log(step("s2", step_id="fetch", **{field: most + "x"}))
    assert (refusal.value.size_bytes, refusal.value.bytes_max) == (limit + 1, limit)
    assert await workflows.list_step_logs("r") == [created]


async def test_output_over_the_limit_changes_nothing(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    created = await workflows.create_step_log(step("s", step_id="fetch", status=StepStatus.RUNNING))
    with pytest.raises(TooLarge, match="output of step 'fetch'"):
        await workflows.update_step_status("s", StepStatus.COMPLETED, output="x" * (16 * MIB - 1))
    assert await workflows.list_step_logs("r") == [created]
    moved = await workflows.update_step_status("s", StepStatus.COMPLETED, output="x" * (16 * MIB - 2))
    assert await workflows.list_step_logs("r") == [moved]
