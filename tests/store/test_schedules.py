"""A schedule that cannot be read any more stops, and others go on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from store import open_store

from ..contract.store.schedules import CRON, INTERVAL, Clock, W, start_due

pytestmark = pytest.mark.anyio


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
