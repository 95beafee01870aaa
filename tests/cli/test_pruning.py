"""`posthouse prune`."""

from __future__ import annotations

from bus.model.records import RunStatus

from .executing import created, ended, running, work
from .terminal import Posthouse


def left(posthouse: Posthouse, workflow: str) -> list[str]:
    runs = work(posthouse, "executor", lambda workflows: workflows.list_runs(workflow))
    return [run.id for run in reversed(runs)]


def test_runs_that_ended_are_deleted(posthouse: Posthouse) -> None:
    ids = [f"old-{number}" for number in range(6)]
    created(posthouse, "old", *ids)
    for id in ids[:2]:
        ended(posthouse, id, RunStatus.COMPLETED)
    ended(posthouse, ids[2], RunStatus.FAILED, "broken")
    ended(posthouse, ids[3], RunStatus.CANCELLED)
    running(posthouse, ids[4])
    prune = ["prune", "--workflow", "old", "--yes"]
    shown = posthouse.answer(*prune, "--keep", "0", "--status", "completed", "--dry-run")
    assert [line.split(" since ")[0] for line in shown.splitlines()] == [
        *(f"run {id} of old is completed" for id in ids[:2]),
        "2 runs would be deleted",
    ]
    assert left(posthouse, "old") == ids
    assert posthouse.answer(*prune, "--older-than", "1h") == "0 runs deleted\n"
    assert posthouse.answer(*prune, "--keep", "3") == "1 run deleted\n"
    assert left(posthouse, "old") == ids[1:]
    found = posthouse.json(*prune, "--keep", "0", "--status", "failed", "--status", "cancelled", "--dry-run")
    assert found == {"runs": [ids[2], ids[3]], "deleted": 0}
    assert posthouse.json(*prune, "--older-than", "0s") == {"runs": ids[1:4], "deleted": 3}
    assert left(posthouse, "old") == ids[4:], "what has not ended stays"


def test_only_runs_of_one_workflow_are_deleted(posthouse: Posthouse) -> None:
    created(posthouse, "one", "one-1")
    created(posthouse, "two", "two-1")
    for id in ("one-1", "two-1"):
        ended(posthouse, id, RunStatus.COMPLETED)
    assert posthouse.answer("prune", "--yes", "--keep", "0", "--workflow", "one") == "1 run deleted\n"
    assert (left(posthouse, "one"), left(posthouse, "two")) == ([], ["two-1"])
    code, text = posthouse.refusal("prune", "--yes", "--keep", "0", "--workflow", "nothing")
    assert (code, text.partition(";")[0]) == (1, "posthouse: no workflow has the name or id 'nothing'")


def test_what_is_to_be_deleted_must_be_said(posthouse: Posthouse) -> None:
    for wrong in ([], ["--older-than", "yesterday"], ["--keep", "-1"], ["--status", "running", "--keep", "0"]):
        assert posthouse.run("prune", *wrong).returncode == 2
