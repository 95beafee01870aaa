"""What a move of a run or a step does to its record, wherever it is kept: one that is allowed, one that is refused,
and one that is said again. The tables of moves are walked cell by cell in `tests/pure/test_transitions.py`."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import InvalidTransition
from bus.model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog, parse_timestamp
from bus.model.repository import WorkflowRepository

from .samples import at, definition, run, step

pytestmark = pytest.mark.anyio


async def a_run(workflows: WorkflowRepository, status: str, **fields: Any) -> WorkflowRun:
    await workflows.save_definition(definition("w"))
    fields = {"error": "before", "context": {"n": 1}, **fields}
    return await workflows.create_run(run("r", status=RunStatus(status), **fields))


async def a_step(workflows: WorkflowRepository, status: str, **fields: Any) -> WorkflowStepLog:
    await workflows.save_definition(definition("w"))
    await workflows.create_run(run("r", status=RunStatus.RUNNING))
    fields = {"error": "before", "output": {"n": 1}, **fields}
    return await workflows.create_step_log(step("s", status=StepStatus(status), **fields))


async def stored_step(workflows: WorkflowRepository) -> WorkflowStepLog:
    [found] = await workflows.list_step_logs("r")
    return found


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "after"), [("pending", "running"), ("running", "running"), ("crashed", "pending")]
)
async def test_run_moves(workflows: WorkflowRepository, before: str, after: str) -> None:
    await a_run(workflows, before)
    moved = await workflows.update_run_status("r", RunStatus(after), error="now", context={"n": 2})
    assert (moved.status, moved.error, moved.context) == (after, "now", {"n": 2})
    assert await workflows.get_run("r") == moved


@pytest.mark.parametrize(("before", "after"), [("paused", "completed"), ("completed", "running")])
async def test_run_does_not_move(workflows: WorkflowRepository, before: str, after: str) -> None:
    stored = await a_run(workflows, before)
    with pytest.raises(InvalidTransition) as refusal:
        await workflows.update_run_status("r", RunStatus(after), error="before", context={"n": 1})
    assert (refusal.value.key, refusal.value.current, refusal.value.wanted) == ("r", before, after)
    assert await workflows.get_run("r") == stored


async def test_final_run_again(workflows: WorkflowRepository) -> None:
    status = "completed"
    stored = await a_run(workflows, "running")
    stored = await workflows.update_run_status("r", RunStatus(status), error="end", context={"n": 2})
    same: list[Any] = [{"n": 2}, None]
    for context in same:
        assert await workflows.update_run_status("r", RunStatus(status), "end", context) == stored
    other: list[tuple[str | None, Any]] = [
        (None, {"n": 2}),
        ("other", {"n": 2}),
        ("end", {"n": 3}),
        ("end", {"n": True}),
    ]
    for error, context in other:
        with pytest.raises(InvalidTransition, match=f"is {status} and cannot become {status}"):
            await workflows.update_run_status("r", RunStatus(status), error, context)
    assert await workflows.get_run("r") == stored


async def test_final_run_again_compares_values_not_text(workflows: WorkflowRepository) -> None:
    await a_run(workflows, "running")
    first = await workflows.update_run_status("r", RunStatus.COMPLETED, context={"a": 1, "b": (2, 3)})
    again = await workflows.update_run_status("r", RunStatus.COMPLETED, context={"b": (2, 3), "a": 1})
    assert again == first
    with pytest.raises(InvalidTransition):
        await workflows.update_run_status("r", RunStatus.COMPLETED, context={"a": True, "b": [2, 3]})


async def test_final_run_created_without_its_time_can_be_said_again(workflows: WorkflowRepository) -> None:
    stored = await a_run(workflows, "completed")
    assert await workflows.update_run_status("r", RunStatus.COMPLETED, "before") == stored


async def test_run_error_none_clears_and_context_none_keeps(workflows: WorkflowRepository) -> None:
    await a_run(workflows, "running")
    moved = await workflows.update_run_status("r", RunStatus.PAUSED)
    assert (moved.error, moved.context) == (None, {"n": 1})
    assert await workflows.get_run("r") == moved


@pytest.mark.parametrize("context", [0, False, "", [], {}], ids=repr)
async def test_run_context_that_is_falsy_is_not_none(workflows: WorkflowRepository, context: Any) -> None:
    await a_run(workflows, "running")
    await workflows.update_run_status("r", RunStatus.RUNNING, context=context)
    stored = await workflows.get_run("r")
    assert stored is not None
    assert repr(stored.context) == repr(context)


@pytest.mark.parametrize("end", ["completed", "failed", "crashed", "cancelled"])
async def test_run_end_is_stamped_once(workflows: WorkflowRepository, end: str) -> None:
    await a_run(workflows, "running")
    ended = await workflows.update_run_status("r", RunStatus(end), error="x")
    assert ended.completed_at is not None
    assert ended.completed_at.endswith("Z")
    assert parse_timestamp(ended.completed_at).year >= 2026
    again = await workflows.update_run_status("r", RunStatus(end), error="x")
    assert again.completed_at == ended.completed_at


@pytest.mark.parametrize("status", ["pending", "running", "paused"])
async def test_run_that_has_not_ended_has_no_end(workflows: WorkflowRepository, status: str) -> None:
    await a_run(workflows, "running")
    moved = await workflows.update_run_status("r", RunStatus(status))
    assert moved.completed_at is None


@pytest.mark.parametrize("status", ["pending", "running", "paused"])
async def test_end_of_a_crashed_run_that_goes_on_is_cleared(workflows: WorkflowRepository, status: str) -> None:
    await a_run(workflows, "crashed", completed_at=at(1))
    moved = await workflows.update_run_status("r", RunStatus(status))
    assert moved.completed_at is None
    assert await workflows.get_run("r") == moved
    await workflows.update_run_status("r", RunStatus.RUNNING)
    ended = await workflows.update_run_status("r", RunStatus.COMPLETED)
    assert ended.completed_at is not None
    assert ended.completed_at > at(1)


@pytest.mark.parametrize("status", ["crashed", "failed", "cancelled"])
async def test_end_of_a_crashed_run_that_does_not_go_on_stands(workflows: WorkflowRepository, status: str) -> None:
    await a_run(workflows, "crashed", completed_at=at(1))
    moved = await workflows.update_run_status("r", RunStatus(status), error="gone")
    assert moved.completed_at == at(1)


# ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "after"), [("pending", "running"), ("running", "running"), ("waiting_approval", "skipped")]
)
async def test_step_moves(workflows: WorkflowRepository, before: str, after: str) -> None:
    await a_step(workflows, before)
    moved = await workflows.update_step_status("s", StepStatus(after), output={"n": 2}, error="now")
    assert (moved.status, moved.error, moved.output) == (after, "now", {"n": 2})
    assert await stored_step(workflows) == moved


@pytest.mark.parametrize(("before", "after"), [("running", "skipped"), ("completed", "running")])
async def test_step_does_not_move(workflows: WorkflowRepository, before: str, after: str) -> None:
    stored = await a_step(workflows, before)
    with pytest.raises(InvalidTransition) as refusal:
        await workflows.update_step_status("s", StepStatus(after), output={"n": 1}, error="before")
    assert (refusal.value.key, refusal.value.current, refusal.value.wanted) == ("s", before, after)
    assert await stored_step(workflows) == stored


async def test_final_step_again(workflows: WorkflowRepository) -> None:
    status = "completed"
    stored = await a_step(workflows, status)
    same: list[tuple[Any, str | None]] = [({"n": 1}, "before"), (None, None)]
    for output, error in same:
        assert await workflows.update_step_status("s", StepStatus(status), output, error) == stored
    other: list[tuple[Any, str | None]] = [({"n": 2}, None), ({"n": True}, None), (None, "other")]
    for output, error in other:
        with pytest.raises(InvalidTransition, match=f"is {status} and cannot become {status}"):
            await workflows.update_step_status("s", StepStatus(status), output, error)
    assert await stored_step(workflows) == stored


async def test_step_none_keeps_output_and_error(workflows: WorkflowRepository) -> None:
    await a_step(workflows, "running")
    moved = await workflows.update_step_status("s", StepStatus.COMPLETED)
    assert (moved.error, moved.output) == ("before", {"n": 1})
    assert await stored_step(workflows) == moved


@pytest.mark.parametrize("output", [0, False, "", [], {}], ids=repr)
async def test_step_output_that_is_falsy_is_not_none(workflows: WorkflowRepository, output: Any) -> None:
    await a_step(workflows, "running")
    await workflows.update_step_status("s", StepStatus.COMPLETED, output=output)
    assert repr((await stored_step(workflows)).output) == repr(output)


async def test_step_start_is_stamped_on_entering_running(workflows: WorkflowRepository) -> None:
    await a_step(workflows, "pending")
    running = await workflows.update_step_status("s", StepStatus.RUNNING)
    assert running.started_at is not None
    assert running.completed_at is None
    waiting = await workflows.update_step_status("s", StepStatus.WAITING_APPROVAL)
    resumed = await workflows.update_step_status("s", StepStatus.RUNNING)
    assert running.started_at == waiting.started_at == resumed.started_at


async def test_step_start_that_was_given_stands(workflows: WorkflowRepository) -> None:
    await a_step(workflows, "pending", started_at=at(1))
    running = await workflows.update_step_status("s", StepStatus.RUNNING)
    assert running.started_at == at(1)


@pytest.mark.parametrize("end", ["completed", "failed", "skipped"])
async def test_step_end_is_stamped_once(workflows: WorkflowRepository, end: str) -> None:
    await a_step(workflows, "pending")
    ended = await workflows.update_step_status("s", StepStatus(end))
    assert ended.completed_at is not None
    assert await workflows.update_step_status("s", StepStatus(end)) == ended
    assert await stored_step(workflows) == ended


async def test_failed_step_is_tried_again_as_a_new_record(workflows: WorkflowRepository) -> None:
    await a_step(workflows, "failed", started_at=at(1))
    again = step("s2", step_id="s", attempt=2, started_at=at(2))
    assert await workflows.create_step_log(again) == again
    await workflows.update_step_status("s2", StepStatus.COMPLETED, output=1)
    found = [(log.id, log.step_id, log.attempt, log.status) for log in await workflows.list_step_logs("r")]
    assert found == [("s", "s", 1, StepStatus.FAILED), ("s2", "s", 2, StepStatus.COMPLETED)]
    assert await workflows.get_completed_step_ids("r") == ["s"]
