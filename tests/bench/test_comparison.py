"""What is made of a comparison's figures: the count of messages, sums, goals and tables, without any process."""

from __future__ import annotations

import json

import pytest

from bench.causes import CAUSES
from bench.figures import Spread
from bench.goals import BACKLOG, GOALS, judge
from bench.messages import BODY_BYTES, Content, Tally, read, value, write
from bench.names import BEFORE, BUS, FRAMES, HALF_RATE, JETSTREAM_SYNCING, ONE_TO_ONE_100, PAIRS, SQLITE
from bench.results import LIMITS, Calibration, Failure, Measured, NotRun, Report, rows
from bench.roles import Taken
from bench.table import page


def content(sender: int, number: int) -> Content:
    return read(write(sender, number, 0))


def measured(workload: str, system: str, round_number: int = 1, **figures: float) -> Measured:
    return Measured(workload=workload, system=system, round=round_number, load_before=1.0, figures=figures)


def report(*found: Measured) -> Report:
    return Report(machine={}, versions={}, promises={FRAMES: "synced"}, measured=list(found))


# ── The message, and the count ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("sender", "number", "due"), [(1, 1, 0), (99, 10_000_000, 1 << 62), (0, 1, 123_456)])
def test_a_body_has_one_size_and_one_form(sender: int, number: int, due: int) -> None:
    body = write(sender, number, due)
    assert len(body) == BODY_BYTES
    assert json.loads(body) == value(sender, number, due)
    assert read(body).due == due


@pytest.mark.parametrize(
    ("numbers", "got", "repeated", "out_of_order"),
    [
        ([1, 2, 3], 3, 0, 0),
        ([1, 1, 2], 2, 1, 0),
        ([1, 3, 2], 3, 0, 1),
        ([1, 3, 3, 2, 2], 3, 2, 1),
        ([3], 1, 0, 0),
        ([], 0, 0, 0),
    ],
)
def test_a_message_counts_once(numbers: list[int], got: int, repeated: int, out_of_order: int) -> None:
    tally = Tally()
    for number in numbers:
        tally.got([content(7, number)], 5)
    assert (len(tally), tally.repeated, tally.out_of_order) == (got, repeated, out_of_order)


def test_senders_count_for_themselves() -> None:
    tally = Tally()
    tally.got([content(1, 1), content(2, 1), content(1, 2), Content()], 5)
    assert (len(tally), tally.repeated) == (3, 0)


def test_what_was_taken_is_not_counted_again() -> None:
    tally = Tally()
    tally.got([content(1, 1)], 5)
    taken = Taken.of([tally], 9)
    assert (taken.counts, taken.began, taken.ended, list(taken.latencies)) == ([1], 5, 9, [5])
    tally.got([content(1, 1), content(1, 2)], 11)
    again = Taken.of([tally], 12)
    assert (again.counts, again.repeated, again.began) == ([1], 1, 11)


# ── Sums and goals ───────────────────────────────────────────────────────────────────────────────────────


def test_rounds_are_summed_up() -> None:
    found = rows(
        [
            measured("one to one", FRAMES, 1, rate=10.0),
            measured("one to ten", FRAMES, 1, rate=1.0),
            measured("one to one", "other", 1, rate=5.0),
            measured("one to one", FRAMES, 2, rate=30.0),
            measured("one to one", FRAMES, 3, rate=20.0, extra=1.0),
        ]
    )
    assert [(row.workload, row.system, row.rounds) for row in found] == [
        ("one to one", FRAMES, 3),
        ("one to one", "other", 1),
        ("one to ten", FRAMES, 1),
    ]
    assert found[0].figures == {"rate": Spread(20.0, 10.0, 30.0), "extra": Spread(1.0, 1.0, 1.0)}


