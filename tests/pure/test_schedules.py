"""Schedules: when their times are, also where clocks change, and which runs are due after a pause of the worker."""

from __future__ import annotations

import random
from itertools import islice, pairwise, takewhile
from typing import Any

import pytest

from bus.errors import InvalidValue
from bus.model.occurrences import CronTimes, IntervalTimes, check_times, latest_times, next_time, next_times
from bus.model.records import later
from bus.model.schedules import CATCH_UP_MAX, CatchUp, Overlap, ScheduleState, WorkflowSchedule, due_runs

NOON = "2026-06-01T12:00:00.000000Z"


def at(text: str) -> str:
    return f"{text}:00.000000Z"


def times_of(line: str, zone: str, start: str, end: str) -> list[str]:
    """Return the times of a line after one time and until another, without their seconds."""
    times = CronTimes(line=line, timezone=zone)
    found = list(takewhile(lambda time: time <= at(end), next_times(times, "", at(start))))
    assert latest_times(times, "", later(at(start), 0.000001), at(end), 10_000) == found, "both ways are the same"
    return [time[:16] for time in found]


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("30 2 * * *", ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]),
        ("0 3 * * *", ["2026-03-28T02:00", "2026-03-29T01:00", "2026-03-30T01:00"]),
        ("0 2,3 * * SUN", ["2026-03-29T01:00"]),
    ],
)
def test_a_time_of_the_hour_that_is_left_out_comes_right_after_it(line: str, times: list[str]) -> None:
    assert times_of(line, "Europe/Berlin", "2026-03-28T00:00", "2026-03-30T02:00") == times


@pytest.mark.parametrize(
    ("line", "times"),
    [
        ("30 2 * * *", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),
        ("0 3 * * *", ["2026-10-24T01:00", "2026-10-25T02:00", "2026-10-26T02:00"]),
        ("0 2,3 * * SUN", ["2026-10-25T00:00", "2026-10-25T02:00"]),
    ],
)
def test_a_time_of_the_hour_that_comes_twice_comes_once(line: str, times: list[str]) -> None:
    assert times_of(line, "Europe/Berlin", "2026-10-23T23:00", "2026-10-26T02:00") == times


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_what_comes_every_hour_comes_whenever_an_hour_has_passed(day: str) -> None:
    hours = times_of("0 * * * *", "Europe/Berlin", f"{day}T00:00", f"{day}T05:00")
    assert hours == [f"{day}T0{hour}:00" for hour in range(1, 6)]


@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_within_the_second_of_two_hours_nothing_comes_again(minute: int) -> None:
    times = CronTimes(line="30 2 * * *", timezone="Europe/Berlin")
    now = at(f"2026-10-25T01:{minute:02}")
    assert next_time(times, "", now) == at("2026-10-26T01:30")
    assert latest_times(times, "", at("2026-10-25T00:30"), now, 1) == [at("2026-10-25T00:30")]


def test_times_go_on_one_after_another_in_every_zone() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    for _ in range(60):
        zone = chance.choice(
            ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Antarctica/Troll"]
        )
        minute = chance.choice(["*", "*/17", "30", "0,45"])
        line = f"{minute} {chance.choice(['*', '2', '1-3', '*/5'])} * * *"
        start = later(at("2026-01-01T00:00"), chance.randrange(365 * 86_400))
        times = CronTimes(line=line, timezone=zone)
        found = list(islice(next_times(times, "", start), 40))
        assert all(one < other for one, other in pairwise([start, *found])), (line, zone, start)
        assert latest_times(times, "", found[0], found[-1], 1000) == found, (line, zone, start)
        again = [next_time(times, "", one) for one in found[:-1]]
        assert again == found[1:], (line, zone, start)


def test_a_time_before_a_change_by_half_an_hour_is_not_missed() -> None:
    times = CronTimes(line="30 */5 * * *", timezone="Australia/Lord_Howe")
    [first] = islice(next_times(times, "", at("2026-10-03T13:00")), 1)
    assert first == at("2026-10-03T14:00")
    assert latest_times(times, "", first, at("2026-10-03T14:01"), 1) == [first]
    assert latest_times(times, "", first, at("2026-10-03T19:00"), 9) == [first, at("2026-10-03T18:30")]


def test_the_latest_of_many_times_are_found_from_the_end() -> None:
    times = CronTimes(line="*/30 * * * *")
    assert latest_times(times, "", at("2001-01-01T00:00"), at("2026-01-01T00:10"), 2) == [
        at("2025-12-31T23:30"),
        at("2026-01-01T00:00"),
    ]
    assert latest_times(CronTimes(line="0 0 29 2 *"), "", at("2001-01-01T00:00"), at("2026-01-01T00:00"), 2) == [
        at("2020-02-29T00:00"),
        at("2024-02-29T00:00"),
    ]


