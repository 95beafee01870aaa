"""`posthouse approvals`, `approve` and `reject`."""

from __future__ import annotations

import shlex

from bus.model.records import RunStatus

from .executing import STARTED, asking, crashed, created, ended, running
from .terminal import Posthouse


def waiting(posthouse: Posthouse, run_id: str) -> list[str]:
    return [each["step_id"] for each in posthouse.json("approvals") if each["run_id"] == run_id]


def test_the_list_says_what_is_asked(posthouse: Posthouse) -> None:
    created(posthouse, "asked", "asked-1", "asked-2")
    asking(posthouse, "asked-1", "deploy", {"prompt": "Deploy\nto \x1b[31mproduction?"})
    asking(posthouse, "asked-2", "mail", {"to": "all"})
    asking(posthouse, "asked-2", "call", None)
    header, *rows = posthouse.answer("approvals").splitlines()
    assert header.split() == ["run", "workflow", "step", "prompt", "since"]
    assert [row.split() for row in rows if row.startswith("asked")] == [
        ["asked-1", "asked", "deploy", "Deploy", "to", "\\u001b[31mproduction?", STARTED],
        ["asked-2", "asked", "mail", '{"to":"all"}', STARTED],
        ["asked-2", "asked", "call", STARTED],
    ]
    [deploy] = [each for each in posthouse.json("approvals") if each["step_id"] == "deploy"]
    assert (deploy["workflow_name"], deploy["run_status"]) == ("asked", "pending")
    assert (deploy["status"], deploy["input"]) == (
        "waiting_approval",
        {"prompt": "Deploy\nto \x1b[31mproduction?"},
    )
    assert len(posthouse.json("approvals", "--limit", "1")) == 1
    for run in ("asked-1", "asked-2"):
        ended(posthouse, run, RunStatus.CANCELLED)
        assert waiting(posthouse, run) == [], "a run that has ended waits for nobody"


def test_the_one_that_waits_needs_no_name(posthouse: Posthouse) -> None:
    created(posthouse, "single", "single-1")
    running(posthouse, "single-1")
    asking(posthouse, "single-1", "deploy", {"prompt": "Deploy?"})
    shown = posthouse.run("run", "single-1")
    assert shown.stderr == "to approve deploy: posthouse approve single-1 deploy\n"
    text = posthouse.answer("approve", "single-", "--as", "ada", "--comment", "go on")
    assert text == (
        "step deploy of run single-1 is approved by ada: go on; the run is running, and goes on when bot executor"
        " is back\n"
    )
    [step] = posthouse.json("run", "single-1")["steps"]
    assert (step["status"], step["error"]) == ("completed", None)
    assert step["output"] == {"approved": True, "by": "ada", "comment": "go on"}
    told = "step deploy of run single-1 was already approved by ada: go on; the run is running, and"
    assert posthouse.answer("approve", "single-1").startswith(told)
    assert posthouse.answer("approve", "single-1", "deploy").startswith(told)
    code, line = posthouse.refusal("reject", "single-1")
    assert (code, line) == (
        1,
        "posthouse: step deploy of run single-1 was already approved by ada: go on: that stands",
    )


def test_what_is_to_be_typed_is_quoted_for_a_shell(posthouse: Posthouse) -> None:
    run, step = "quoted 1; rm", "send all?"
    created(posthouse, "quoted", run)
    asking(posthouse, run, step, "Send?")
    shown = posthouse.run("run", run).stderr
    assert shown == "to approve send all?: posthouse approve 'quoted 1; rm' 'send all?'\n"
    words = shlex.split(shown.partition(": ")[2])
    assert words == ["posthouse", "approve", run, step]
    crashed(posthouse, run)
    assert posthouse.run("run", run).stderr == "to let it continue: posthouse resume 'quoted 1; rm'\n"
    assert posthouse.answer(*words[1:]).endswith("; to let it continue: posthouse resume 'quoted 1; rm'\n")
    code, line = posthouse.refusal("approve", run, "another")
    assert (code, line.endswith("; to see its steps: posthouse run 'quoted 1; rm'")) == (1, True)


