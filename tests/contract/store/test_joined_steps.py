"""Step logs that are written together: each has its own outcome, in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from bus.errors import Conflict, Fenced, InvalidTransition, InvalidValue, NotFound
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import StepCreation, StepMove, WorkflowStore

from ..conftest import StorePlace
from .samples import at

pytestmark = pytest.mark.anyio


@pytest.fixture
async def workflows(store_place: StorePlace) -> AsyncIterator[WorkflowStore]:
    async with store_place.open() as store:
        await store.workflows.save_definition(WorkflowDefinition(id="w", name="w", owner=GlobalOwner()))
        for id in ("r", "other"):
            await store.workflows.create_run(
                WorkflowRun(id=id, workflow_id="w", workflow_name="w", trigger_type="manual", started_at=at(0))
            )
        yield store.workflows


def step(id: str, run_id: str = "r", **fields: object) -> WorkflowStepLog:
    given = {"step_id": id, "step_name": id, "status": StepStatus.RUNNING, "started_at": at(1)} | fields
    return WorkflowStepLog(id=id, run_id=run_id, **given)  # type: ignore[arg-type]


async def test_a_step_begins_and_ends_in_one_go(workflows: WorkflowStore) -> None:
    begun, same, ended = await workflows.write_steps(
        [
            StepCreation(step("s")),
            StepCreation(step("s")),
            StepMove("s", StepStatus.COMPLETED, output={"rows": 3}),
        ]
    )
    assert begun == same == step("s")
    assert isinstance(ended, WorkflowStepLog)
    assert (ended.status, ended.output) == (StepStatus.COMPLETED, {"rows": 3})
    assert await workflows.list_step_logs("r") == [ended]


async def test_what_is_refused_takes_nothing_along(workflows: WorkflowStore) -> None:
    claimed = await workflows.claim_run("r", "ann")
    outcomes = await workflows.write_steps(
        [
            StepCreation(step("a"), fence=claimed.fence),
            StepCreation(step("b"), fence=claimed.fence + 1),
            StepCreation(step("c", "nowhere")),
            StepCreation(step("a", error="another")),
            StepCreation(step("d", attempt=0)),
            StepMove("gone", StepStatus.COMPLETED),
            StepMove("a", StepStatus.COMPLETED, output=1, fence=claimed.fence),
            StepMove("a", StepStatus.FAILED, fence=claimed.fence),
            StepMove("a", StepStatus.COMPLETED, fence=claimed.fence - 1),
            StepCreation(step("e"), fence=claimed.fence),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [
        WorkflowStepLog, Fenced, NotFound, Conflict, InvalidValue, NotFound, WorkflowStepLog, InvalidTransition,
        Fenced, WorkflowStepLog,
    ]  # fmt: skip
    assert [(each.id, each.status) for each in await workflows.list_step_logs("r")] == [
        ("a", StepStatus.COMPLETED),
        ("e", StepStatus.RUNNING),
    ]


async def test_creations_among_themselves_are_decided_about_as_any_others(workflows: WorkflowStore) -> None:
    claimed = await workflows.claim_run("r", "ann")
    there, other = [await workflows.create_step_log(step(name)) for name in ("there", "other")]
    outcomes = await workflows.write_steps(
        [
            StepCreation(step("a"), fence=claimed.fence),
            StepCreation(step("there")),
            StepCreation(step("b"), fence=claimed.fence - 1),
            StepCreation(step("other"), fence=claimed.fence - 1),
            StepCreation(step("c", "nowhere")),
            StepCreation(step("d", started_at=None)),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [
        WorkflowStepLog, WorkflowStepLog, Fenced, Fenced, NotFound, WorkflowStepLog
    ]  # fmt: skip
    assert outcomes[1] == there
    assert [there, other, outcomes[0], outcomes[5]] == await workflows.list_step_logs("r")
    late, right, wrong = await workflows.write_steps(
        [
            StepCreation(step("e"), fence=claimed.fence - 1),
            StepCreation(step("e"), fence=claimed.fence),
            StepCreation(step("e", step_name="another")),
        ]
    )
    assert (type(late), right, type(wrong)) == (Fenced, step("e"), Conflict)


async def test_creations_that_are_all_new_keep_their_order(workflows: WorkflowStore) -> None:
    names = [f"{number * 37 % 64:02}" for number in range(64)]
    runs = ["r", "other"] * 32
    created = await workflows.write_steps(
        [StepCreation(step(name, run)) for name, run in zip(names, runs, strict=True)]
    )
    assert [each.id for each in created if isinstance(each, WorkflowStepLog)] == names
    assert [each.id for each in await workflows.list_step_logs("r")] == names[::2]
    assert [each.id for each in await workflows.list_step_logs("other")] == names[1::2]


async def test_the_fence_is_that_of_each_step_s_own_run(workflows: WorkflowStore) -> None:
    await workflows.claim_run("r", "ann")
    await workflows.claim_run("other", "bob")
    again = await workflows.release_run("other", 1, RunStatus.PENDING)
    assert again.status == RunStatus.PENDING
    assert (await workflows.claim_run("other", "bob")).fence == 2
    outcomes = await workflows.write_steps(
        [
            StepCreation(step("a"), fence=1),
            StepCreation(step("b", "other"), fence=1),
            StepCreation(step("b", "other"), fence=2),
            StepMove("b", StepStatus.COMPLETED, fence=1),
            StepMove("a", StepStatus.COMPLETED, fence=1),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [
        WorkflowStepLog, Fenced, WorkflowStepLog, Fenced, WorkflowStepLog
    ]  # fmt: skip


async def test_more_than_a_portion_keeps_its_order(workflows: WorkflowStore) -> None:
    names = [f"s{number:03}" for number in range(200)]
    created = await workflows.write_steps([StepCreation(step(name)) for name in names])
    assert [each.id for each in created if isinstance(each, WorkflowStepLog)] == names
    moves = [StepMove(name, StepStatus.COMPLETED, output=name) for name in names]
    moved = await workflows.write_steps(moves)
    assert await workflows.list_step_logs("r") == moved
    assert await workflows.write_steps([]) == []


async def test_callers_side_by_side_share_a_transaction(workflows: WorkflowStore) -> None:
    async def write(number: int) -> None:
        if number % 3:
            await workflows.create_step_log(step(f"s{number}"))
        else:
            with pytest.raises(NotFound):
                await workflows.create_step_log(step(f"s{number}", "nowhere"))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(write, number)
    assert len(await workflows.list_step_logs("r")) == 20