def test_an_interval_is_counted_from_its_beginning() -> None:
    times = IntervalTimes(seconds=90)
    assert list(islice(next_times(times, NOON, NOON), 2)) == [later(NOON, 90), later(NOON, 180)]
    assert next_time(times, NOON, later(NOON, 90)) == later(NOON, 180)
    assert next_time(times, NOON, later(NOON, 100)) == later(NOON, 180)
    assert next_time(times, NOON, later(NOON, -1000)) == later(NOON, 90)
    assert latest_times(times, NOON, later(NOON, 90), later(NOON, 1000), 3) == [
        later(NOON, 90 * number) for number in (9, 10, 11)
    ]
    assert latest_times(times, NOON, later(NOON, 90), later(NOON, 89), 3) == []


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (CronTimes(line="this is no cron line"), "write minute, hour, day, month and weekday"),
        (CronTimes(line="* * * * * *"), "6 fields"),
        (CronTimes(line="61 * * * *"), "Bad minute"),
        (CronTimes(line="0 0 30 2 *"), "not a cron line"),
        (CronTimes(line="* * * * *", timezone="Mars/Base"), "use an IANA name"),
        (CronTimes(line="* * * * *", timezone="../../etc/passwd"), "use an IANA name"),
        (CronTimes(line="* * * * *", timezone=""), "use an IANA name"),
        (IntervalTimes(seconds=0.5), "must be 1 to"),
        (IntervalTimes(seconds=-1), "must be 1 to"),
        (IntervalTimes(seconds=float("inf")), "must be 1 to"),
    ],
    ids=str,
)
def test_times_that_never_come_are_refused(times: CronTimes | IntervalTimes, text: str) -> None:
    with pytest.raises(InvalidValue, match=text):
        check_times(times)


# ── What is due ──────────────────────────────────────────────────────────────────────────────────────────


def schedule(**fields: Any) -> WorkflowSchedule:
    return WorkflowSchedule(**{"id": "s", "workflow_id": "w", "times": IntervalTimes(seconds=60), **fields})


def state(**fields: Any) -> ScheduleState:
    return ScheduleState(**{"anchor": NOON, "next_at": minute(1), **fields})


def minute(number: float) -> str:
    return later(NOON, number * 60)


def test_nothing_is_due_before_its_time() -> None:
    due = due_runs(schedule(), state(), now=minute(0.99), busy=False)
    assert (due.times, due.state) == ([], state())


def test_a_time_is_due_once() -> None:
    due = due_runs(schedule(), state(), now=minute(1), busy=False)
    assert due.times == [minute(1)]
    assert due.state == state(next_at=minute(2), fired=1)
    assert due_runs(schedule(), due.state, now=minute(1), busy=False).times == []


@pytest.mark.parametrize("back", [1, 100, 100_000])
def test_a_clock_that_is_put_back_starts_nothing_again(back: int) -> None:
    due = due_runs(schedule(), state(), now=minute(1), busy=False)
    again = due_runs(schedule(), due.state, now=later(minute(1), -back), busy=False)
    assert (again.times, again.state) == ([], due.state)


@pytest.mark.parametrize(
    ("catch_up", "numbers"), [(CatchUp.NONE, []), (CatchUp.ONE, [9]), (CatchUp.ALL, list(range(1, 10)))]
)
def test_missed_times_are_caught_up_as_the_schedule_says(catch_up: CatchUp, numbers: list[int]) -> None:
    wanted = schedule(catch_up=catch_up, overlap=Overlap.ALLOW, times=IntervalTimes(seconds=600))
    due = due_runs(wanted, state(next_at=minute(10)), now=minute(95), busy=False)
    assert due.times == [minute(10 * number) for number in numbers]
    assert due.state.next_at == minute(100)


def test_a_worker_that_is_a_little_late_missed_nothing() -> None:
    wanted = schedule(catch_up=CatchUp.NONE, times=IntervalTimes(seconds=600))
    assert due_runs(wanted, state(next_at=minute(10)), now=minute(10.9), busy=False).times == [minute(10)]


@pytest.mark.parametrize("times", [IntervalTimes(seconds=1), CronTimes(line="* * * * *")], ids=["interval", "cron"])
def test_a_year_that_was_missed_is_caught_up_in_part(times: CronTimes | IntervalTimes) -> None:
    wanted = schedule(catch_up=CatchUp.ALL, overlap=Overlap.ALLOW, times=times)
    due = due_runs(wanted, state(), now=minute(365 * 1440), busy=False)
    assert len(due.times) == CATCH_UP_MAX
    assert due.times[-1] == minute(365 * 1440), "the latest ones"
    assert due.times == sorted(due.times)


@pytest.mark.parametrize(
    ("overlap", "starts", "queued", "skipped"),
    [(Overlap.SKIP, 0, None, 3), (Overlap.ALLOW, 3, None, 0), (Overlap.QUEUE, 0, minute(1), 2)],
)
def test_times_during_a_run_are_handled_as_the_schedule_says(
    overlap: Overlap, starts: int, queued: str | None, skipped: int
) -> None:
    wanted = schedule(overlap=overlap, catch_up=CatchUp.ALL)
    due = due_runs(wanted, state(), now=minute(3), busy=True)
    assert (len(due.times), due.state.queued_at, due.state.skipped) == (starts, queued, skipped)


def test_of_several_times_that_are_caught_up_only_one_starts_if_they_may_not_overlap() -> None:
    due = due_runs(schedule(catch_up=CatchUp.ALL), state(), now=minute(3), busy=False)
    assert (due.times, due.state.skipped) == ([minute(1)], 2)


def test_the_time_that_waits_starts_when_the_run_before_has_ended() -> None:
    wanted = schedule(overlap=Overlap.QUEUE)
    waiting = state(next_at=minute(3), queued_at=minute(1), fired=1)
    assert due_runs(wanted, waiting, now=minute(2), busy=True).times == []
    due = due_runs(wanted, waiting, now=minute(2), busy=False)
    assert (due.times, due.state.queued_at, due.state.fired) == ([minute(1)], None, 2)
    later_on = due_runs(wanted, waiting, now=minute(3), busy=False)
    assert (later_on.times, later_on.state.queued_at) == ([minute(1)], minute(3)), "the next one waits again"


def test_times_end_with_the_calendar() -> None:
    found = list(next_times(CronTimes(line="0 0 29 2 */7"), "", at("2026-01-01T00:00")))
    assert found[0].startswith("2032-02-29")
    assert found[-1] < "9999"
