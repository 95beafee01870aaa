"""Workflow calls on the wire about schedules, documented in `docs/protocol.md`.

Owns a struct for each method of the workflow repository about schedules, with the same parameters.

Pure.
"""

from __future__ import annotations

from ..model.schedules import ScheduleStatus, WorkflowSchedule
from .call import Call, ListCall, Number

__all__ = [
    "SCHEDULE_CALLS",
    "DeleteSchedule",
    "GetSchedule",
    "GetScheduleTimes",
    "ListSchedules",
    "PauseSchedule",
    "SaveSchedule",
]


class SaveSchedule(Call, frozen=True, kw_only=True):
    """Inserts or replaces a schedule."""

    method = "save_schedule"
    answer = ScheduleStatus
    writes = True
    schedule: WorkflowSchedule


class GetSchedule(Call, frozen=True, kw_only=True):
    """Asks for a schedule."""

    method = "get_schedule"
    answer = ScheduleStatus | None
    schedule_id: str


class ListSchedules(ListCall, frozen=True, kw_only=True):
    """Asks for the schedules of a workflow, or for all."""

    method = "list_schedules"
    answer = list[ScheduleStatus]
    workflow_id: str | None = None


class GetScheduleTimes(Call, frozen=True, kw_only=True):
    """Asks for the next times of a schedule."""

    method = "get_schedule_times"
    answer = list[str]
    schedule_id: str
    count: Number = 5


class PauseSchedule(Call, frozen=True, kw_only=True):
    """Pauses a schedule, or lets it go on."""

    method = "pause_schedule"
    answer = ScheduleStatus
    writes = True
    schedule_id: str
    paused: bool = True


class DeleteSchedule(Call, frozen=True, kw_only=True):
    """Deletes a schedule."""

    method = "delete_schedule"
    answer = bool
    writes = True
    schedule_id: str


SCHEDULE_CALLS: tuple[type[Call], ...] = (
    SaveSchedule, GetSchedule, ListSchedules, GetScheduleTimes, PauseSchedule, DeleteSchedule,
)  # fmt: skip
"""All of them."""