def test_a_goal_is_met_or_not_or_not_measured() -> None:
    found = report(
        measured(ONE_TO_ONE_100, FRAMES, rate=70_000.0, loop_us=4.0, threads_us=5.0),
        measured(ONE_TO_ONE_100, BUS, rate=63_000.0),
        measured(ONE_TO_ONE_100, BEFORE, rate=40_000.0, loop_us=12.0, threads_us=6.0),
        measured(SQLITE, LIMITS, rate=140_000.0),
        measured(ONE_TO_ONE_100, JETSTREAM_SYNCING, rate=7_000.0),
        measured(PAIRS, FRAMES, rate=30_000.0),
        measured(PAIRS, BEFORE, rate=20_000.0),
        measured(HALF_RATE, FRAMES, p99_ms=12.0),
        measured(HALF_RATE, BEFORE, p99_ms=60.0),
        measured(BACKLOG, FRAMES, rate=1.0, memory_before_mib=100.0, memory_most_mib=200.0),
    )
    before = "against the version before"
    expected = {
        "one to one, against SQLite alone": ("at least 0.65", 0.5, False),
        f"one to one, the worker's processor time for a message, {before}": ("at most 0.55", 0.5, True),
        f"{ONE_TO_ONE_100}, against JetStream that syncs": ("at least 1.5", 10, True),
        "one to one, batches of 1,000, against JetStream that syncs": ("at least 1.5", None, None),
        f"{PAIRS}, {before}": ("at least 1.7", 1.5, False),
        "half of the top rate, p99": ("at most 10 ms", 12, False),
        f"half of the top rate, p99, {before}": ("at most 0.25", 0.2, True),
        "one to one, bus against frames": ("at least 0.9", 0.9, True),
        f"{BACKLOG}, drained, {before}": ("at least 2", None, None),
        f"{BACKLOG}, memory while it is drained, against its start": ("at most 1.5", 2, False),
    }
    verdicts = {each.name: (each.goal, each.figure, each.met) for each in judge(found)}
    assert {name: verdicts[name] for name in expected} == expected


def test_a_processor_time_of_one_half_is_not_judged() -> None:
    found = report(
        measured(ONE_TO_ONE_100, FRAMES, loop_us=4.0, threads_us=5.0),
        measured(ONE_TO_ONE_100, BEFORE, loop_us=12.0),
    )
    assert {each.met for each in judge(found)} == {None}


def test_causes_are_those_of_goals() -> None:
    goals = [goal.name for goal in GOALS]
    assert len(set(goals)) == len(goals)
    assert CAUSES.keys() <= set(goals)


def test_what_an_earlier_run_found_is_kept_and_named_where_it_is_missing() -> None:
    before = report(
        measured("restart", FRAMES, rate=1.0), measured("one", FRAMES, rate=2.0), measured("gone", FRAMES)
    )
    found = report(measured("one", FRAMES, rate=3.0))
    found.keep(before, {"restart", "one", "other"})
    assert [(each.workload, each.figures) for each in found.measured] == [
        ("one", {"rate": 3.0}),
        ("restart", {"rate": 1.0}),
    ]
    assert found.earlier == ["restart"]


def test_the_page_shows_everything() -> None:
    found = report(
        measured("one to one", FRAMES, rate=50_000.0, batch_messages=1000.0),
        measured("one to one", "other", 1, rate=5_000.0),
        measured("one to one", "other", 2, rate=15_000.0),
        measured("SQLite, 4096 rows", LIMITS, rate=100_000.0),
    )
    found.not_run.append(NotRun("absent", "it is not installed"))
    found.failures.append(Failure(workload="one to ten", system="lossy", why="2 were due, 1 came"))
    found.promises["other"] = "written, not synced"
    found.batches["other"] = "atomic"
    found.earlier.append("restart")
    for moment, stored in (("start", 140_000.0), ("end", 133_000.0)):
        speed = Calibration(
            moment=moment, load=0.5, sqlite_rows=stored, loop_ns=30.0, fdatasync_p50_ms=0.2, commit_p50_ms=0.3
        )
        found.calibrations.append(speed)
    text = page(found, judge(found), ["a.png"])
    assert "| one to one | posthouse, frames | synced | 50,000 |  |  |  | 0.50 | 1,000 messages a commit |" in text
    assert "| one to one | other | written, not synced | 10,000 (5,000 to 15,000) |  |  | 0.20 | 0.10 |  |" in text
    assert "| other | written, not synced | nothing | the last two minutes | atomic |" in text
    assert "From an earlier run: restart." in text
    assert "| absent | it is not installed |" in text
    assert "| one to ten | lossy | 2 were due, 1 came |" in text
    assert "](a.png)" in text
    assert "| the machine by itself | at the start | at the end |" in text
    assert "| SQLite alone, 4,096 rows in a transaction, rows a second | 140,000 | 133,000 |" in text
    assert text.index("## Goals") < text.index("| fdatasync, p50 ms | 0.20 | 0.20 |") < text.index("| goal |")
