"""Schedules: workflows whose runs are started by the clock, and which runs are due.

Owns their records, what a store does with them, and the rules for times that were missed and for runs that overlap.
`occurrences` knows when the times are. Its rules:

- A time is due once. The next one is always after now, so a clock that is put back starts nothing again.
- Times that passed while nobody could start their runs are caught up as the schedule says.
- A schedule that does not allow overlaps starts no run while the one before has not ended; at most one waits.

Pure: times are arguments, as text in the stored form, whose order is the order of times.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from .occurrences import CronTimes, IntervalTimes, latest_times, next_time
from .records import Record, later

__all__ = [
    "CATCH_UP_MAX",
    "CatchUp",
    "Due",
    "Overlap",
    "ScheduleRepository",
    "ScheduleState",
    "ScheduleStatus",
    "WorkflowSchedule",
    "due_runs",
    "scheduled_run_id",
]

CATCH_UP_MAX = 100
"""Of the times that were missed, the newest so many are caught up at most: each is a run."""

_LATE_SECONDS = 60.0
"""A time that is later than this was missed: a worker that is only busy is faster."""


class CatchUp(StrEnum):
    """Which times are caught up that passed while the worker was away: none, only the last one, or all."""

    NONE = "none"
    ONE = "one"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a time whose run before has not ended.

    It is skipped, its run is started all the same, or it waits until the run before has ended. At most one waits;
    while one does, others are skipped.
    """

    SKIP = "skip"
    ALLOW = "allow"
    QUEUE = "queue"


class WorkflowSchedule(Record, frozen=True):
    """When to start runs of a workflow, and with what.

    `bot` is the name of a bot that gets a direct message of type `workflow.start` about each run, to open it. A run
    has `input` in its context, under that name, and the schedule and the time in its `trigger_payload`; both make
    its id.
    """

    id: str
    workflow_id: str
    times: CronTimes | IntervalTimes
    input: Any = None
    concurrency_key: str | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    catch_up: CatchUp = CatchUp.ONE
    overlap: Overlap = Overlap.SKIP
    bot: str | None = None


class ScheduleStatus(Record, frozen=True):
    """A schedule, and how far it is.

    `next_at` is the next time, None while it is paused, or if there is none. `queued_at` is the time that waits for
    the end of the last run. `fired` counts runs that were started, and `skipped` times whose run was not, because
    another one had not ended. `error` says why it starts nothing any more.
    """

    id: str
    schedule: WorkflowSchedule
    paused: bool
    next_at: str | None
    queued_at: str | None
    last_at: str | None
    last_run_id: str | None
    fired: int
    skipped: int
    error: str | None
    created_at: str
    created_by: str | None


class ScheduleState(msgspec.Struct, frozen=True):
    """What changes when a schedule starts runs; `anchor` is from when an interval is counted."""

    anchor: str
    next_at: str | None
    queued_at: str | None = None
    fired: int = 0
    skipped: int = 0


class Due(msgspec.Struct, frozen=True):
    """The times whose runs are to be started, in their order, and the state after that."""

    times: list[str]
    state: ScheduleState


def due_runs(schedule: WorkflowSchedule, state: ScheduleState, *, now: str, busy: bool) -> Due:
    """Return which runs of a schedule are to be started at `now`; `busy` if its last run has not ended.

    Raises InvalidValue if its times cannot be told any more.
    """
    times: list[str] = []
    queued, skipped, next_at = state.queued_at, state.skipped, state.next_at
    if queued is not None and not busy:
        times, queued, busy = [queued], None, True
    if next_at is not None and next_at <= now:
        for time in _caught_up(schedule, state.anchor, next_at, now):
            if schedule.overlap is Overlap.ALLOW or not busy:
                times.append(time)
                busy = True
            elif schedule.overlap is Overlap.QUEUE and queued is None:
                queued = time
            else:
                skipped += 1
        next_at = next_time(schedule.times, state.anchor, now)
    return Due(times, ScheduleState(state.anchor, next_at, queued, state.fired + len(times), skipped))


def _caught_up(schedule: WorkflowSchedule, anchor: str, first: str, now: str) -> list[str]:
    """Return the times from the first due one until now, in order, as far as they are caught up."""
    most = CATCH_UP_MAX if schedule.catch_up is CatchUp.ALL else 1
    found = latest_times(schedule.times, anchor, first, now, most)
    if schedule.catch_up is CatchUp.NONE:
        return [time for time in found if later(time, _LATE_SECONDS) >= now]
    return found


def scheduled_run_id(schedule_id: str, time: str) -> str:
    """Return the id of the run that a schedule starts at a time."""
    return f"{schedule_id}@{time}"


class ScheduleRepository(Protocol):
    """The part of a `WorkflowRepository` that keeps schedules."""

    async def save_schedule(self, schedule: WorkflowSchedule) -> ScheduleStatus:
        """Insert or replace a schedule by id; from then on it starts runs, until it is paused or deleted.

        Each of its times starts one run at most, whatever is killed, and however the clock is set. New times begin
        after now; if they stay, so does the next one. The counts stay. Repeating the call changes nothing.

        Raises InvalidValue for times that never come, NotFound for an unknown workflow or bot, and InvalidValue for
        a cron line if the package that reads them is not installed where the worker runs.
        """

    async def get_schedule(self, schedule_id: str) -> ScheduleStatus | None:
        """Return a schedule by id, and how far it is."""

    async def list_schedules(
        self, workflow_id: str | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[ScheduleStatus]:
        """List schedules by id, of one workflow or of all."""

    async def get_schedule_times(self, schedule_id: str, count: int = 5) -> list[str]:
        """Return the next times of a schedule, at most 1000, also if it is paused. Raises NotFound."""

    async def pause_schedule(self, schedule_id: str, paused: bool = True) -> ScheduleStatus:
        """Pause a schedule, or with `paused=False` resume it with the first time after now.

        Times that pass meanwhile are not caught up. Repeating the call changes nothing. Raises NotFound.
        """

    async def delete_schedule(self, schedule_id: str) -> bool:
        """Delete a schedule; return False if it does not exist. The runs that it started stay."""
