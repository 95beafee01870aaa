"""A bot that executes workflows, for the commands to look at: each call is a connection of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio

import bus
from bus.model.records import GlobalOwner, RunStatus, StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import WorkflowRepository

from .terminal import TIMEOUT_SECONDS, Posthouse

__all__ = ["STARTED", "asking", "crashed", "created", "define", "ended", "running", "work"]

STARTED = "2026-01-01T00:00:00.000000Z"

_LEASE_SECONDS = 600.0
"""Longer than any test."""


def work(posthouse: Posthouse, bot: str, task: Callable[[WorkflowRepository], Awaitable[Any]]) -> Any:
    """Do something as a bot."""

    async def connected() -> Any:
        async with bus.connect(posthouse.url, bot=bot, max_in_flight=0, timeout=TIMEOUT_SECONDS) as executor:
            return await task(executor.workflows)

    return anyio.run(connected)


def define(posthouse: Posthouse, id: str, **fields: Any) -> None:
    """Save a workflow whose name is its id, unless it is given."""
    given = {"id": id, "name": id, "owner": GlobalOwner(), **fields}
    work(posthouse, "author", lambda workflows: workflows.save_definition(WorkflowDefinition(**given)))


def created(posthouse: Posthouse, workflow: str, *ids: str) -> None:
    """Create runs of a workflow, which is saved first; the later ones are newer."""
    define(posthouse, workflow)

    async def create(workflows: WorkflowRepository) -> None:
        for number, id in enumerate(ids):
            await workflows.create_run(
                WorkflowRun(
                    id=id,
                    workflow_id=workflow,
                    workflow_name=workflow,
                    trigger_type="manual",
                    started_at=f"{STARTED[:-7]}{number:06}Z",
                )
            )

    work(posthouse, "author", create)


def running(posthouse: Posthouse, run_id: str, bot: str = "executor") -> int:
    """Let a bot claim a run; give the fence."""
    claimed = work(posthouse, bot, lambda workflows: workflows.claim_run(run_id, bot, _LEASE_SECONDS))
    return int(claimed.fence)


def crashed(posthouse: Posthouse, run_id: str) -> None:
    """Let a run lose its holder."""
    running(posthouse, run_id)
    ended(posthouse, run_id, RunStatus.CRASHED, "the holder was lost\nand more of that")


def ended(posthouse: Posthouse, run_id: str, status: RunStatus, error: str | None = None) -> None:
    """Move a run to a status."""
    work(posthouse, "executor", lambda workflows: workflows.update_run_status(run_id, status, error))


def asking(posthouse: Posthouse, run_id: str, step_id: str, prompt: Any, *, attempt: int = 1) -> str:
    """Let a step of a run wait for an approval; give the id of its log."""
    log = WorkflowStepLog(
        id=f"{run_id}-{step_id}-{attempt}",
        run_id=run_id,
        step_id=step_id,
        step_name=f"Ask for {step_id}",
        status=StepStatus.WAITING_APPROVAL,
        attempt=attempt,
        input=prompt,
        started_at=STARTED,
    )
    work(posthouse, "executor", lambda workflows: workflows.create_step_log(log))
    return log.id
