"""What keeps workflows can do, and the rules that it keeps them by.

Owns the protocol that a bot reaches through its connection as well as a local user through an open store
(`WorkflowRepository`), and what only the worker beside the store does (`WorkflowStore`). All methods may wait; all
raise `bus.errors`. Nothing here knows SQL.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from ..errors import StoreError
from .records import (
    Claim,
    Lease,
    Owner,
    RecoveredRun,
    RunStatus,
    RunSummary,
    StepStatus,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)

__all__ = ["StepCreation", "StepMove", "WorkflowRepository", "WorkflowRules", "WorkflowStore"]


class WorkflowRules(msgspec.Struct, frozen=True):
    """What a store keeps workflows by; a worker takes it from its configuration."""

    lease_seconds: float = 15.0
    """The lease of a claim or a renewal that names none."""

    lease_seconds_max: float = 3600.0
    """The longest lease: what a holder that died keeps its run for."""

    recoveries_max: int = 5
    """How often a run may be found without a live holder before only a person resumes it."""

    record_bytes_max: int | None = None
    """The most bytes of a definition, run or step log as JSON, where it is read in one frame. None: no limit."""


class StepCreation(msgspec.Struct, frozen=True):
    """What `create_step_log` is called with, as it is read back from JSON."""

    step: WorkflowStepLog
    fence: int | None = None


class StepMove(msgspec.Struct, frozen=True):
    """What `update_step_status` is called with, as it is read back from JSON."""

    step_id: str
    status: StepStatus
    output: Any = None
    error: str | None = None
    fence: int | None = None


class WorkflowRepository(Protocol):
    """Definitions, runs and steps: what an executor needs to survive a crash (docs/workflows.md).

    Every write is on disk when its call returns, and may be repeated when its answer was lost. Updating what does
    not exist raises NotFound, a status that cannot follow raises InvalidTransition, an input or output over 1 MiB
    or a context over 10 MiB TooLarge. A write with a `fence` that is not the run's any more raises Fenced and
    changes nothing. A run that stops running, by whatever write, is held by nobody from then on; a write without a
    fence that ends somebody's hold makes the run's fence grow.

    Lists give at most `limit` records (None: all) after leaving out the first `offset`.
    """

    # ── Definitions ──────────────────────────────────────────────────────────────────────────────────────

    async def save_definition(self, definition: WorkflowDefinition) -> None:
        """Insert or replace by id. Conflict where its name and owner belong to another id.

        InvalidValue where the definition contradicts itself: step ids that repeat, dependencies that are no steps
        or go round in a circle, a config tagged with another type than its step's, a limit below 1.
        """

    async def get_definition(self, definition_id: str) -> WorkflowDefinition | None:
        """Return a definition by id."""

    async def get_definition_by_name(self, name: str, owner: Owner) -> WorkflowDefinition | None:
        """Return a definition by name and owner."""

    async def list_definitions(
        self, owner: Owner | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowDefinition]:
        """List by name, owner, id; `None` lists everybody's."""

    async def delete_definition(self, definition_id: str, *, cascade: bool = False) -> bool:
        """Delete; False where there was none. DefinitionInUse where it has runs, unless `cascade`."""

    # ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────

    async def create_run(self, run: WorkflowRun) -> WorkflowRun:
        """Create, or give what is there when all fields are the same; Conflict when they are not.

        The run keeps the definition as it is at this moment.
        """

    async def update_run_status(
        self,
        run_id: str,
        status: RunStatus,
        error: str | None = None,
        context: Any = None,
        *,
        fence: int | None = None,
    ) -> WorkflowRun:
        """Move a run to a status. `error=None` clears the error, `context=None` keeps the context.

        A crashed run that is made pending or paused without a fence was resumed by a person: its recoveries are
        forgotten.
        """

    async def get_run(self, run_id: str) -> WorkflowRun | None:
        """Return a run by id."""

    async def get_run_definition(self, run_id: str) -> WorkflowDefinition | None:
        """Return the definition that a run was created with, or None if there is no run, or if none was kept."""

    async def list_runs(self, workflow_id: str, limit: int | None = 50, *, offset: int = 0) -> list[WorkflowRun]:
        """List a workflow's runs, newest first."""

    async def list_all_runs(
        self, status: RunStatus | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[RunSummary]:
        """List runs of all workflows for people, newest first, of one status or of any."""

    async def list_crashed_runs(self, limit: int | None = None, *, offset: int = 0) -> list[WorkflowRun]:
        """List the runs that are `running` under no live lease, oldest first."""

    # ── Holding a run ────────────────────────────────────────────────────────────────────────────────────

    async def claim_run(
        self, run_id: str, holder: str, lease_seconds: float | None = None, *, claim_id: str | None = None
    ) -> Claim:
        """Claim a run that nobody holds: it becomes running, held by a bot (id) under a lease, with a new fence.

        Steps that were left running become failed, "interrupted". The same holder may repeat a claim with its
        `claim_id` while it holds the run: it gets the same fence, and its lease begins anew.

        Raises RunHeld while anybody's lease is live, RunPaused for a run that a person paused (without a fence, and
        with an error that says why) and nobody made pending since, SlotsTaken while as many runs of its workflow
        and concurrency key are running as the definition allows or others wait longer, InvalidTransition for a run
        that has ended, and Conflict for one that crashed too often, which a person has to resume.
        """

    async def renew_run(self, run_id: str, fence: int, lease_seconds: float | None = None) -> Lease:
        """Let the lease begin anew, also after it ran out, unless the run was taken over or given up meanwhile."""

    async def release_run(self, run_id: str, fence: int, status: RunStatus = RunStatus.PENDING) -> WorkflowRun:
        """Release a run as pending or paused, with its error and context as they are."""

    async def get_lease(self, run_id: str) -> Lease | None:
        """Return the lease of a run, live or run out, or None if nobody holds it."""

    # ── Steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def create_step_log(self, step: WorkflowStepLog, *, fence: int | None = None) -> WorkflowStepLog:
        """Create, or give what is there when all fields are the same; Conflict when they are not.

        One that is running or waits for an approval began now, where it does not say when.
        """

    async def update_step_status(
        self,
        step_id: str,
        status: StepStatus,
        output: Any = None,
        error: str | None = None,
        *,
        fence: int | None = None,
    ) -> WorkflowStepLog:
        """Move a step log, named by its own id, to a status. None keeps output and error."""

    async def list_step_logs(
        self, run_id: str, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List a run's step logs in the order in which they began."""

    async def get_completed_step_ids(self, run_id: str) -> list[str]:
        """List the step ids that completed, in the order they began, each once, without skipped ones."""

    async def list_waiting_approvals(
        self, run_id: str | None = None, limit: int | None = 50, *, offset: int = 0
    ) -> list[WorkflowStepLog]:
        """List the step logs that wait for an approval, oldest first, of one run or of all that have not ended."""


class WorkflowStore(WorkflowRepository, Protocol):
    """The repository where it is kept, with what only the worker does."""

    async def recover_runs(self, limit: int = 100) -> list[RecoveredRun]:
        """End the holds of runs whose lease ran out, oldest first, at most `limit`, in one transaction.

        They become crashed, their running steps failed ("interrupted"), their fences grow, and approvals wait on. A
        run that was never leased is left alone: whoever runs it does so by other means.
        """

    async def write_steps(self, writes: Sequence[StepCreation | StepMove]) -> list[WorkflowStepLog | StoreError]:
        """Carry out calls of `create_step_log` and `update_step_status` together, in their order.

        Each has its own outcome, and an error of one is none of its neighbours'; only a StoreFailure is raised, and
        StorageBusy or StorageFull, which concern them all.
        """
