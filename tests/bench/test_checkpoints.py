"""The benchmark of checkpoints: a very short run of it for posthouse alone, and what it makes of its figures.

Nothing here looks at how long anything took.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.checkpoints.figures import Plan, Report, System, Turn, compare
from bench.checkpoints.loads import PAYLOAD_BYTES, Alone, Run, Window, payload
from bench.checkpoints.page import table_lines, verdict, write
from bench.figures import Latency, Spread

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 100.0
"""The longest that the run may take: it is about eight seconds, and an end is needed all the same."""

LIMIT = "SQLite, one row a commit"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """Run the benchmark once, with one short turn of two systems; give what it says, and its JSON."""
    file = tmp_path_factory.mktemp("bench") / "checkpoints.json"
    only = ["--only", "posthouse, run.step", "--only", LIMIT]
    ended = subprocess.run(
        [sys.executable, "-m", "bench.checkpoints", "--quick", "--seconds", "0.2", *only, "--json", str(file)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout, json.loads(file.read_bytes())


def test_it_completes_and_loses_nothing(run: tuple[str, Any]) -> None:
    told, report = run
    ours, limit = report["turns"]
    assert ours["kept"] == ours["steps"] > 64
    assert limit["kept"] == limit["steps"] > 0
    assert list(ours["per_second"]) == ["1", "8", "64"]
    assert list(limit["per_second"]) == ["1"]
    assert ours["alone"]["steps"] == 10 * ours["alone"]["run"]["count"]
    assert " 0 of them are not in their files" in " ".join(told.split())


def test_it_says_on_what_it_ran(run: tuple[str, Any]) -> None:
    report = run[1]
    assert report["machine"]["cpu_count"] >= 1
    assert {"posthouse", "python", "sqlite", "zeromq"} <= report["versions"].keys()
    assert report["durability"] == "journal_mode=WAL synchronous=FULL"
    assert str(ROOT) not in json.dumps(report)


# ── What is made of the figures ──────────────────────────────────────────────────────────────────────────

OURS = System("posthouse", "run.step", "all of it")
STORE = System("posthouse", "store", "all of it, too")
RIVAL = System("other", "steps", "some of it", rival_of="run.step")
DISK = System("disk", "alone", "a limit", limit=True)


def turn(system: System, round: int, rate: float, *, kept: int = 20) -> Turn:
    took = Latency(count=10, p50_ms=2.0, p99_ms=3.0, max_ms=4.0)
    per_second = {1: rate} if system.limit else {1: rate, 64: rate * 10}
    return Turn(
        round=round,
        system=system,
        load_before=1.0,
        alone=Alone(took, took, 10),
        per_second=per_second,
        cpu_us=dict.fromkeys(per_second, 100.0),
        steps=20,
        kept=kept,
    )


def report(*turns: Turn) -> Report:
    systems = list(dict.fromkeys(each.system for each in turns))
    plan = Plan(rounds=2, runs=(1, 64), warm_seconds=0, seconds=1, alone_runs=1, alone_steps=10)
    return Report(
        machine={}, versions={}, durability="", plan=plan, summary=compare(systems, turns), turns=list(turns)
    )


def test_a_ratio_is_that_of_the_same_round() -> None:
    found = report(
        turn(OURS, 1, 100), turn(RIVAL, 1, 10), turn(DISK, 1, 200), turn(RIVAL, 2, 40), turn(OURS, 2, 200),
        turn(DISK, 2, 100),
    ).summary  # fmt: skip
    ours, rival, disk = found
    assert ours.ratio == {1: Spread(1.0, 1.0, 1.0), 64: Spread(1.0, 1.0, 1.0)}
    assert rival.ratio[64] == Spread(median=7.5, lowest=5.0, highest=10.0)
    assert rival.per_second[64] == Spread(median=250.0, lowest=100.0, highest=400.0)
    assert disk.ratio == {1: Spread(median=1.25, lowest=0.5, highest=2.0)}


def test_what_was_said_to_be_kept_and_is_not_there_is_seen() -> None:
    assert report(turn(OURS, 1, 1, kept=21)).is_clean
    lossy = report(turn(OURS, 1, 1), turn(RIVAL, 1, 1, kept=19))
    assert not lossy.is_clean
    assert [each.lost for each in lossy.summary] == [0, 1]


def test_the_goal_is_about_every_rival() -> None:
    met = report(turn(OURS, 1, 100), turn(RIVAL, 1, 10), turn(DISK, 1, 999))
    assert met.goal_ratio == 10.0
    assert (verdict(met) or "").endswith("is met: 10.0 times other, steps (by run.step).")
    missed = verdict(report(turn(OURS, 1, 99), turn(RIVAL, 1, 10)))
    assert (missed or "").endswith("is NOT MET: 9.9 times other, steps (by run.step).")
    assert verdict(report(turn(OURS, 1, 99), turn(DISK, 1, 10))) is None


def test_a_rival_is_set_against_its_like() -> None:
    saver = System("other", "saver", "some of it", rival_of="store")
    found = report(turn(OURS, 1, 100), turn(STORE, 1, 300), turn(saver, 1, 20))
    assert [each.against.way for each in found.summary] == ["run.step", "run.step", "store"]
    assert found.summary[2].ratio[64].median == 15.0
    assert found.goal_ratio == 15.0
    assert report(turn(saver, 1, 20), turn(STORE, 1, 300)).goal_ratio == 15.0, "in whatever order"
    without = report(turn(OURS, 1, 100), turn(saver, 1, 20))
    assert without.summary[1].ratio[64].median == 5.0
    assert without.goal_ratio is None, "that is not what the goal is about"


def test_the_page_keeps_what_people_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.checkpoints.page._draw", lambda report, file: None)
    page = tmp_path / "page.md"
    marks = ("<!-- begin of the figures -->", "<!-- end of the figures -->")
    page.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n", encoding="utf-8")
    found = report(turn(OURS, 1, 100), turn(RIVAL, 1, 10), turn(DISK, 1, 5))
    write(found, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{marks[0]}\n")
    assert text.endswith(f"{marks[1]}\nafter\n")
    assert "old" not in text
    assert "\n".join(table_lines(found)) in text


def test_a_step_s_output_has_the_size_that_is_said() -> None:
    assert {len(json.dumps(payload(number), separators=(",", ":"))) for number in (0, 9999)} == {PAYLOAD_BYTES}
    run = Run("r", steps_max=2)
    assert [run() for _ in range(2) if run.more] == [payload(1), payload(2)]
    assert not run.more
    assert len(run.durations()) == 1


def test_the_time_that_counts_comes_when_every_run_is_at_work() -> None:
    window = Window(2, warm_seconds=1, seconds=2)
    runs = [Run("a", window=window), Run("b", window=window)]
    runs[0]()
    runs[0]()
    assert (window.first, runs[0].more) == (0, True)
    runs[1]()
    [begun] = runs[1].begun
    assert (window.first, window.last) == (begun + 1_000_000_000, begun + 3_000_000_000)
