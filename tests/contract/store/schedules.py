"""A workflow with two schedules, a clock that stands, and what is due by it."""

from __future__ import annotations

from datetime import UTC, datetime

from bus.model.occurrences import CronTimes, IntervalTimes
from bus.model.records import WORKER_ID, WORKER_NAME, GlobalOwner, WorkflowDefinition
from bus.model.repository import Started, StartScheduled, Store
from bus.model.schedules import WorkflowSchedule

W = WorkflowDefinition(id="w", name="w", owner=GlobalOwner())

CRON = WorkflowSchedule(id="cron", workflow_id="w", times=CronTimes(line="* * * * *"))
INTERVAL = WorkflowSchedule(id="interval", workflow_id="w", times=IntervalTimes(seconds=60))


class Clock:
    now = datetime(2026, 6, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


async def start_due(store: Store) -> Started:
    [started] = (await store.log.apply([StartScheduled(100, WORKER_ID, WORKER_NAME, "")])).answers
    assert isinstance(started, Started)
    return started
