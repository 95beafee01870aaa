"""The benchmark of a stalled subscriber: a very short run of it, and what it makes of its figures.

Nothing here looks at how long anything took.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.figures import Account, Latency, Spread
from bench.phases import Phase, Stall
from bench.stalled import compare

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 100.0
"""The longest that the run may take: it is about ten seconds, and an end is needed all the same."""

BOTS, WARM, COUNTED = 50, 25, 25
"""With half a second that does not count, and half a second that does, at fifty messages a second."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """Run the benchmark once, with one short phase of each kind; give what it says, and its JSON."""
    file = tmp_path_factory.mktemp("bench") / "stalled.json"
    options = ["--quick", "--phase", "0.5", "--rounds", "1", "--json", str(file)]
    ended = subprocess.run(
        [sys.executable, "-m", "bench.stalled", *options],
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
    report = run[1]
    phases = report["phases"]
    assert [phase["stall"] for phase in phases] == [
        None, "never acks", None, "never reads", None, "is stopped", None
    ]  # fmt: skip
    due = (WARM + COUNTED) * len(phases)
    for name, bots in (("account", BOTS - 1), ("odd_account", 1)):
        found = report[name]
        assert (found["due"], found["delivered"]) == (due * bots, due * bots)
        assert (found["lost"], found["out_of_order"]) == (0, 0)
    for phase in phases:
        assert phase["latency"]["count"] >= COUNTED * (BOTS - 1)
        assert (phase["stored"]["count"], phase["late"]["count"]) == (COUNTED, COUNTED)


def test_the_stalls_are_real(run: tuple[str, Any]) -> None:
    for phase in run[1]["phases"]:
        if phase["stall"] is not None:
            filling = 0 if phase["stall"] == "never acks" else 64
            assert phase["backlog"] == WARM + COUNTED + filling


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what the kernel holds for a connection")
def test_the_kernel_holds_what_is_not_read(run: tuple[str, Any]) -> None:
    held = {phase["stall"]: phase["unsent_bytes"] for phase in run[1]["phases"]}
    assert held["never reads"] > 100_000
    assert held["is stopped"] > 100_000


def test_it_says_on_what_it_ran(run: tuple[str, Any]) -> None:
    report = run[1]
    assert report["machine"]["cpu_count"] >= 1
    assert {"posthouse", "python", "sqlite", "zeromq", "pyzmq"} <= report["versions"].keys()
    assert all(phase["load_before"] >= 0 for phase in report["phases"])
    assert str(ROOT) not in json.dumps(report)


def test_it_tells_of_each_phase_and_of_the_goal(run: tuple[str, Any]) -> None:
    told, report = run
    assert [line.split()[0] for line in told.splitlines()[:7]] == [f"{number}/7" for number in range(1, 8)]
    assert "0 lost, 0 out of order" in " ".join(told.split())
    verdict = "is met" if report["goal_met"] else "is NOT MET"
    assert f"without a stalled bot, {verdict}:" in " ".join(told.split())


# ── What is made of the figures ──────────────────────────────────────────────────────────────────────────


def phase(p99_ms: float, stall: Stall | None = None) -> Phase:
    latency = Latency(count=100, p50_ms=p99_ms / 2, p99_ms=p99_ms, max_ms=p99_ms)
    clean = Account(100, 100, 0, 0, 0)
    return Phase(
        round=1,
        stall=stall,
        load_before=0.0,
        latency=latency,
        stored=latency,
        late=latency,
        delivered_per_second=100.0,
        account=clean,
        backlog=0,
        unsent_bytes=None,
        caught_up_seconds=0.0,
        odd_account=clean,
    )


def test_a_stall_is_set_against_both_of_its_neighbours() -> None:
    acks, reads, stopped = Stall.ACKS, Stall.READS, Stall.STOPPED
    phases = [phase(10), phase(30, acks), phase(40), phase(20, reads), phase(10), phase(20, acks), phase(40)]
    found = {comparison.stall: comparison for comparison in compare([*phases, phase(60, stopped), phase(10)])}
    assert found[acks].p99_ratio == Spread(median=1.25, lowest=1.0, highest=1.5)
    assert found[reads].p99_ratio == Spread(median=1.0, lowest=1.0, highest=1.0)
    assert found[stopped].p99_ratio == Spread(median=3.0, lowest=3.0, highest=3.0)
    assert found[None].p99_ratio == Spread(median=2.125, lowest=0.25, highest=4.0)
    assert found[acks].p99_ms == Spread(median=25.0, lowest=20.0, highest=30.0)


def test_what_is_wrong_anywhere_is_no_clean_run() -> None:
    clean, lossy, disordered = Account(2, 2, 0, 0, 0), Account(2, 1, 1, 0, 0), Account(2, 2, 0, 0, 1)
    assert clean.is_clean
    assert msgspec.structs.replace(clean, repeated=3).is_clean
    assert not lossy.is_clean
    assert not disordered.is_clean
