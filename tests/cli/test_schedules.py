"""`posthouse schedules`."""

from __future__ import annotations

from bus.model.records import parse_timestamp

from .executing import define
from .terminal import Posthouse


def test_a_schedule_from_its_beginning_to_its_end(posthouse: Posthouse) -> None:
    define(posthouse, "nightly-report")
    line = ["--cron", "30 2 * * *", "--timezone", "Europe/Berlin"]
    shown = posthouse.answer("schedules", "add", "nightly", "nightly-report", *line, "--input", '{"n": 1}')
    assert shown.startswith("schedule nightly is saved, and starts a run at 20")
    [listed] = posthouse.json("schedules", "list", "--workflow", "nightly-report")
    assert listed["schedule"] == {
        "id": "nightly",
        "workflow_id": "nightly-report",
        "times": {"type": "cron", "line": "30 2 * * *", "timezone": "Europe/Berlin"},
        "input": {"n": 1},
        "concurrency_key": None,
        "attributes": {},
        "catch_up": "one",
        "overlap": "skip",
        "bot": None,
    }
    times = posthouse.answer("schedules", "next", "nightly", "--count", "3").splitlines()
    assert len(times) == 3
    assert {parse_timestamp(time).hour for time in times} <= {0, 1}
    rows = posthouse.answer("schedules").splitlines()
    assert rows[0].split() == ["schedule", "workflow", "times", "status", "next", "last", "fired", "skipped"]
    row = next(row for row in rows if row.startswith("nightly "))
    assert row.split()[1:8] == ["nightly-report", "30", "2", "*", "*", "*", "Europe/Berlin"]
    assert row.split()[8] == "active"
    assert posthouse.answer("schedules", "pause", "nightly") == "schedule nightly is paused\n"
    assert posthouse.json("schedules", "list")[0]["next_at"] is None
    assert posthouse.answer("schedules", "resume", "nightly").startswith("schedule nightly is resumed, and starts")
    assert posthouse.answer("schedules", "remove", "nightly") == "schedule nightly is deleted; its runs stay\n"
    for command in ("remove", "pause", "next"):
        assert posthouse.refusal("schedules", command, "nightly") == (
            1,
            "posthouse: no schedule 'nightly'; 'posthouse schedules' lists them",
        )


def test_what_is_no_time_is_refused(posthouse: Posthouse) -> None:
    define(posthouse, "refusing")
    code, text = posthouse.refusal("schedules", "add", "s", "refusing", "--cron", "every day")
    assert code == 1
    assert "'every day' is not a cron line" in text
    assert posthouse.refusal("schedules", "add", "s", "nothing", "--every", "1h")[0] == 1
    for wrong in (
        [],
        ["--every", "1h", "--cron", "* * * * *"],
        ["--every", "soon"],
        ["--every", "1h", "--timezone", "UTC"],
        ["--every", "1h", "--input", "{"],
    ):
        assert posthouse.run("schedules", "add", "s", "refusing", *wrong).returncode == 2
