"""What the process does that executes runs with posthouse's own client; the worker is a process of its own.

Owns the ways in which a step is kept: by `run.step`, as programs do; by `run.step` that does not announce the step;
and by the store alone, with no worker and no bus, in the program's own process.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import anyio
import anyio.lowlevel
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

from .loads import Run, in_tasks, serve

__all__ = ["execute", "execute_alone"]

_DEFINITION = WorkflowDefinition(id="bench", name="bench", owner=GlobalOwner())


def execute(pipe: Connection, url: str, *, announce: bool) -> None:
    """Be a bot that executes runs. Its steps are asynchronous: others would be called in threads."""

    async def follow(run: Run) -> None:
        async def step() -> dict[str, Any]:
            await anyio.lowlevel.checkpoint()  # a step that never waits would be one record by default, too
            return run()

        async with bot.workflows.run("bench", id=run.id) as held:
            while run.more:
                await held.step("step", step, announce=announce)

    with start_blocking_portal(backend_options={"use_uvloop": True}) as portal:
        bot = bus.Bot("bencher", url)
        with portal.wrap_async_context_manager(bot):
            portal.call(bot.workflows.save_definition, _DEFINITION)
            serve(pipe, {}, partial(portal.call, in_tasks(follow)))


def execute_alone(pipe: Connection, path: str) -> None:
    """Keep the steps of runs in a store of this process."""
    with (
        start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
        portal.wrap_async_context_manager(open_store(path)) as store,
    ):
        portal.call(store.workflows.save_definition, _DEFINITION)
        serve(pipe, {}, partial(portal.call, in_tasks(partial(_by_store, store.workflows))))


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
        output = run()
        row = WorkflowStepLog(
            id=str(uuid_utils.uuid7()),
            run_id=run.id,
            step_id=f"step#{run.steps}",
            step_name="step",
            status=StepStatus.COMPLETED,
            started_at=_now(),
            output=output,
        )
        await workflows.create_step_log(row, fence=claim.fence)
    await workflows.update_run_status(run.id, RunStatus.COMPLETED, fence=claim.fence)


def _now() -> str:
    return timestamp(datetime.now(UTC))
