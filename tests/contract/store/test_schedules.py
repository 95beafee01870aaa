"""When schedules start runs, also where cron lines cannot be read: others go on, and operators are told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bus.errors import InvalidValue
from bus.model import occurrences
from bus.model.occurrences import IntervalTimes
from bus.model.records import CronTrigger, GlobalOwner, WorkflowDefinition
from bus.model.repository import Store
from bus.model.schedules import WorkflowSchedule

from ..conftest import StorePlace
from .schedules import CRON, INTERVAL, Clock, W, start_due

pytestmark = pytest.mark.anyio


def _told(store: Store) -> list[str]:
    return [warning for warning in store.warnings if "cron lines" in warning]


async def test_without_the_package_cron_lines_wait_and_others_go_on(
    store_place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with store_place.open(clock=clock) as store:
        assert _told(store) == []
        await store.workflows.save_definition(W)
        for schedule in (CRON, INTERVAL):
            await store.workflows.save_schedule(schedule)
    monkeypatch.setattr(occurrences, "CronSim", None)
    clock.now += timedelta(minutes=5)
    async with store_place.open(clock=clock) as store:
        [warning] = _told(store)
        assert warning.startswith("1 schedules start no runs: cron lines need the package cronsim")
        assert "pip install 'posthouse[schedules]'" in warning
        started = await start_due(store)
        assert [id.partition("@")[0] for id in started.run_ids] == ["interval"]
        assert started.next_seconds == 60.0
        with pytest.raises(InvalidValue, match=r"pip install 'posthouse\[schedules\]'"):
            await store.workflows.save_schedule(WorkflowSchedule(id="c", workflow_id="w", times=CRON.times))
        trigger = CronTrigger(schedule="this cannot be read")
        kept = WorkflowDefinition(id="v", name="v", owner=GlobalOwner(), triggers=(trigger,))
        await store.workflows.save_definition(kept)
        assert await store.workflows.get_definition("v") == kept
    monkeypatch.undo()
    async with store_place.open(clock=clock) as store:
        assert _told(store) == []
        assert [id.partition("@")[0] for id in (await start_due(store)).run_ids] == ["cron"], "it is caught up"


async def test_the_next_look_is_when_a_time_comes(store_place: StorePlace) -> None:
    clock = Clock()
    async with store_place.open(clock=clock) as store:
        assert (await start_due(store)).next_seconds is None
        await store.workflows.save_definition(W)
        await store.workflows.save_schedule(INTERVAL)
        clock.now += timedelta(seconds=15)
        assert (await start_due(store)).next_seconds == 45.0
        await store.workflows.pause_schedule("interval")
        assert (await start_due(store)).next_seconds is None


async def test_many_schedules_are_started_in_portions(store_place: StorePlace) -> None:
    clock = Clock()
    async with store_place.open(clock=clock) as store:
        await store.workflows.save_definition(W)
        for number in range(230):
            await store.workflows.save_schedule(
                WorkflowSchedule(id=f"{number}", workflow_id="w", times=IntervalTimes(seconds=60))
            )
        clock.now += timedelta(seconds=60)
        portions = [await start_due(store) for _ in range(3)]
        assert [len(portion.run_ids) for portion in portions] == [100, 100, 30]
        assert [portion.more for portion in portions] == [True, True, False]
