"""`posthouse runs`, `run`, `cancel`, `pause` and `resume`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner

from bus.errors import Fenced
from bus.model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog, parse_timestamp, timestamp
from bus.model.repository import WorkflowRepository
from worker import main

from .executing import STARTED, asking, crashed, created, define, ended, running, work
from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse


def log(posthouse: Posthouse, run_id: str, step_id: str, status: StepStatus, **fields: Any) -> None:
    """Write a step that ran."""

    async def write(workflows: WorkflowRepository) -> None:
        id = f"{run_id}-{step_id}-{fields.get('attempt', 1)}"
        names: dict[str, Any] = {"id": id, "run_id": run_id, "step_id": step_id, "step_name": step_id}
        await workflows.create_step_log(WorkflowStepLog(**names, status=status, **fields))

    work(posthouse, "executor", write)


# ── The list ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_is_a_table_newest_first(posthouse: Posthouse) -> None:
    created(posthouse, "tabled", "tabled-1", "tabled-2", "tabled-3")
    running(posthouse, "tabled-2", "holder")
    ended(posthouse, "tabled-3", RunStatus.FAILED, "\nno such \x1b[31mhost\nTraceback")
    header, *rows = posthouse.answer("runs", "--workflow", "tabled").splitlines()
    assert header.split() == ["run", "workflow", "status", "holder", "started", "took", "error"]
    assert [row.split()[:3] for row in rows] == [
        ["tabled-3", "tabled", "failed"],
        ["tabled-2", "tabled", "running"],
        ["tabled-1", "tabled", "pending"],
    ]
    assert rows[0].endswith("  no such \\u001b[31mhost")
    assert (rows[1].split()[3], rows[1].endswith("so far")) == ("holder", True)
    assert rows[2].split()[3:] == [STARTED]
    found = posthouse.json("runs", "--workflow", "tabled", "--limit", "2")
    assert [(each["id"], each["status"], each["holder_name"]) for each in found] == [
        ("tabled-3", "failed", None),
        ("tabled-2", "running", "holder"),
    ]
    assert found[0].keys() == {
        "id", "workflow_id", "workflow_name", "status", "trigger_type", "started_at", "completed_at", "error",
        "concurrency_key", "holder", "fence", "lease_expires_at", "recoveries", "queued_at", "stopped",
        "parent_run_id", "not_before", "cancel_by", "continued_as", "attributes", "holder_name",
    }  # fmt: skip
    assert [each["id"] for each in posthouse.json("runs", "--status", "failed", "--workflow", "tabled")] == [
        "tabled-3"
    ]
    assert {each["status"] for each in posthouse.json("runs", "--status", "running")} == {"running"}
    ended_run = posthouse.run("runs", "--workflow", "tabled", "--status", "cancelled")
    assert (ended_run.returncode, ended_run.stdout, ended_run.stderr) == (0, "", "no runs\n")
    code, line = posthouse.refusal("runs", "--workflow", "tabeld")
    assert (code, "no workflow has the name or id 'tabeld'" in line) == (1, True)


def test_a_run_that_waits_for_a_slot_says_so(posthouse: Posthouse) -> None:
    created(posthouse, "narrow", "narrow-1", "narrow-2")
    saved = posthouse.json("workflows", "show", "narrow") | {"concurrency": 1}
    posthouse.answer("workflows", "save", "-", stdin=json.dumps(saved))
    running(posthouse, "narrow-1")
    with pytest.raises(Exception, match="waits for a slot"):
        running(posthouse, "narrow-2")
    assert "pending, waits for a slot" in posthouse.answer("runs", "--workflow", "narrow")
    text = posthouse.run("run", "narrow-2").stdout
    assert "pending, waits for a slot" in text
    assert "\nqueued    20" in text


# ── One run ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_shown_whose_records_are_larger_than_a_frame(posthouse: Posthouse) -> None:
    created(posthouse, "large", "large-1")
    for step_id in ("fetch", "write"):
        log(posthouse, "large-1", step_id, StepStatus.COMPLETED, output=[step_id, "x" * 2_000_000])
    lines = posthouse.answer("run", "large-1").splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["fetch", "write"]
    assert max(map(len, lines)) < 200
    found = posthouse.json("run", "large-1")
    assert [(step["output"][0], len(step["output"][1])) for step in found["steps"]] == [
        ("fetch", 2_000_000),
        ("write", 2_000_000),
    ]


def test_a_run_is_shown_with_its_lease_and_steps(posthouse: Posthouse) -> None:
    created(posthouse, "shown", "shown-1")
    fence = running(posthouse, "shown-1", "holder")
    times = {"started_at": "2026-01-01T00:00:00Z", "completed_at": "2026-01-01T00:01:05Z"}
    log(posthouse, "shown-1", "gather", StepStatus.FAILED, error="no\nhost", **times)
    log(posthouse, "shown-1", "gather", StepStatus.COMPLETED, attempt=2, output={"rows": "x" * 99}, **times)
    text = posthouse.answer("run", "shown-1")
    facts, steps = text.split("\n\n")
    found = dict(line.split(maxsplit=1) for line in facts.splitlines() if not line.startswith("held by"))
    assert found.keys() == {"run", "workflow", "status", "until", "trigger", "started", "took"}
    assert (found["status"], "held by   holder" in facts) == ("running", True)
    assert [row.split() for row in steps.splitlines()] == [
        ["step", "attempt", "status", "took", "error", "or", "output"],
        ["gather", "1", "failed", "1", "min", "05", "s", "no"],
        ["gather", "2", "completed", "1", "min", "05", "s", '{"rows":"' + "x" * 50 + "…"],
    ]
    value = posthouse.json("run", "shown-1")
    assert value.keys() == {"run", "lease", "steps", "signals"}
    assert (value["run"]["id"], value["run"]["context"]) == ("shown-1", {})
    assert (value["lease"]["holder_name"], value["lease"]["fence"]) == ("holder", fence)
    assert value["lease"]["expires_at"] == found["until"]
    assert [(step["attempt"], step["error"]) for step in value["steps"]] == [(1, "no\nhost"), (2, None)]
    assert value["steps"][1]["output"] == {"rows": "x" * 99}


def test_an_id_may_be_given_by_its_beginning(posthouse: Posthouse) -> None:
    created(posthouse, "begun", "begun-a1", "begun-a2", "begun-b", "begun-b-and-more")
    assert posthouse.json("run", "begun-a1")["run"]["id"] == "begun-a1"
    assert posthouse.json("run", "begun-b")["run"]["id"] == "begun-b", "a whole id is no beginning"
    assert posthouse.json("run", "begun-b-")["run"]["id"] == "begun-b-and-more"
    for command in ("run", "cancel", "approve"):
        code, line = posthouse.refusal(command, "begun-a")
        assert code == 1
        assert line == "posthouse: 2 run ids begin with 'begun-a': begun-a2, begun-a1; give more of the id"
        code, line = posthouse.refusal(command, "gone")
        assert (code, line) == (
            1,
            "posthouse: no run 'gone', and none begins with it; 'posthouse runs' lists them",
        )


# ── Watching ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_watched_to_its_end(posthouse: Posthouse) -> None:
    created(posthouse, "watched", "watched-1")
    with posthouse.start("run", "watched-1", "--watch") as watching:
        assert watching.line().split()[1:] == ["run", "watched-1", "pending"]
        running(posthouse, "watched-1")
        assert watching.line().split()[1:] == ["run", "watched-1", "running"]
        log(posthouse, "watched-1", "gather", StepStatus.COMPLETED, output=[1])
        assert watching.line().split()[1:] == ["step", "gather", "completed", "[1]"]
        ended(posthouse, "watched-1", RunStatus.CRASHED, "lost")
        assert watching.line().split()[1:] == ["run", "watched-1", "crashed", "lost"]
        posthouse.answer("resume", "watched-1")
        assert watching.line().split()[1:] == ["run", "watched-1", "pending"]
        ended(posthouse, "watched-1", RunStatus.COMPLETED)
        assert watching.line().split()[1:] == ["run", "watched-1", "completed"]
        assert (watching.exit_code(), watching.errors()) == (0, "")


def test_runs_are_watched_until_an_interrupt(posthouse: Posthouse) -> None:
    define(posthouse, "noted")
    wanted = ("--workflow", "noted", "--status", "failed")
    with posthouse.start("runs", "--watch", "--tap", posthouse.tap_url, *wanted) as watching:
        seen: list[str] = []
        numbers = count()

        def is_heard() -> bool:
            """The worker hears of a listener some time after it began."""
            run_id = f"noted-{next(numbers)}"
            created(posthouse, "noted", run_id)
            ended(posthouse, run_id, RunStatus.FAILED, "no such host\nTraceback")
            seen.extend(watching.lines_now())
            return bool(seen)

        posthouse.wait_until(is_heard)
        time, word, run_id, *rest = seen[0].split()
        assert parse_timestamp(time)
        assert (word, run_id.startswith("noted-"), rest) == ("run", True, ["noted", "failed", "no", "such", "host"])
        watching.interrupt()
        assert watching.exit_code() == 0
    assert posthouse.run("runs", "--watch", "--since", "1h").returncode == 2


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED])
def test_watching_what_did_not_complete_ends_with_1(posthouse: Posthouse, status: RunStatus) -> None:
    run_id = f"unlucky-{status}"
    created(posthouse, "unlucky", run_id)
    with posthouse.start("run", run_id, "--watch", "--json") as watching:
        assert json.loads(watching.line())["run"]["status"] == "pending"
        asking(posthouse, run_id, "deploy", "Deploy?")
        assert json.loads(watching.line())["step"]["status"] == "waiting_approval"
        ended(posthouse, run_id, status, "why")
        if status == RunStatus.CANCELLED:
            assert json.loads(watching.line())["step"]["error"] == "cancelled"
        last = json.loads(watching.line())
        assert (last.keys(), last["run"]["status"], last["run"]["error"]) == ({"run"}, status, "why")
        assert (watching.exit_code(), watching.errors()) == (1, "")


def test_an_interrupt_ends_the_watching_in_order(posthouse: Posthouse) -> None:
    created(posthouse, "left", "left-1")
    with posthouse.start("run", "left-1", "--watch") as watching:
        watching.line()
        watching.interrupt()
        assert (watching.exit_code(), watching.errors()) == (130, "")


def test_watching_a_run_that_is_deleted_ends(posthouse: Posthouse) -> None:
    created(posthouse, "deleted", "deleted-1")
    with posthouse.start("run", "deleted-1", "--watch") as watching:
        watching.line()
        work(posthouse, "author", lambda workflows: workflows.delete_definition("deleted", cascade=True))
        assert watching.exit_code() == 1
        assert watching.errors() == "posthouse: run 'deleted-1' was deleted\n"


def test_a_terminal_shows_the_last_steps_that_it_has_room_for(posthouse: Posthouse) -> None:
    created(posthouse, "drawn", "drawn-1")
    for number in range(20):
        log(
            posthouse,
            "drawn-1",
            f"step-{number:02}",
            StepStatus.COMPLETED,
            completed_at=f"{STARTED[:-7]}{number:06}Z",
        )
    ended(posthouse, "drawn-1", RunStatus.COMPLETED)
    ours, theirs = pty.openpty()
    environment = {**posthouse.environment, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "24"}
    arguments = [*COMMAND, "run", "drawn-1", "--watch"]
    with subprocess.Popen(arguments, stdin=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        parts: list[bytes] = []
        try:
            while part := os.read(ours, 65_536):
                parts.append(part)
        except OSError:
            pass  # Linux's way to say that nobody has the other end any more
        finally:
            os.close(ours)
        assert process.wait(TIMEOUT_SECONDS) == 0
    output = b"".join(parts).decode()
    assert ("step-19" in output, "step-00" in output, "earlier steps are not shown" in output) == (
        True,
        False,
        True,
    )


# ── Changing ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_crashed_run_is_resumed(posthouse: Posthouse) -> None:
    created(posthouse, "lost", "lost-1")
    crashed(posthouse, "lost-1")
    shown = posthouse.run("run", "lost-1")
    assert shown.stderr.endswith("to let it continue: posthouse resume lost-1\n")
    assert "error     the holder was lost\\nand more of that\n" in shown.stdout
    text = posthouse.answer("resume", "lost-1")
    assert text == "run lost-1 was crashed and is pending: it goes on when a bot claims it\n"
    run = posthouse.json("run", "lost-1")["run"]
    assert (run["status"], run["error"], run["completed_at"]) == ("pending", None, None)
    code, line = posthouse.refusal("resume", "lost-1")
    assert (code, "is already pending" in line) == (1, True)
    running(posthouse, "lost-1", "second")
    code, line = posthouse.refusal("resume", "lost-1")
    assert (code, "is running, held by second under a lease until" in line) == (1, True)
    assert posthouse.json("run", "lost-1")["lease"]["holder_name"] == "second", "a refusal changes nothing"


def test_pausing_takes_a_run_from_its_holder(posthouse: Posthouse) -> None:
    created(posthouse, "held", "held-1")
    fence = running(posthouse, "held-1")
    text = posthouse.answer("pause", "held-1", "--reason", "maintenance", "--as", "ada")
    assert text == "run held-1 was running and is paused: 'posthouse resume held-1' lets it go on\n"
    value = posthouse.json("run", "held-1")
    assert (value["lease"], value["run"]["error"]) == (None, "paused by ada: maintenance")
    with pytest.raises(Fenced):
        work(posthouse, "executor", lambda workflows: workflows.renew_run("held-1", fence))
    resumed = posthouse.json("resume", "held-1", "--reason", "done")
    assert (resumed["status"], resumed["error"]) == ("pending", "resumed by console: done")


def test_what_has_ended_stays_so(posthouse: Posthouse) -> None:
    created(posthouse, "over", "over-1", "over-2")
    assert posthouse.json("cancel", "over-1", "--reason", "wrong one")["error"] == (
        "cancelled by console: wrong one"
    )
    ended(posthouse, "over-2", RunStatus.COMPLETED)
    for arguments, told in [
        (("cancel", "over-1"), "run over-1 is already cancelled"),
        (("pause", "over-1"), "run over-1 is cancelled: it has ended, and cannot become paused any more"),
        (("cancel", "over-2"), "run over-2 is completed: it has ended, and cannot become cancelled any more"),
        (("resume", "over-2"), "run over-2 is completed: it has ended, and cannot be resumed; start a new one"),
    ]:
        assert posthouse.refusal(*arguments) == (1, f"posthouse: {told}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "--status", "lost"],
        ["runs", "--limit", "0"],
        ["run"],
        ["cancel"],
        ["approve"],
        ["approvals", "--limit", "1001"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    ended = CliRunner().invoke(main, arguments, env={"POSTHOUSE_URL": "tcp://127.0.0.1:1"})
    assert (ended.exit_code, ended.stdout) == (2, "")


def test_runs_are_found_by_what_is_known_of_them(posthouse: Posthouse) -> None:
    created(posthouse, "known", "known-1", "known-2")
    run = WorkflowRun(
        id="known-3",
        workflow_id="known",
        workflow_name="known",
        trigger_type="manual",
        started_at=timestamp(datetime.now(UTC)),
        concurrency_key="eu",
        attributes={"customer": "ann", "plan": "a=b"},
    )
    work(posthouse, "author", lambda workflows: workflows.create_run(run))
    found = ["--attribute", "customer=ann"], ["--attribute", "plan=a=b"], ["--key", "eu"], ["--since", "1h"]
    for options in found:
        listed = posthouse.json("runs", "--workflow", "known", *options)
        assert [each["id"] for each in listed] == ["known-3"], options
        assert listed[0]["attributes"] == run.attributes
    before = posthouse.json("runs", "--workflow", "known", "--until", "2026-06-01T00:00:00Z")
    assert [each["id"] for each in before] == ["known-2", "known-1"]
    assert "with      customer=ann  plan=a=b" in posthouse.run("run", "known-3").stdout
    for wrong in (["--attribute", "customer"], ["--attribute", "=ann"], ["--since", "yesterday"]):
        assert posthouse.run("runs", *wrong).returncode == 2


def test_a_program_that_cleans_up_is_asked_first(posthouse: Posthouse) -> None:
    created(posthouse, "cleaned", "cleaned-1", "cleaned-2")

    async def claim(workflows: WorkflowRepository) -> None:
        for id in ("cleaned-1", "cleaned-2"):
            await workflows.claim_run(id, "executor", 600, cleans_up=True)

    work(posthouse, "executor", claim)
    asked = posthouse.answer("cancel", "cleaned-1", "--reason", "too late")
    assert asked.startswith("run cleaned-1 is to be cancelled: its program may clean up until 20")
    [until] = [
        line for line in posthouse.run("run", "cleaned-1").stdout.splitlines() if "to be cancelled by" in line
    ]
    assert asked.split()[-1] in until
    at_once = posthouse.answer("cancel", "cleaned-1", "--now")
    assert at_once == "run cleaned-1 was running and is cancelled: it has ended, and no bot goes on with it\n"
    assert posthouse.json("cancel", "cleaned-2")["cancel_by"] is not None
