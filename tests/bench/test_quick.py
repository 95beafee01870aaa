"""The comparison: a very short run of it on posthouse alone completes, and loses nothing.

Nothing here looks at how long anything took.
"""

from __future__ import annotations

import json
import subprocess
import sys
from array import array
from collections.abc import Sequence
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.comparison import Comparison, Plan
from bench.results import Report
from bench.roles import Answered, Order, Sender
from bench.systems import ThroughBus, WithFrames
from bench.workloads import WORKLOADS, LostMessages, Scale, one_to_one

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 110.0
"""The longest that the run may take: it is about ten seconds, and an end is needed all the same."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run every workload once with frames, for a moment; give what it wrote."""
    file = tmp_path_factory.mktemp("bench") / "quick.json"
    short = ["--quick", "--seconds", "0.2", "--messages", "300", "--system", WithFrames.name]
    ended = subprocess.run(
        [sys.executable, "-m", "bench", *short, "--json", str(file)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout + ended.stderr
    return json.loads(file.read_bytes())


def test_every_workload_completes_and_loses_nothing(report: Any) -> None:
    assert report["failures"] == []
    found = {(each["workload"], each["system"]) for each in report["measured"]}
    assert {(name, WithFrames.name) for name in WORKLOADS} <= found


@pytest.mark.parametrize("name", ["one to ten", "request and reply, many"])
def test_a_workload_completes_through_the_bus(name: str) -> None:
    scale = Scale(seconds=0.2, latency_seconds=0.1, deliveries=1_000, messages=100, asks=16)
    report = Report(machine={}, versions={}, promises={})
    plan = Plan(rounds=1, scale=scale, systems=[ThroughBus], workloads=[])
    figures = Comparison(plan, report, Console(file=StringIO())).measure(name, ThroughBus, WORKLOADS[name], 1)
    assert report.failures == []
    assert figures is not None
    assert min(figures["rate"], figures["batch_messages"], figures["loop_us"]) > 0


def test_a_sender_of_single_messages_keeps_its_session() -> None:
    """Whatever its window is, it leaves room for the answers, which come all at once."""
    scale = Scale(seconds=30.0, latency_seconds=0.1, deliveries=1, messages=20_000)
    with WithFrames() as system:
        system.window = 20_000
        assert one_to_one(system, scale, portion=1)["repeated"] == 0


def test_the_limits_are_measured_beside_them(report: Any) -> None:
    limits = {each["workload"] for each in report["measured"] if each["system"] == "limits"}
    assert {"fdatasync", "SQLite, 1 row", "SQLite, 4096 rows", "SQLite, posthouse's batches"} <= limits


def test_the_machine_is_measured_at_the_start_and_at_the_end(report: Any) -> None:
    assert [each["moment"] for each in report["calibrations"]] == ["start", "end"]
    for each in report["calibrations"]:
        assert min(each[name] for name in ("sqlite_rows", "loop_ns", "fdatasync_p50_ms", "commit_p50_ms")) > 0


def test_figures_are_there(report: Any) -> None:
    for each in report["measured"]:
        assert all(value >= 0 for value in each["figures"].values())
        assert each["figures"]["rate"] > 0
        if each["system"] == WithFrames.name:
            assert each["figures"]["batch_messages"] >= 1
    # Processor time is counted in hundredths of a second, and the shortest workload may take less.
    frames = [each["figures"] for each in report["measured"] if each["system"] == WithFrames.name]
    assert max(figures["loop_us"] for figures in frames) > 0


def test_it_says_on_what_it_ran(report: Any) -> None:
    assert report["machine"]["cpu_count"] >= 1
    assert {"posthouse", "libzmq", "SQLite"} <= report["versions"].keys()
    assert str(ROOT) not in json.dumps(report)


# ── A loss is seen ───────────────────────────────────────────────────────────────────────────────────────


def boast(pipe: Connection, url: str, senders: Sequence[Sender]) -> None:
    """Be a producer that says it sent a message, and did not."""
    pipe.send("ready")
    while True:
        [order] = pipe.recv()
        assert isinstance(order, Order)
        pipe.send(Answered(counts=[1] * len(senders), began=0, ended=1, latencies=array("q")))


class Lossy(WithFrames):
    """posthouse, and a producer that boasts."""

    name = "lossy"

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return super()._roles() | {"produce": (boast, self.worker.url)}


def test_a_workload_that_loses_a_message_fails() -> None:
    scale = Scale(seconds=0.1, latency_seconds=0.1, deliveries=100, catch_up_seconds=0.5)
    with Lossy() as system, pytest.raises(LostMessages, match="1 messages were due, 0 came"):
        one_to_one(system, scale)
