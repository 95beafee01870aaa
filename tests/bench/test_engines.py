"""posthouse on PostgreSQL beside SQLite: a short run completes, and its page says what its report says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.engines import words
from bench.names import FRAMES, ON_QUORUM, ONE_TO_ONE_100
from bench.results import Measured, Report
from bench.words import fill_in

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 110.0


@pytest.mark.usefixtures("postgresql_node")
def test_a_short_run_completes_and_loses_nothing() -> None:
    short = ["--rounds", "1", "--seconds", "0.1", "--system", "posthouse on PostgreSQL, frames"]
    ended = subprocess.run(
        [sys.executable, "-m", "bench.engines", *short],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    assert "primary_us" in ended.stdout


def test_ratios_are_those_of_one_round() -> None:
    def measured(system: str, number: int, rate: float, loop_us: float) -> Measured:
        figures = {"rate": rate, "loop_us": loop_us, "threads_us": 1.0}
        return Measured(workload=ONE_TO_ONE_100, system=system, round=number, load_before=1.0, figures=figures)

    report = Report(
        machine={},
        versions={},
        promises={},
        measured=[
            measured(FRAMES, 1, 100, 9),
            measured(ON_QUORUM, 1, 50, 4),
            measured(FRAMES, 2, 1000, 19),
            measured(ON_QUORUM, 2, 900, 8),
        ],
    )
    lines = [line for line in words(report)["engines"].splitlines() if "goal" in line]
    assert [line.split("|")[-2].strip() for line in lines] == ["0.47 (0.45 to 0.50)", "0.70 (0.50 to 0.90)"]


def test_the_page_says_what_the_report_says() -> None:
    folder = ROOT / "docs" / "performance"
    report = msgspec.json.decode((folder / "postgresql.json").read_bytes(), type=Report)
    page = (folder / "postgresql.md").read_text(encoding="utf-8")
    assert "<!-- begin engines " in page
    assert fill_in(page, words(report)) == page, "make bench-engines OPTIONS=--rewrite"
