"""What every WorkflowRepository does (docs/workflows.md): schedules start runs when their times have come."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import Conflict, InvalidTransition, InvalidValue, NotFound
from bus.model.filters import RunFilter
from bus.model.occurrences import CronTimes, IntervalTimes
from bus.model.records import CronTrigger, RunStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRepository
from bus.model.schedules import CatchUp, Overlap, WorkflowSchedule

from .conftest import Clock, Place
from .samples import definition, run

pytestmark = pytest.mark.anyio

MINUTE = 60.0


def schedule(id: str = "s", **fields: Any) -> WorkflowSchedule:
    return WorkflowSchedule(**{"id": id, "workflow_id": "w", "times": IntervalTimes(seconds=MINUTE), **fields})


async def ids(workflows: WorkflowRepository) -> list[str]:
    return [found.id for found in await workflows.list_all_runs()]


async def finish(workflows: WorkflowRepository, id: str) -> None:
    await workflows.update_run_status(id, RunStatus.COMPLETED)


async def test_a_schedule_starts_a_run_when_its_time_has_come(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    wanted = schedule(input={"n": 1}, concurrency_key="k", attributes={"kind": "nightly"})
    saved = await workflows.save_schedule(wanted)
    assert (saved.schedule, saved.next_at, saved.fired, saved.paused) == (wanted, clock.after(MINUTE), 0, False)
    await place.start_scheduled()
    assert await ids(workflows) == []
    clock.advance(MINUTE)
    for _ in range(2):
        await place.start_scheduled()
    time = clock.after(0)
    [found] = await workflows.list_runs("w")
    assert found == WorkflowRun(
        id=f"s@{time}",
        workflow_id="w",
        workflow_name="w",
        trigger_type="schedule",
        started_at=time,
        context={"input": {"n": 1}},
        trigger_payload={"schedule": "s", "at": time},
        concurrency_key="k",
        attributes={"kind": "nightly"},
    )
    assert await workflows.get_run_definition(found.id) == workflow
    status = await workflows.get_schedule("s")
    assert status is not None
    assert (status.next_at, status.last_at, status.last_run_id) == (clock.after(MINUTE), time, found.id)
    assert (status.fired, status.skipped) == (1, 0)


async def test_a_run_that_has_not_ended_is_not_overtaken(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    for overlap in Overlap:
        await workflows.save_schedule(schedule(overlap, overlap=overlap))
    for _ in range(3):
        clock.advance(MINUTE)
        await place.start_scheduled()
    started = await ids(workflows)
    assert [sum(id.startswith(f"{overlap}@") for id in started) for overlap in Overlap] == [1, 3, 1]
    queue = await workflows.get_schedule("queue")
    assert queue is not None
    assert (queue.queued_at, queue.skipped) == (clock.after(-MINUTE), 1)
    for id in started:
        await finish(workflows, id)
    await place.start_scheduled()
    assert set(await ids(workflows)) - set(started) == {f"queue@{clock.after(-MINUTE)}"}
    clock.advance(MINUTE)
    await place.start_scheduled()
    new = set(await ids(workflows)) - set(started)
    assert {id.partition("@")[0] for id in new} == {"skip", "allow", "queue"}


async def test_a_clock_that_is_set_starts_nothing_twice(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    await workflows.save_schedule(schedule(overlap=Overlap.ALLOW, catch_up=CatchUp.ALL))
    for seconds in (MINUTE, 5 * MINUTE, -3 * MINUTE, MINUTE, -600 * MINUTE, 600 * MINUTE, 2 * MINUTE):
        clock.advance(seconds)
        await place.start_scheduled()
    payloads = [found.trigger_payload["at"] for found in await workflows.list_runs("w")]
    assert len(payloads) == len(set(payloads)) == 6
    status = await workflows.get_schedule("s")
    assert status is not None
    assert status.fired == 6


@pytest.mark.parametrize(("catch_up", "runs"), [(CatchUp.NONE, 0), (CatchUp.ONE, 1), (CatchUp.ALL, 9)])
async def test_times_that_passed_are_caught_up(
    place: Place,
    workflows: WorkflowRepository,
    workflow: WorkflowDefinition,
    clock: Clock,
    catch_up: CatchUp,
    runs: int,
) -> None:
    times = IntervalTimes(seconds=10 * MINUTE)
    await workflows.save_schedule(schedule(catch_up=catch_up, overlap=Overlap.ALLOW, times=times))
    clock.advance(95 * MINUTE)
    await place.start_scheduled()
    assert len(await ids(workflows)) == runs
    status = await workflows.get_schedule("s")
    assert status is not None
    assert status.next_at == clock.after(5 * MINUTE)


async def test_a_schedule_is_saved_again(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    first = await workflows.save_schedule(schedule())
    clock.advance(30)
    assert await workflows.save_schedule(schedule()) == first, "repeating it changes nothing"
    changed = await workflows.save_schedule(schedule(input=2))
    assert (changed.next_at, changed.schedule.input) == (first.next_at, 2)
    later_on = await workflows.save_schedule(schedule(times=IntervalTimes(seconds=90)))
    assert later_on.next_at == clock.after(90)
    clock.advance(90)
    await place.start_scheduled()
    again = await workflows.save_schedule(schedule())
    assert (again.fired, again.next_at) == (1, clock.after(MINUTE))


async def test_a_schedule_is_paused_and_resumed(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    await workflows.save_schedule(schedule(catch_up=CatchUp.ALL))
    paused = await workflows.pause_schedule("s")
    assert (paused.paused, paused.next_at) == (True, None)
    assert await workflows.pause_schedule("s") == paused
    clock.advance(150)
    await place.start_scheduled()
    assert await ids(workflows) == []
    assert (await workflows.save_schedule(schedule(input=1))).paused, "a change does not let it go on"
    resumed = await workflows.pause_schedule("s", False)
    assert (resumed.paused, resumed.next_at) == (False, clock.after(30)), "nothing is caught up"
    assert await workflows.pause_schedule("s", False) == resumed


async def test_schedules_are_listed_and_deleted(
    workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    await workflows.save_definition(definition("v"))
    saved = [await workflows.save_schedule(schedule(id, workflow_id=of)) for id, of in (("b", "w"), ("a", "v"))]
    assert await workflows.list_schedules() == saved[::-1]
    assert await workflows.list_schedules("w") == saved[:1]
    assert await workflows.list_schedules(limit=1, offset=1) == saved[:1]
    assert await workflows.delete_schedule("b") is True
    assert await workflows.delete_schedule("b") is False
    assert await workflows.get_schedule("b") is None
    with pytest.raises(NotFound):
        await workflows.pause_schedule("b")
    with pytest.raises(NotFound):
        await workflows.get_schedule_times("b")


async def test_the_runs_of_a_deleted_schedule_stay_and_are_not_started_again(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    await workflows.save_schedule(schedule())
    clock.advance(MINUTE)
    await place.start_scheduled()
    started = await ids(workflows)
    await workflows.delete_schedule("s")
    clock.advance(-MINUTE)
    await workflows.save_schedule(schedule())
    clock.advance(MINUTE)
    await place.start_scheduled()
    assert await ids(workflows) == started, "this time started its run"


async def test_somebody_elses_run_with_the_id_keeps_none_from_being_started(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    await workflows.save_schedule(schedule(attributes={"of": "schedule"}))
    await workflows.create_run(run(f"s@{clock.after(MINUTE)}"))
    clock.advance(MINUTE)
    await place.start_scheduled()
    [started] = await workflows.list_all_runs(where=RunFilter(attributes={"of": "schedule"}))
    assert started.id != f"s@{clock.after(0)}"


async def test_the_next_times_are_told(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    await workflows.save_schedule(schedule(times=CronTimes(line="0 9 * * MON-FRI", timezone="Europe/Berlin")))
    await workflows.pause_schedule("s")
    assert await workflows.get_schedule_times("s", 3) == [f"2026-06-{day:02}T07:00:00.000000Z" for day in (1, 2, 3)]
    for wrong in (0, 1001):
        with pytest.raises(InvalidValue, match="count"):
            await workflows.get_schedule_times("s", wrong)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"times": CronTimes(line="this is no cron line")}, InvalidValue),
        ({"times": CronTimes(line="* * * * *", timezone="Mars/Base")}, InvalidValue),
        ({"times": IntervalTimes(seconds=0)}, InvalidValue),
        ({"id": ""}, InvalidValue),
        ({"id": "s" * 101}, InvalidValue),
        ({"attributes": {"a": ""}}, InvalidValue),
        ({"workflow_id": "nothing"}, NotFound),
        ({"bot": "nobody"}, NotFound),
    ],
    ids=str,
)
async def test_what_could_start_no_run_is_refused(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await workflows.save_schedule(schedule(**fields))
    assert await workflows.list_schedules() == []


async def test_a_definition_with_schedules_is_deleted_with_them_alone(
    workflows: WorkflowRepository, workflow: WorkflowDefinition
) -> None:
    await workflows.save_schedule(schedule())
    with pytest.raises(Conflict, match="1 schedules"):
        await workflows.delete_definition("w")
    assert await workflows.delete_definition("w", cascade=True) is True
    assert await workflows.list_schedules() == []


@pytest.mark.parametrize(
    "trigger",
    [CronTrigger(schedule="this is no cron line"), CronTrigger(schedule="* * * * *", timezone="Mars/Base")],
    ids=["line", "zone"],
)
async def test_a_definition_whose_cron_line_is_none_is_refused(
    workflows: WorkflowRepository, trigger: CronTrigger
) -> None:
    with pytest.raises(InvalidValue, match=r"not a cron line|not a time zone"):
        await workflows.save_definition(definition("w", triggers=(trigger,)))
    await workflows.save_definition(definition("w", triggers=(CronTrigger(schedule="30 8 * * MON-FRI"),)))


async def test_a_run_that_was_started_ends_like_any_other(
    place: Place, workflows: WorkflowRepository, workflow: WorkflowDefinition, clock: Clock
) -> None:
    await workflows.save_schedule(schedule())
    clock.advance(MINUTE)
    await place.start_scheduled()
    [id] = await ids(workflows)
    await finish(workflows, id)
    with pytest.raises(InvalidTransition):
        await workflows.update_run_status(id, RunStatus.RUNNING)
    assert await workflows.delete_run(id) is True
    await place.start_scheduled()
    assert await ids(workflows) == [], "its time has passed, whether it is kept or not"
