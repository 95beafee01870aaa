"""Room for calls: thousands of steps side by side wait for each other, instead of being refused."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from bus.client.room import CALLS_BYTES_MAX, CALLS_MAX, CallRoom
from bus.model.records import GlobalOwner, StepStatus, WorkflowDefinition
from bus.settings import Limits, Settings
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())
BOUND_SECONDS = 100
STEPS = CALLS_MAX + 500


@pytest.mark.parametrize("announce", [True, False])
async def test_steps_side_by_side_are_never_refused(store_url: str, announce: bool) -> None:
    limits = Limits(workflow_calls_max=CALLS_MAX + 2)  # those that renew and release do not wait
    with Worker(store_url, Settings(limits=limits)) as worker:
        async with worker.connect(bot="a") as bot:
            with anyio.fail_after(BOUND_SECONDS):
                opened = bot.workflows.run("digest", id="r", definition=DIGEST)
                async with opened as run, anyio.create_task_group() as tasks:
                    for number in range(STEPS):
                        tasks.start_soon(partial(run.branch(f"{number}").step, "s", double, 2, announce=announce))
                rows = await bot.workflows.list_step_logs("r")
            assert len(rows) == STEPS
            assert {(row.status, row.output) for row in rows} == {(StepStatus.COMPLETED, 4)}


async def double(number: int) -> int:
    return number * 2


# ── The order ────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_came_first_enters_first_and_a_large_one_has_the_room_alone() -> None:
    room, entered = CallRoom(), list[str]()
    assert room.enter_now(CALLS_BYTES_MAX * 2), "it is alone"

    async def enter(name: str, size_bytes: int) -> None:
        await room.enter(size_bytes)
        entered.append(name)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            for name, size_bytes in [("a", 1), ("large", CALLS_BYTES_MAX), ("b", 1)]:
                tasks.start_soon(enter, name, size_bytes)
                await anyio.wait_all_tasks_blocked()
            assert entered == []
            assert not room.enter_now(1), "others wait"
            room.leave(CALLS_BYTES_MAX * 2)
            await anyio.wait_all_tasks_blocked()
            assert entered == ["a"]
            room.leave(1)
            await anyio.wait_all_tasks_blocked()
            assert entered == ["a", "large"]
            room.leave(CALLS_BYTES_MAX)
        assert entered == ["a", "large", "b"]


async def test_who_is_cancelled_lets_the_next_one_in() -> None:
    room = CallRoom()
    assert room.enter_now(CALLS_BYTES_MAX)
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as first:
                tasks.start_soon(_cancel_soon, first)
                await room.enter(1)
            assert first.cancelled_caught
            room.leave(CALLS_BYTES_MAX)
            assert room.enter_now(CALLS_BYTES_MAX), "nobody has it"

            async def enter_cancelled() -> None:
                with anyio.CancelScope() as scope:
                    tasks.start_soon(_let_in_and_cancel, room, scope)
                    await room.enter(CALLS_BYTES_MAX)
                    try:
                        await anyio.sleep_forever()
                    finally:
                        room.leave(CALLS_BYTES_MAX)

            await enter_cancelled()
    assert "calls=0 bytes=0 waiting=0" in repr(room)


async def _cancel_soon(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def _let_in_and_cancel(room: CallRoom, scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    room.leave(CALLS_BYTES_MAX)
    scope.cancel()
