"""The benchmark of runs that wait: a very short run of it. Nothing here looks at how long anything took."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from bench.waiting import Report, words
from bench.words import fill_in

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 100.0
"""The longest that a run may take: it is a few seconds, and an end is needed all the same."""


def test_all_runs_are_woken_and_end_once() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.waiting", "--runs", "7", "--rest", "0.2", "--sleep", "4"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for figure in (
        "memory of the bot",
        "processor time of the worker",
        "a request to the same bot",
        "until 3 have ended that are woken by a person",
        "until 2 have ended that are woken by a signal",
        "until 2 have ended that are woken by a time",
        "7 runs have ended, each once",
    ):
        assert figure in ended.stdout


def test_the_page_says_what_the_json_says() -> None:
    folder = ROOT / "docs" / "performance"
    report = msgspec.json.decode((folder / "waiting.json").read_bytes(), type=Report)
    page = (folder / "waiting.md").read_text(encoding="utf-8")
    assert "<!-- begin waiting " in page
    assert fill_in(page, words(report)) == page, "make bench-waiting OPTIONS=--rewrite"
