"""A schedule that cannot be read any more stops, and others go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus.model.occurrences import CronTimes, IntervalTimes
from bus.model.records import WORKER_ID, WORKER_NAME, GlobalOwner, WorkflowDefinition
from bus.model.repository import Started, StartScheduled, Store
from bus.model.schedules import WorkflowSchedule
from store import open_store

pytestmark = pytest.mark.anyio

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


async def test_a_schedule_that_cannot_be_read_any_more_stops_alone(path: Path) -> None:
    clock = Clock()
    async with open_store(str(path), clock=clock) as store:
        await store.workflows.save_definition(W)
        for schedule in (CRON, INTERVAL):
            await store.workflows.save_schedule(schedule)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "UPDATE workflow_schedules SET schedule = replace(schedule, 'UTC', 'Mars/Base') WHERE id = 'cron'"
            )
            connection.commit()
        clock.now += timedelta(minutes=5)
        assert [id.partition("@")[0] for id in (await start_due(store)).run_ids] == ["interval"]
        status = await store.workflows.get_schedule("cron")
        assert status is not None
        assert (status.next_at, status.fired) == (None, 0)
        assert "'Mars/Base' is not a time zone" in (status.error or "")
        again = await store.workflows.save_schedule(CRON)
        assert (again.error, again.next_at is None) == (None, False)
