"""What every WorkflowRepository does (docs/workflows.md): lists, and the parts of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio
import pytest

from bus.errors import InvalidValue
from bus.model.records import RunStatus, RunSummary, StepStatus
from bus.model.repository import WorkflowRepository

from .conftest import Clock
from .samples import ANN, GLOBAL, at, definition, run, step

pytestmark = pytest.mark.anyio

Give = Callable[..., Awaitable[Sequence[Any]]]

LISTS: dict[str, Callable[[WorkflowRepository], Give]] = {
    "definitions": lambda workflows: partial(workflows.list_definitions, None),
    "definitions of one": lambda workflows: partial(workflows.list_definitions, GLOBAL),
    "runs": lambda workflows: partial(workflows.list_runs, "0"),
    "all runs": lambda workflows: partial(workflows.list_all_runs, None),
    "runs of a status": lambda workflows: partial(workflows.list_all_runs, RunStatus.RUNNING),
    "crashed runs": lambda workflows: workflows.list_crashed_runs,
    "steps": lambda workflows: partial(workflows.list_step_logs, "0"),
    "approvals": lambda workflows: partial(workflows.list_waiting_approvals, None),
    "approvals of one": lambda workflows: partial(workflows.list_waiting_approvals, "0"),
}

MANY = 40
"""More than are read at once."""


async def fill(workflows: WorkflowRepository) -> None:
    async def add(number: int) -> None:
        if number:
            await workflows.save_definition(definition(f"{number}"))
        await workflows.create_run(run(f"{number}", "0", status=RunStatus.RUNNING, started_at=at(number)))

    async def wait(number: int) -> None:
        waiting = StepStatus.WAITING_APPROVAL
        await workflows.create_step_log(step(f"{number}", "0", status=waiting, started_at=at(number)))

    await workflows.save_definition(definition("0"))
    for each in (add, wait):
        async with anyio.create_task_group() as tasks:
            for number in range(MANY):
                tasks.start_soon(each, number)


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_is_given_in_parts(workflows: WorkflowRepository, name: str) -> None:
    await fill(workflows)
    give = LISTS[name](workflows)
    whole = [record.id for record in await give(None)]
    assert sorted(whole, key=int) == [f"{number}" for number in range(MANY)]
    for limit, offset in ((0, 0), (1, 0), (17, 3), (MANY, 0), (MANY, 30), (1000, 0), (5, MANY), (None, 20)):
        part = [record.id for record in await give(limit, offset=offset)]
        assert part == whole[offset:][: MANY if limit is None else limit]
    for wrong in ({"limit": -1}, {"limit": 2**63}, {"limit": 1, "offset": -1}, {"limit": 1, "offset": 2**70}):
        with pytest.raises(InvalidValue):
            await give(wrong["limit"], offset=wrong.get("offset", 0))


async def test_all_runs_are_listed_newest_first(workflows: WorkflowRepository, clock: Clock) -> None:
    for id in ("v", "w"):
        await workflows.save_definition(definition(id, name=f"the workflow {id}"))
    for id, workflow_id, second in (("a", "w", 2), ("c", "v", 3), ("b", "w", 1), ("d", "w", 3)):
        await workflows.create_run(run(id, workflow_id, started_at=at(second), trigger_payload=1, context=[2]))
    await workflows.update_run_status("a", RunStatus.FAILED, error="because")
    await workflows.claim_run("b", ANN, 10)
    assert [found.id for found in await workflows.list_all_runs()] == ["d", "c", "a", "b"]
    assert [found.id for found in await workflows.list_all_runs(RunStatus.PENDING)] == ["d", "c"]
    assert await workflows.list_all_runs(RunStatus.PAUSED) == []
    common: dict[str, Any] = {
        "workflow_id": "w",
        "workflow_name": "w",
        "trigger_type": "manual",
        "concurrency_key": None,
        "recoveries": 0,
        "queued_at": None,
    }
    failed = RunSummary(
        id="a",
        status=RunStatus.FAILED,
        started_at=at(2),
        completed_at=clock.after(0),
        error="because",
        holder=None,
        fence=0,
        lease_expires_at=None,
        **common,
    )
    held = RunSummary(
        id="b",
        status=RunStatus.RUNNING,
        started_at=at(1),
        completed_at=None,
        error=None,
        holder=ANN,
        fence=1,
        lease_expires_at=clock.after(10),
        **common,
    )
    assert (await workflows.list_all_runs())[2:] == [failed, held]


async def test_approvals_that_matter_are_listed_oldest_first(workflows: WorkflowRepository) -> None:
    await workflows.save_definition(definition("w"))
    for status in RunStatus:
        await workflows.create_run(run(status, status=status))
        await workflows.create_step_log(step(f"done in {status}", status, status=StepStatus.COMPLETED))
    order = ["paused", "running", "completed", "crashed", "failed", "pending", "cancelled"]
    for second, run_id in enumerate(order):
        waiting = step(run_id, run_id, status=StepStatus.WAITING_APPROVAL, started_at=at(second), input={"n": 1})
        await workflows.create_step_log(waiting)
    found = await workflows.list_waiting_approvals()
    assert [log.id for log in found] == ["paused", "running", "crashed", "pending"]
    assert found[0].input == {"n": 1}
    assert [log.id for log in await workflows.list_waiting_approvals("running")] == ["running"]
    assert await workflows.list_waiting_approvals("cancelled") == []
    assert await workflows.list_waiting_approvals("nowhere") == []
    await workflows.update_step_status("paused", StepStatus.COMPLETED)
    assert [log.id for log in await workflows.list_waiting_approvals()] == ["running", "crashed", "pending"]


@pytest.mark.parametrize("attempt", [0, -1, 2**31, 2**70])
async def test_attempts_count_from_one(workflows: WorkflowRepository, attempt: int) -> None:
    await workflows.save_definition(definition("w"))
    await workflows.create_run(run("r"))
    with pytest.raises(InvalidValue, match="attempt"):
        await workflows.create_step_log(step("s", attempt=attempt))
    assert await workflows.list_step_logs("r") == []
