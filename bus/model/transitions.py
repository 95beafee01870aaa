"""How runs and steps move from status to status.

Owns the two tables of which statuses may follow, and what a move does to the rest of the record. A status in its
own row may be set again with new values (a running run writes its context that way). Any other may be set again
only with the stored values, which changes nothing: so a call whose answer was lost can be repeated. Statuses with
an empty row are final; a failed step is retried as a new record.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import InvalidTransition
from .records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog
from .values import same_values

__all__ = ["RUN_TRANSITIONS", "STEP_BEGINS", "STEP_TRANSITIONS", "advance_run", "advance_step"]

RUN_TRANSITIONS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.PENDING: frozenset(RunStatus) - {RunStatus.CRASHED},
    RunStatus.RUNNING: frozenset(RunStatus),
    RunStatus.PAUSED: frozenset(RunStatus) - {RunStatus.COMPLETED, RunStatus.CRASHED},
    RunStatus.CRASHED: frozenset(RunStatus) - {RunStatus.COMPLETED},
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset(),
    RunStatus.CANCELLED: frozenset(),
}

STEP_TRANSITIONS: Mapping[StepStatus, frozenset[StepStatus]] = {
    StepStatus.PENDING: frozenset(StepStatus) - {StepStatus.PENDING},
    StepStatus.RUNNING: frozenset(StepStatus) - {StepStatus.PENDING, StepStatus.SKIPPED},
    StepStatus.WAITING_APPROVAL: frozenset(StepStatus) - {StepStatus.PENDING},
    StepStatus.COMPLETED: frozenset(),
    StepStatus.FAILED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
}

STEP_BEGINS = {StepStatus.RUNNING, StepStatus.WAITING_APPROVAL}
"""A step log that enters one of these has begun."""

_RUN_ENDS = {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CRASHED, RunStatus.CANCELLED}
_STEP_ENDS = {StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED}


def advance_run(
    run: WorkflowRun, status: RunStatus, *, error: str | None, context: Any, now: str, result: Any = None
) -> WorkflowRun:
    """Return the run after a move, or the same object if nothing changes.

    `error=None` clears the error; `context=None` and `result=None` keep the context and the result. `completed_at`
    is set once, on the first end, and cleared when a crashed run continues. Raises InvalidTransition if there is no
    such move.
    """
    completed_at = run.completed_at
    if status != run.status:
        completed_at = (run.completed_at or now) if status in _RUN_ENDS else None
    after = msgspec.structs.replace(
        run,
        status=status,
        error=error,
        context=run.context if context is None else context,
        completed_at=completed_at,
        result=run.result if result is None else result,
    )
    if status in RUN_TRANSITIONS[run.status]:
        return after
    if same_values(after, run):
        return run
    raise InvalidTransition("run", run.id, run.status, status)


def advance_step(
    step: WorkflowStepLog, status: StepStatus, *, output: Any, error: str | None, now: str
) -> WorkflowStepLog:
    """Return the step after a move, or the same object if nothing changes.

    None keeps output and error. `started_at` is set on entering running or waiting_approval, and `completed_at` on
    entering a final status, each unless it is set. Raises InvalidTransition if the table has no such move.
    """
    enters = status != step.status
    after = msgspec.structs.replace(
        step,
        status=status,
        output=step.output if output is None else output,
        error=step.error if error is None else error,
        started_at=step.started_at or (now if enters and status in STEP_BEGINS else None),
        completed_at=step.completed_at or (now if enters and status in _STEP_ENDS else None),
    )
    if status in STEP_TRANSITIONS[step.status]:
        return after
    if same_values(after, step):
        return step
    raise InvalidTransition("step", step.id, step.status, status)