def test_of_two_that_wait_one_is_named(posthouse: Posthouse) -> None:
    created(posthouse, "pair", "pair-1")
    asking(posthouse, "pair-1", "deploy", {"prompt": "Deploy?"})
    asking(posthouse, "pair-1", "mail", "Mail everybody?")
    code, line = posthouse.refusal("approve", "pair-1")
    assert code == 1
    assert line == (
        "posthouse: 2 steps of run pair-1 are waiting; choose one by name: deploy (Deploy?), mail (Mail everybody?)"
    )
    code, line = posthouse.refusal("reject", "pair-1", "paint")
    assert code == 1
    assert line == (
        "posthouse: step 'paint' of run pair-1 is not waiting for an approval;"
        " waiting are: deploy (Deploy?), mail (Mail everybody?)"
    )
    assert waiting(posthouse, "pair-1") == ["deploy", "mail"], "a refusal changes nothing"
    rejected = posthouse.json("reject", "pair-1", "mail")
    assert (rejected["status"], rejected["error"]) == ("failed", "rejected by console")
    assert rejected["output"] == {"approved": False, "by": "console", "comment": None}
    assert waiting(posthouse, "pair-1") == ["deploy"]
    assert posthouse.json("approve", "pair-1", "deploy")["status"] == "completed"


def test_two_attempts_at_a_step_are_told_apart_by_id(posthouse: Posthouse) -> None:
    created(posthouse, "repeated", "repeated-1")
    ids = [asking(posthouse, "repeated-1", "deploy", "Deploy?", attempt=attempt) for attempt in (1, 2)]
    code, line = posthouse.refusal("approve", "repeated-1", "deploy")
    assert (code, "choose one by id" in line, ids[0] in line, ids[1] in line) == (1, True, True, True)
    assert posthouse.json("approve", "repeated-1", ids[1])["id"] == ids[1]


def test_who_answers_is_told_which_bot_goes_on(posthouse: Posthouse) -> None:
    posthouse.answer("status", "--as", "deployer")
    run = posthouse.json("send", "deployer", "go", "--as", "author")["id"]
    created(posthouse, "begun", run)
    asking(posthouse, run, "first", "First?")
    asking(posthouse, run, "second", "Second?")
    text = posthouse.answer("approve", run, "first")
    assert text.endswith("the run is pending, and goes on when bot deployer is back\n")
    text = posthouse.answer("approve", run, "second", "--as", "deployer")
    assert text.endswith("the run is pending, and bot deployer goes on with it\n"), "the command is its session"


def test_approving_for_a_crashed_run_says_how_it_goes_on(posthouse: Posthouse) -> None:
    created(posthouse, "stuck", "stuck-1")
    crashed(posthouse, "stuck-1")
    asking(posthouse, "stuck-1", "deploy", "Deploy?")
    text = posthouse.answer("approve", "stuck-1", "deploy")
    assert text.endswith("the run is crashed; to let it continue: posthouse resume stuck-1\n")


def test_approving_for_a_run_that_a_person_paused_says_how_it_goes_on(posthouse: Posthouse) -> None:
    created(posthouse, "halted", "halted-1")
    asking(posthouse, "halted-1", "deploy", "Deploy?")
    asking(posthouse, "halted-1", "mail", "Mail?")
    ended(posthouse, "halted-1", RunStatus.PAUSED)
    text = posthouse.answer("approve", "halted-1", "deploy")
    assert text.endswith("the run is paused, and goes on when a bot opens it\n"), "it only waits"
    assert "paused, waits for a person" in posthouse.answer("runs", "--workflow", "halted")
    assert "paused, waits for a person" in posthouse.run("run", "halted-1").stdout
    posthouse.answer("pause", "halted-1")
    text = posthouse.answer("reject", "halted-1", "mail")
    assert "waits" not in posthouse.answer("runs", "--workflow", "halted")
    assert text.endswith("the run is paused; to let it continue: posthouse resume halted-1\n")
