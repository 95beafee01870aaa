"""What is noted of a workflow call: approvals, and what is done to a run without holding it."""

from __future__ import annotations

from typing import Any

from ..core.effects import Note
from ..model.records import RunStatus
from ..wire.calls import (
    Call,
    CancelRun,
    DeleteRun,
    ForkRun,
    RetryRun,
    UpdateRunStatus,
    UpdateStepStatus,
)
from ..wire.definition_calls import DeleteDefinition
from ..wire.schedule_calls import DeleteSchedule, PauseSchedule, SaveSchedule

__all__ = ["deed"]

_PAUSED = {True: "paused", False: "resumed"}


def deed(call: Call, value: Any) -> Note | None:
    """Return what is to be noted of a write: approvals, and what is done to a run without holding it."""
    match call:
        case UpdateStepStatus(fence=None):
            step = f"{value.run_id}/{value.step_id}"
            return Note("step_decided", {"object": step, "status": call.status})
        case UpdateRunStatus(fence=None):
            return Note("run_operated", {"object": call.run_id, "status": call.status})
        case CancelRun():
            return Note("run_operated", {"object": call.run_id, "status": RunStatus.CANCELLED})
        case RetryRun():
            return Note("run_operated", {"object": call.run_id, "status": RunStatus.PENDING})
        case ForkRun():
            return Note("run_operated", {"object": call.run_id, "status": "forked"})
        case SaveSchedule():
            return Note("schedule_changed", {"object": call.schedule.id, "status": "saved"})
        case PauseSchedule():
            return Note("schedule_changed", {"object": call.schedule_id, "status": _PAUSED[call.paused]})
        case DeleteSchedule() if value:
            return Note("schedule_changed", {"object": call.schedule_id, "status": "deleted"})
        case DeleteRun() if value:
            return Note("run_deleted", {"object": call.run_id})
        case DeleteDefinition() if value:
            return Note("definition_deleted", {"object": call.definition_id})
        case _:
            return None
