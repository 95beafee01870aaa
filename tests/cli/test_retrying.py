"""`posthouse retry` and `fork`."""

from __future__ import annotations

from typing import Any

from bus.model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog
from bus.model.repository import WorkflowRepository

from .executing import crashed, created, ended, running, work
from .terminal import Posthouse


def status(posthouse: Posthouse, run_id: str) -> str:
    found: WorkflowRun = work(posthouse, "executor", lambda workflows: workflows.get_run(run_id))
    return found.status


def log(posthouse: Posthouse, run_id: str, step_id: str, step_status: StepStatus, second: int) -> None:
    time = f"2026-01-01T00:00:{second:02}.000000Z"

    async def write(workflows: WorkflowRepository) -> None:
        names: dict[str, Any] = {"id": f"{run_id}-{second}", "run_id": run_id, "step_id": step_id}
        row = WorkflowStepLog(**names, step_name=step_id, status=step_status, started_at=time, completed_at=time)
        await workflows.create_step_log(row)

    work(posthouse, "executor", write)


def steps(posthouse: Posthouse, run_id: str) -> list[str]:
    rows: list[WorkflowStepLog] = work(posthouse, "executor", lambda workflows: workflows.list_step_logs(run_id))
    return [row.step_id for row in rows]


def test_runs_are_retried_by_id(posthouse: Posthouse) -> None:
    created(posthouse, "again", "again-1", "again-2", "again-3", "again-4")
    log(posthouse, "again-1", "a", StepStatus.COMPLETED, 1)
    log(posthouse, "again-1", "b", StepStatus.FAILED, 2)
    ended(posthouse, "again-1", RunStatus.FAILED, "broken")
    crashed(posthouse, "again-2")
    shown = posthouse.answer("retry", "again-1", "again-2")
    assert shown.splitlines() == [f"run again-{n} is pending: it goes on when a bot opens it" for n in (1, 2)]
    assert (status(posthouse, "again-1"), status(posthouse, "again-2")) == ("pending", "pending")
    assert steps(posthouse, "again-1") == ["a", "b#set-aside"]
    [value] = posthouse.json("retry", "again-1", "--from", "a")
    assert (value["id"], value["status"]) == ("again-1", "pending")
    assert steps(posthouse, "again-1") == ["a#set-aside", "b#set-aside"]
    ended_so = posthouse.run("retry", "again-5", "again-2", "again-3")
    assert (ended_so.returncode, ended_so.stdout.count("is pending")) == (1, 2)
    assert ended_so.stderr.startswith("posthouse: no run 'again-5', and none begins with it")
    running(posthouse, "again-3")
    assert posthouse.refusal("retry", "again-3")[0] == 1
    ended(posthouse, "again-4", RunStatus.CANCELLED)
    assert posthouse.refusal("retry", "again-4") == (
        1,
        "posthouse: run again-4 is cancelled: it has ended, and is not retried; 'posthouse fork' begins a new one"
        " with its steps",
    )
    assert posthouse.refusal("retry", "again-1", "--from", "z") == (1, "posthouse: run again-1 has no step 'z'")


def test_runs_are_retried_in_bulk(posthouse: Posthouse) -> None:
    ids = [f"many-{number}" for number in range(6)]
    created(posthouse, "many", *ids)
    created(posthouse, "others", "others-1")
    ended(posthouse, "many-0", RunStatus.FAILED, "KeyError: 'page'")
    ended(posthouse, "many-1", RunStatus.FAILED, "ValueError: no money")
    running(posthouse, "many-2")
    posthouse.answer("pause", "many-2", "--as", "ann")
    ended(posthouse, "many-3", RunStatus.PAUSED)
    ended(posthouse, "others-1", RunStatus.FAILED, "KeyError: 'page'")
    chosen = ["retry", "--workflow", "many", "--error", "KeyError"]
    assert [each["id"] for each in posthouse.json(*chosen, "--dry-run")] == ["many-0"]
    assert status(posthouse, "many-0") == "failed"
    assert [each["id"] for each in posthouse.json(*chosen)] == ["many-0"]
    assert [each["id"] for each in posthouse.json("retry", "--workflow", "many")] == ["many-1"]
    assert [status(posthouse, id) for id in ids[:4]] == ["pending", "pending", "paused", "paused"]
    assert posthouse.answer("retry", "--workflow", "many", "--since", "2030-01-01T00:00:00Z") == "no such runs\n"
    assert [each["id"] for each in posthouse.json("retry", "--workflow", "others", "--status", "failed")] == [
        "others-1"
    ]
    for wrong in ([], ["many-0", "--workflow", "many"], ["--until", "yesterday"]):
        assert posthouse.run("retry", *wrong).returncode == 2


def test_a_run_is_forked(posthouse: Posthouse) -> None:
    created(posthouse, "forking", "forking-1")
    for second, name in enumerate("abc"):
        log(posthouse, "forking-1", name, StepStatus.COMPLETED, second)
    ended(posthouse, "forking-1", RunStatus.COMPLETED)
    shown = posthouse.answer("fork", "forking-1", "--before", "c", "--id", "forking-2")
    assert shown == "run forking-2 begins with the steps of forking-1: it goes on when a bot opens it\n"
    assert (status(posthouse, "forking-2"), steps(posthouse, "forking-2")) == ("pending", ["a", "b"])
    assert steps(posthouse, posthouse.json("fork", "forking-1")["id"]) == ["a", "b", "c"]
    assert posthouse.refusal("fork", "forking-1", "--before", "z") == (
        1,
        "posthouse: run forking-1 has no step 'z'",
    )
    assert posthouse.refusal("fork", "forking-1", "--id", "forking-2")[0] == 1
