"""The version before, measured in turns with today's; and the load above which nothing is measured."""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench.comparison import Comparison, Plan
from bench.earlier import Earlier, unpack
from bench.machine import Busy, wait_until_quiet
from bench.names import BEFORE, FRAMES, HALF_RATE, ONE_TO_ONE_100
from bench.processes import BenchFailed
from bench.results import Report
from bench.systems import WithFrames
from bench.workloads import Scale

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *command: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    ended = subprocess.run(
        ["git", "-C", str(folder), *identity, *command], capture_output=True, text=True, check=True
    )
    return ended.stdout.strip()


@needs_git
def test_a_revision_is_unpacked_as_it_was_committed(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.joinpath("part").mkdir(parents=True)
    git(repository, "init", "-q")
    file = repository / "part" / "file"
    for text in ("first", "second"):
        file.write_text(text, encoding="utf-8")
        git(repository, "add", ".")
        git(repository, "commit", "-q", "-m", text)
    file.write_text("not committed", encoding="utf-8")
    assert unpack(repository, "HEAD~1", tmp_path / "first") == git(repository, "rev-parse", "--short", "HEAD~1")
    unpack(repository, "HEAD", tmp_path / "second")
    assert [(tmp_path / each / "part" / "file").read_text("utf-8") for each in ("first", "second")] == [
        "first",
        "second",
    ]
    assert git(repository, "status", "--short") == "M part/file"


@needs_git
def test_an_unknown_revision_is_named(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(BenchFailed, match="Needed a single revision"):
        unpack(tmp_path, "nowhere", tmp_path / "source")


def test_the_earlier_worker_is_measured_beside_todays_at_the_same_rate(tmp_path: Path) -> None:
    started = tmp_path / "started"
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{started}"\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)

    class Other(Earlier):
        """Today's worker, started by another program."""

        python = str(program)
        commit = "abcdef0"

    report = Report(machine={}, versions={}, promises={})
    scale = Scale(seconds=0.2, latency_seconds=0.1, deliveries=100, messages=300)
    plan = Plan(rounds=2, scale=scale, systems=[WithFrames, Other], workloads=[ONE_TO_ONE_100])
    Comparison(plan, report, Console(file=StringIO())).run()
    assert report.failures == []
    assert report.versions[BEFORE] == "abcdef0"
    assert len(started.read_text("utf-8").splitlines()) == 4  # two workloads in two rounds
    flows = [each.system for each in report.measured if each.workload == ONE_TO_ONE_100]
    assert flows == [FRAMES, BEFORE, BEFORE, FRAMES]
    asked = {(each.round, each.figures["asked_rate"]) for each in report.measured if each.workload == HALF_RATE}
    assert len(asked) == 2
    assert report.figure(ONE_TO_ONE_100, BEFORE, "loop_us") is not None


# ── The load ─────────────────────────────────────────────────────────────────────────────────────────────


def test_it_waits_until_the_machine_is_quiet() -> None:
    loads = iter([3.0, 2.0, 1.0])
    waits: list[float] = []
    wait_until_quiet(1.0, 60.0, look=lambda: next(loads), sleep=waits.append)
    assert len(waits) == 2


def test_it_does_not_wait_for_ever() -> None:
    waits: list[float] = []
    with pytest.raises(Busy, match=r"the load is 3, above 1\.5"):
        wait_until_quiet(1.5, 60.0, look=lambda: 3.0, sleep=waits.append)
    assert sum(waits) == 60
    with pytest.raises(Busy):
        wait_until_quiet(1.5, 0.0, look=lambda: 3.0, sleep=waits.append)
    assert sum(waits) == 60
