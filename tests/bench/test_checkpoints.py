"""The benchmark of checkpoints: a very short run of it for posthouse alone, and what it makes of its figures.

Nothing here looks at how long anything took.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import machine
from bench.checkpoints import restate
from bench.checkpoints.contestants import CONTESTANTS
from bench.checkpoints.figures import (
    DBOS,
    GRAPHS,
    LARGE,
    LARGER,
    LONG,
    OURS,
    QUIET,
    SAVERS,
    SHIPPED,
    SHORT,
    STORE,
    TUNED,
    Failure,
    Figures,
    Plan,
    Report,
    System,
    Turn,
    judge,
)
from bench.checkpoints.loads import ALONE, LOADS, Lane, Load, Run, in_threads, payload
from bench.checkpoints.page import words
from bench.checkpoints.turns import counts, take_turns
from bench.figures import Spread
from bench.words import fill_in

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 100.0
"""The longest that the run may take: it is about ten seconds, and an end is needed all the same."""

LIMIT = "SQLite, one row a commit"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """Run the benchmark once, with one short turn of two systems; give what it says, and its JSON."""
    file = tmp_path_factory.mktemp("bench") / "checkpoints.json"
    only = ["--only", OURS, "--only", LIMIT, "--load", LONG, "--load", SHORT, "--load", ALONE]
    ended = subprocess.run(
        [sys.executable, "-m", "bench.checkpoints", "--quick", "--seconds", "0.1", *only, "--json", str(file)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout, json.loads(file.read_bytes())


def test_it_completes_and_loses_nothing(run: tuple[str, Any]) -> None:
    told, report = run
    ours, limit = report["turns"]
    assert ours["kept"] == ours["steps"] > 64 * 5
    assert limit["kept"] == limit["steps"] > 0
    assert list(ours["loads"]) == [ALONE, LONG, SHORT], "in the order in which they are carried out"
    assert list(limit["loads"]) == [LONG]
    for load, figures in ours["loads"].items():
        assert min(figures.values()) > 0, load
    assert " 0 of them are not stored" in " ".join(told.split())


def test_it_says_on_what_it_ran(run: tuple[str, Any]) -> None:
    report = run[1]
    assert report["machine"]["cpu_count"] >= 1
    assert {"posthouse", "python", "sqlite", "zeromq"} <= report["versions"].keys()
    assert str(ROOT) not in json.dumps(report)


# ── What is carried out ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("load", LOADS.values(), ids=str)
def test_a_step_s_output_has_the_size_that_is_said(load: Load) -> None:
    sizes = {
        len(json.dumps(payload(number, load.payload_bytes, more=True), separators=(",", ":")))
        for number in (0, 9999)
    }
    assert sizes == {load.payload_bytes}


def test_outputs_do_not_compress() -> None:
    import zlib

    texts = "".join(payload(number, 20_000, more=True)["text"] for number in range(5)).encode()
    # Base64 has six bits in each byte, and nothing else to gain.
    assert len(zlib.compress(texts)) > 0.7 * len(texts)


def test_a_lane_gives_one_run_after_the_other_until_the_time_is_over() -> None:
    load = Load("short", 2, 3, 300)
    past = Lane("past", load, time.monotonic_ns())
    assert [run.id for run in past] == ["past-0"], "one at least"
    lanes = [Lane(str(number), load, time.monotonic_ns() + 20_000_000) for number in range(2)]
    in_threads(_carry_out)(lanes)
    for lane in lanes:
        assert {run.steps for run in lane.runs} == {3}
        assert len(lane.durations) == len(lane.runs)
        assert [run.id for run in lane.runs] == [
            f"{lane.runs[0].id[0]}-{number}" for number in range(len(lane.runs))
        ]


def test_a_long_run_is_the_only_one_of_its_lane() -> None:
    lane = Lane("lane", LOADS[LONG], time.monotonic_ns())
    for run in lane:
        _carry_out(run)
    assert [run.steps for run in lane.runs] == [1], "a run has one step at least"


def _carry_out(run: Run) -> None:
    while run.more:
        run()


@pytest.mark.anyio
@pytest.mark.parametrize("steps", [3, None], ids=["so many steps", "until a deadline"])
async def test_a_handler_of_restate_that_is_called_again_takes_the_same_path(steps: int | None) -> None:
    journal: list[Any] = []
    run = Run("run", steps, 300, time.monotonic_ns() + 3_600_000_000_000)

    async def call(*, lost_at: int | None) -> int:
        replayed = iter(list(journal))

        async def record(step: Callable[[], Awaitable[Any]]) -> Any:
            if (recorded := next(replayed, None)) is not None:
                return recorded
            output = await step()
            if len(journal) == lost_at:  # the step was carried out, and its output is not recorded
                raise ConnectionError
            journal.append(output)
            return output

        await restate.carry_out(run, record)
        return run.steps

    for lost_at in range(3):
        with pytest.raises(ConnectionError):
            await call(lost_at=lost_at)
    if steps is None:
        run = Run("run", None, 300, time.monotonic_ns())  # the time is over, but not for what is recorded
    assert await call(lost_at=None) == len(journal) == 3
    assert [output["number"] for output in journal] == [1_000_001, 1_000_002, 1_000_003]
    assert [output["more"] for output in journal] == [1, 1, 0]
    assert await call(lost_at=None) == 3, "once more, as when its last answer was lost"


def test_all_that_is_named_is_measured() -> None:
    assert {OURS, QUIET, STORE, *DBOS, *GRAPHS, *SAVERS, SHIPPED, TUNED} <= CONTESTANTS.keys()
    assert {ALONE, LONG, SHORT, LARGE, LARGER} <= LOADS.keys()


def test_a_missing_package_is_told_and_nothing_is_installed_for_it() -> None:
    without = msgspec.structs.replace(CONTESTANTS[DBOS[1]], modules=("no_such_package_of_anybody",))
    assert without.missing() == (
        "the Python package no_such_package_of_anybody is not installed; make bench-checkpoints installs it"
    )


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_the_processor_time_of_ended_children_counts() -> None:
    work = r"import time\nwhile time.process_time() < 0.3: pass"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{work}']); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        before = machine.busy_seconds()
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        assert machine.tree_seconds(process.pid) >= 0.25
        assert sum(machine.processor_seconds(process.pid)) < machine.tree_seconds(process.pid)
        process.communicate(b"\n")
        assert machine.busy_seconds() > before - 0.02


# ── What is made of the figures ──────────────────────────────────────────────────────────────────────────


def turn(system: str, round: int, *, kept: int = 20, others: float = 0.0, **figures: float) -> Turn:
    of = {"rate": 100.0, "cpu_ms": 1.0, "run_ms": 2.0} | figures
    return Turn(
        round=round,
        system=system,
        others_cores=others,
        sync_ms=0.1,
        loads={load: Figures(**of) for load in LOADS},
        steps=20,
        kept=kept,
    )


def report(*turns: Turn) -> Report:
    plan = Plan(rounds=2, seconds=1.0, loads=tuple(LOADS), others_max=0.25)
    systems = [System(name, "something") for name in dict.fromkeys(each.system for each in turns)]
    return Report(machine={}, options="", plan=plan, systems=systems, turns=list(turns))


def test_a_ratio_is_that_of_the_same_round() -> None:
    found = report(
        turn(OURS, 1, rate=100), turn(DBOS[0], 1, rate=10), turn(DBOS[0], 2, rate=40), turn(OURS, 2, rate=200)
    )
    assert found.ratio(SHORT, "rate", OURS, DBOS[0]) == Spread(median=7.5, lowest=5.0, highest=10.0)
    assert found.figure(DBOS[0], SHORT, "rate") == Spread(median=25.0, lowest=10.0, highest=40.0)
    assert found.ratio(SHORT, "rate", OURS, TUNED) is None
    assert report(turn(OURS, 1), turn(TUNED, 2)).ratio(SHORT, "rate", OURS, TUNED) is None, "never in one round"


def test_what_was_said_to_be_kept_and_is_not_there_is_seen() -> None:
    assert report(turn(OURS, 1, kept=21)).is_clean
    lossy = report(turn(OURS, 1), turn(TUNED, 1, kept=19))
    assert not lossy.is_clean
    assert "1 of them are not stored" in words(lossy)["machine"]


def test_a_turn_that_was_not_carried_through_is_told() -> None:
    found = report(turn(OURS, 1))
    found.failures.append(Failure("Restate", 2, "it ended by itself"))
    assert not found.is_clean
    assert "Failed: Restate, round 2: it ended by itself." in words(found)["machine"]


def broken(pipe: object, path: str) -> None:
    raise SystemExit(3)


def test_a_system_that_ends_by_itself_does_not_end_the_others() -> None:
    limit = CONTESTANTS[LIMIT]
    failing = msgspec.structs.replace(limit, work=broken, system=System("broken", "nothing"))
    plan = msgspec.structs.replace(report().plan, rounds=1, seconds=0.05, loads=(LONG,), others_max=None)
    failures: list[Failure] = []
    turns: list[str] = []
    take_turns(
        plan,
        [failing, limit],
        {},
        wait_seconds=0,
        profile=None,
        tell=lambda turn, counted: turns.append(turn.system),
        failed=lambda failure, notes: failures.append(failure),
    )
    assert turns == [LIMIT]
    [failure] = failures
    assert (failure.system, failure.round) == ("broken", 1)
    assert failure.why.endswith("ended by itself, with exit code 3")


def test_a_turn_that_others_disturbed_does_not_count() -> None:
    plan = report().plan
    assert counts(plan, turn(OURS, 1, others=0.25))
    assert not counts(plan, turn(OURS, 1, others=0.26))
    assert counts(msgspec.structs.replace(plan, others_max=None), turn(OURS, 1, others=2.0))
    disturbed = report(turn(OURS, 1))
    disturbed.systems.append(System(TUNED, "something"))
    assert disturbed.uncounted == [TUNED]
    disturbed.failures.append(Failure(TUNED, 1, "it hung"))
    assert disturbed.uncounted == [], "what hangs keeps no page from being written, which tells of it"


def met(found: Report) -> dict[str, bool | None]:
    return {each.name: each.met for each in judge(found)}


def test_goals_are_about_processor_time_beside_the_better_database() -> None:
    found = met(report(turn(OURS, 1, cpu_ms=1), turn(DBOS[0], 1, cpu_ms=9), turn(DBOS[1], 1, cpu_ms=4.9)))
    dbos = {name: each for name, each in found.items() if "DBOS" in name}
    assert dbos == {
        f"{load}: processor time of DBOS, on its better database, divided by ours": is_met
        for load, is_met in ((SHORT, False), (LONG, False), (LARGE, True), (LARGER, True))
    }
    assert {each for name, each in found.items() if "Restate" in name} == {None}, "not measured"


def test_goals_beside_restate_are_about_processor_time_and_rates() -> None:
    less = met(report(turn(OURS, 1, cpu_ms=0.7, rate=99), turn(TUNED, 1, cpu_ms=1, rate=100)))
    assert [each for name, each in less.items() if "Restate" in name] == [True, True, False, False]
    more = met(report(turn(OURS, 1, cpu_ms=0.71, rate=100), turn(TUNED, 1, cpu_ms=1, rate=100)))
    assert [each for name, each in more.items() if "Restate" in name] == [False, False, True, True]


def test_the_last_goal_is_about_a_run_alone() -> None:
    alone = f"{ALONE}: a run"
    assert met(report(turn(OURS, 1, run_ms=12)))[alone] is True
    assert met(report(turn(OURS, 1, run_ms=12.1)))[alone] is False
    assert met(report(turn(QUIET, 1, run_ms=1)))[alone] is None, "by default, with steps announced"


def test_others_are_set_beside_both_of_our_ways_and_savers_beside_the_store() -> None:
    turns = [
        turn(name, 1, cpu_ms=cpu)
        for name, cpu in ((OURS, 2), (QUIET, 1), (STORE, 0.5), (DBOS[0], 4), (SAVERS[0], 1))
    ]
    rows = [line.split(" | ") for line in words(report(*turns))["result"].splitlines()[2:]]
    assert [row[:2] for row in rows] == [[f"| {DBOS[0]}", "2.00 (4.00)"], [f"| {SAVERS[0]}", "2.00"]]


def test_the_pages_say_what_the_json_says() -> None:
    found = msgspec.json.decode((ROOT / "docs/performance/checkpoints.json").read_bytes(), type=Report)
    for file in (ROOT / "docs/performance/checkpoints.md", ROOT / "README.md"):
        text = file.read_text(encoding="utf-8")
        assert fill_in(text, words(found)) == text, f"{file}: make bench-checkpoints OPTIONS=--rewrite"
    page = (ROOT / "docs/performance/checkpoints.md").read_text(encoding="utf-8")
    assert all(f"<!-- begin {name} " in page for name in words(found) if name != "runs")
    assert "<!-- begin runs " in (ROOT / "README.md").read_text(encoding="utf-8")
