"""What pages say of the comparison's figures: who is faster, like beside like, and only what the report says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.causes import CAUSES
from bench.goals import judge
from bench.names import (
    BEFORE,
    BUS,
    FRAMES,
    JETSTREAM_SYNCING,
    ONE_TO_ONE_100,
    ONE_TO_ONE_SINGLES,
    PUBLISH_100,
    PUBLISH_1000,
    PUBLISH_SINGLES,
    REDIS_SYNCING,
    SQLITE,
)
from bench.plots import PICTURES
from bench.results import LIMITS, Calibration, Measured, Report
from bench.table import page
from bench.words import fill_in, words
from bench.workloads import MEANING, WORKLOADS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "performance"


def report(*rates: tuple[str, str, float]) -> Report:
    found = [
        Measured(workload=workload, system=system, round=1, load_before=1.0, figures={"rate": rate})
        for workload, system, rate in rates
    ]
    return Report(machine={}, versions={}, promises={}, measured=found)


# ── Who is faster ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (30_000.0, 10_000.0, "posthouse is 3.0 times as fast as JetStream"),
        (10_000.0, 25_000.0, "JetStream is 2.5 times as fast as posthouse"),
        (10_000.0, 10_500.0, "posthouse and JetStream are equal within a tenth"),
        (10_500.0, 10_000.0, "posthouse and JetStream are equal within a tenth"),
    ],
)
def test_the_faster_one_is_named(ours: float, theirs: float, said: str) -> None:
    found = report((PUBLISH_1000, BUS, ours), (PUBLISH_1000, JETSTREAM_SYNCING, theirs))
    assert f"**Batches of 1,000**, through the Python clients: Publishing, {said}." in words(found)["headline"]


def test_like_is_set_beside_like() -> None:
    found = report(
        (PUBLISH_100, BUS, 40_000.0), (PUBLISH_SINGLES, JETSTREAM_SYNCING, 3_000.0), (PUBLISH_100, FRAMES, 50_000.0)
    )
    assert "- **" not in words(found)["headline"]
    assert words(found)["short"].count("\n") == 1


def test_every_system_that_was_measured_is_set_beside() -> None:
    found = report(
        (PUBLISH_SINGLES, BUS, 20_000.0),
        (PUBLISH_SINGLES, JETSTREAM_SYNCING, 2_000.0),
        (PUBLISH_SINGLES, REDIS_SYNCING, 40_000.0),
        (ONE_TO_ONE_SINGLES, BUS, 9_000.0),
        (ONE_TO_ONE_SINGLES, JETSTREAM_SYNCING, 3_000.0),
    )
    [sentence] = [each for each in words(found)["headline"].splitlines() if each.startswith("- ")]
    assert "Publishing, posthouse is 10.0 times as fast as JetStream" in sentence
    assert "one to one, posthouse is 3.0 times as fast as JetStream" in sentence
    assert "Publishing, Redis is 2.0 times as fast as posthouse" in sentence
    assert "| single messages, many in flight | 20,000 | 2,000 | 10.0 |" in words(found)["short"]


def test_what_was_not_measured_is_left_out() -> None:
    parts = words(report())
    assert "- **" not in parts["headline"]
    assert parts["headline"].endswith("| one to one, batches of 1,000 |\n")
    assert parts["missed"].splitlines()[-1].startswith("| ---")
    only = words(report((PUBLISH_100, FRAMES, 50_000.0)))["headline"]
    assert "| messages a second, synced | posthouse, frames |\n" in only
    assert "| publish, batches of 100 | 50,000 |\n" in only


def test_the_version_before_is_set_beside() -> None:
    found = report(
        (PUBLISH_100, FRAMES, 60_000.0),
        (PUBLISH_100, BEFORE, 40_000.0),
        (ONE_TO_ONE_100, FRAMES, 50_000.0),
        (ONE_TO_ONE_100, BEFORE, 25_000.0),
    )
    found.versions[BEFORE] = "abcdef0"
    said = "commit abcdef0: publish, batches of 100: 1.50; one to one, batches of 100: 2.00."
    assert f"- **Today's rate divided by that of the version before**, {said}" in words(found)["headline"]


def test_a_missed_goal_has_its_cause() -> None:
    found = report((ONE_TO_ONE_100, FRAMES, 10_000.0), (SQLITE, LIMITS, 100_000.0))
    cause = CAUSES["one to one, against SQLite alone"]
    assert f"| one to one, against SQLite alone | at least 0.65 | 0.10 | {cause} |" in words(found)["missed"]


def test_the_machine_is_named_with_its_own_speed() -> None:
    found = report((PUBLISH_100, FRAMES, 1.0))
    for moment, stored in (("start", 140_000.0), ("end", 133_000.0)):
        speed = Calibration(
            moment=moment, load=0.5, sqlite_rows=stored, loop_ns=30.0, fdatasync_p50_ms=0.2, commit_p50_ms=0.3
        )
        found.calibrations.append(speed)
    said = "Rows a second of SQLite alone: 140,000 at the start, 133,000 at the end."
    assert said in words(found)["headline"]


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    text = "before\n<!-- begin short (made) -->\nold\ntext\n<!-- end short -->\nafter\n"
    filled = fill_in(text, {"short": r"a \1 new one", "missed": "-"})
    assert filled == "before\n<!-- begin short (made) -->\na \\1 new one\n<!-- end short -->\nafter\n"
    assert fill_in(filled, {"short": r"a \1 new one"}) == filled
    assert fill_in(text.replace("old\ntext\n", ""), {"short": "new"}) == fill_in(text, {"short": "new"})


def test_every_workload_has_its_meaning() -> None:
    assert MEANING.keys() == WORKLOADS.keys()


def test_pages_say_what_the_report_says() -> None:
    """`python -m bench --rewrite` makes it so."""
    found = msgspec.json.decode((FOLDER / "comparison.json").read_bytes(), type=Report)
    assert (FOLDER / "comparison.md").read_text(encoding="utf-8") == page(found, judge(found), PICTURES)
    for file, parts in ((ROOT / "README.md", ["short"]), (FOLDER / "README.md", ["headline", "missed"])):
        text = file.read_text(encoding="utf-8")
        assert all(f"-->\n{words(found)[name]}\n<!-- end {name} -->" in text for name in parts)
        assert fill_in(text, words(found)) == text
