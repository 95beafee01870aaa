"""The schedules of a worker's workflow repository, over a bot's connection."""

from __future__ import annotations

from ..model.schedules import ScheduleStatus, WorkflowSchedule
from ..wire import schedule_calls as calls
from .definitions import RemoteDefinitions

__all__ = ["RemoteSchedules"]


class RemoteSchedules(RemoteDefinitions):
    """The part of `bot.workflows` about schedules; `bus.model.workflows` documents each method."""

    async def save_schedule(self, schedule: WorkflowSchedule) -> ScheduleStatus:
        """Insert or replace a schedule by id."""
        status: ScheduleStatus = await self._call(calls.SaveSchedule(schedule=schedule))
        return status

    async def get_schedule(self, schedule_id: str) -> ScheduleStatus | None:
        """Return a schedule by id, and how far it is."""
        status: ScheduleStatus | None = await self._call(calls.GetSchedule(schedule_id=schedule_id))
        return status

    async def list_schedules(
        self, workflow_id: str | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[ScheduleStatus]:
        """List schedules by id, of one workflow or of all."""
        return await self._list(calls.ListSchedules(workflow_id=workflow_id, limit=limit, offset=offset))

    async def get_schedule_times(self, schedule_id: str, count: int = 5) -> list[str]:
        """Return the next times of a schedule."""
        times: list[str] = await self._call(calls.GetScheduleTimes(schedule_id=schedule_id, count=count))
        return times

    async def pause_schedule(self, schedule_id: str, paused: bool = True) -> ScheduleStatus:
        """Let a schedule start no runs, or go on with the first time after now."""
        status: ScheduleStatus = await self._call(calls.PauseSchedule(schedule_id=schedule_id, paused=paused))
        return status

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule. Return False if it did not exist, perhaps because the call was repeated."""
        deleted: bool = await self._call(calls.DeleteSchedule(schedule_id=schedule_id))
        return deleted
