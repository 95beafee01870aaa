"""What the process does that executes runs with posthouse's own client; the worker is a process of its own.

Owns the four ways in which a step is kept: by `run.step`, as programs do; by the two calls which that makes, a
step's beginning and its end; by `run.step` that does not announce the step; and by the one call which that makes.
And the store alone, with no worker and no bus: the same one call, in the program's own process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import anyio
import uuid_utils
from anyio.from_thread import start_blocking_portal

import bus
from bus.model.records import (
    GlobalOwner,
    RunStatus,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
    timestamp,
)
from bus.model.repository import WorkflowRepository
from store import open_store

from .loads import Run, serve

__all__ = ["WAYS", "execute", "execute_alone"]

_DEFINITION = WorkflowDefinition(id="bench", name="bench", owner=GlobalOwner())


async def _by_step(bot: bus.Bot, run: Run) -> None:
    async with bot.workflows.run("bench", id=run.id) as held:
        while run.more:
            await held.step("step", run)


async def _by_quiet_step(bot: bus.Bot, run: Run) -> None:
    async with bot.workflows.run("bench", id=run.id) as held:
        while run.more:
            await held.step("step", run, announce=False)


async def _by_two_calls(bot: bus.Bot, run: Run) -> None:
    async with bot.workflows.run("bench", id=run.id) as held:
        while run.more:
            row = _row(run, StepStatus.RUNNING)
            await bot.workflows.create_step_log(row, fence=held.fence)
            await bot.workflows.update_step_status(row.id, StepStatus.COMPLETED, run(), fence=held.fence)


async def _by_one_call(bot: bus.Bot, run: Run) -> None:
    async with bot.workflows.run("bench", id=run.id) as held:
        while run.more:
            await _keep(bot.workflows, run, held.fence)


async def _keep(workflows: WorkflowRepository, run: Run, fence: int) -> None:
    row = _row(run, StepStatus.COMPLETED, output=run())
    await workflows.create_step_log(row, fence=fence)


def _row(run: Run, status: StepStatus, **fields: Any) -> WorkflowStepLog:
    """Give a step log with one time, as the others' checkpoints have one."""
    return WorkflowStepLog(
        id=str(uuid_utils.uuid7()),
        run_id=run.id,
        step_id=f"step#{run.steps}",
        step_name="step",
        status=status,
        started_at=_now(),
        **fields,
    )


def _now() -> str:
    return timestamp(datetime.now(UTC))


WAYS: dict[str, Callable[[bus.Bot, Run], Coroutine[Any, Any, None]]] = {
    "step": _by_step,
    "quiet step": _by_quiet_step,
    "two calls": _by_two_calls,
    "one call": _by_one_call,
}
"""What carries out a run, by name."""


def execute(pipe: Connection, url: str, way: str) -> None:
    """Be a bot that executes runs."""

    async def carry_out(runs: Sequence[Run]) -> None:
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(WAYS[way], bot, run)

    with start_blocking_portal(backend_options={"use_uvloop": True}) as portal:
        bot = bus.Bot("bencher", url)
        with portal.wrap_async_context_manager(bot):
            portal.call(bot.workflows.save_definition, _DEFINITION)
            serve(pipe, {}, partial(portal.call, carry_out))


def execute_alone(pipe: Connection, path: str) -> None:
    """Keep the steps of runs in a store of this process."""

    async def carry_out(runs: Sequence[Run]) -> None:
        async with anyio.create_task_group() as tasks:
            for run in runs:
                tasks.start_soon(_by_store, store.workflows, run)

    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(open_store(path)) as store,
    ):
        portal.call(store.workflows.save_definition, _DEFINITION)
        serve(pipe, {}, partial(portal.call, carry_out))


async def _by_store(workflows: WorkflowRepository, run: Run) -> None:
    await workflows.create_run(
        WorkflowRun(
            id=run.id,
            workflow_id=_DEFINITION.id,
            workflow_name=_DEFINITION.name,
            status=RunStatus.PENDING,
            trigger_type="manual",
            started_at=_now(),
        )
    )
    claim = await workflows.claim_run(run.id, "bencher")
    while run.more:
        await _keep(workflows, run, claim.fence)
    await workflows.update_run_status(run.id, RunStatus.COMPLETED, fence=claim.fence)
