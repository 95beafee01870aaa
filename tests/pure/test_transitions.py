"""The two tables of runs and steps, cell by cell: what may become what.

`same` says the status again with any values; `again` only with those that are stored. What a move does to a record
in a store is in `tests/contract/test_workflow_transitions.py`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from bus.errors import InvalidTransition
from bus.model.leases import HeldRun, HoldState, move
from bus.model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog
from bus.model.transitions import advance_run, advance_step

RUNS = """
.          pending  running  paused  completed  failed  crashed  cancelled
pending    same     yes      yes     yes        yes     no       yes
running    yes      same     yes     yes        yes     yes      yes
paused     yes      yes      same    no         yes     no       yes
crashed    yes      yes      yes     no         yes     same     yes
completed  no       no       no      again      no      no       no
failed     no       no       no      no         again   no       no
cancelled  no       no       no      no         no      no       again
"""

STEPS = """
.                 pending  running  waiting_approval  completed  failed  skipped
pending           again    yes      yes               yes        yes     yes
running           no       same     yes               yes        yes     no
waiting_approval  no       yes      same              yes        yes     yes
completed         no       no       no                again      no      no
failed            no       no       no                no         again   no
skipped           no       no       no                no         no      again
"""

NOW = "2026-01-01T00:00:09.000000Z"


def cells(table: str, *answers: str) -> list[tuple[str, str]]:
    columns, *rows = (line.split() for line in table.strip().splitlines())
    return [
        (row[0], column)
        for row in rows
        for column, answer in zip(columns[1:], row[1:], strict=True)
        if answer in answers
    ]


def a_run(status: str) -> WorkflowRun:
    return WorkflowRun(
        id="r",
        workflow_id="w",
        workflow_name="w",
        trigger_type="manual",
        started_at="2026-01-01T00:00:00.000000Z",
        status=RunStatus(status),
        error="before",
        context={"n": 1},
    )


def a_step(status: str) -> WorkflowStepLog:
    fields: dict[str, Any] = {"id": "s", "run_id": "r", "step_id": "s", "step_name": "s"}
    return WorkflowStepLog(**fields, status=StepStatus(status), error="before", output={"n": 1})


def test_the_tables_have_every_status() -> None:
    runs = cells(RUNS, "yes", "no", "same", "again")
    assert sorted(runs) == sorted(product(RunStatus, RunStatus))
    steps = cells(STEPS, "yes", "no", "same", "again")
    assert sorted(steps) == sorted(product(StepStatus, StepStatus))


@pytest.mark.parametrize(("before", "after"), cells(RUNS, "yes", "same"))
def test_a_run_moves(before: str, after: str) -> None:
    run = a_run(before)
    moved = advance_run(run, RunStatus(after), error="now", context={"n": 2}, now=NOW)
    assert (moved.status, moved.error, moved.context) == (after, "now", {"n": 2})
    assert move(HeldRun(run, HoldState()), moved, fenced=False).run == moved


@pytest.mark.parametrize(("before", "after"), cells(RUNS, "no"))
def test_a_run_does_not_move(before: str, after: str) -> None:
    with pytest.raises(InvalidTransition) as refusal:
        advance_run(a_run(before), RunStatus(after), error="before", context={"n": 1}, now=NOW)
    assert (refusal.value.key, refusal.value.current, refusal.value.wanted) == ("r", before, after)


@pytest.mark.parametrize(("status", "_"), cells(RUNS, "again"))
def test_the_end_of_a_run_is_said_again(status: str, _: str) -> None:
    run = a_run(status)
    for context in ({"n": 1}, None):
        assert advance_run(run, RunStatus(status), error="before", context=context, now=NOW) is run
    other: list[tuple[str | None, Any]] = [(None, {"n": 1}), ("other", {"n": 1}), ("before", {"n": True})]
    for error, context in other:
        with pytest.raises(InvalidTransition, match=f"is {status} and cannot become {status}"):
            advance_run(run, RunStatus(status), error=error, context=context, now=NOW)


@pytest.mark.parametrize(("before", "after"), cells(STEPS, "yes", "same"))
def test_a_step_moves(before: str, after: str) -> None:
    moved = advance_step(a_step(before), StepStatus(after), output={"n": 2}, error="now", now=NOW)
    assert (moved.status, moved.error, moved.output) == (after, "now", {"n": 2})


@pytest.mark.parametrize(("before", "after"), cells(STEPS, "no"))
def test_a_step_does_not_move(before: str, after: str) -> None:
    with pytest.raises(InvalidTransition) as refusal:
        advance_step(a_step(before), StepStatus(after), output={"n": 1}, error="before", now=NOW)
    assert (refusal.value.key, refusal.value.current, refusal.value.wanted) == ("s", before, after)


@pytest.mark.parametrize(("status", "_"), cells(STEPS, "again"))
def test_the_end_of_a_step_is_said_again(status: str, _: str) -> None:
    step = a_step(status)
    same: list[tuple[Any, str | None]] = [({"n": 1}, "before"), (None, None)]
    for output, error in same:
        assert advance_step(step, StepStatus(status), output=output, error=error, now=NOW) is step
    other: list[tuple[Any, str | None]] = [({"n": 2}, None), ({"n": True}, None), (None, "other")]
    for output, error in other:
        with pytest.raises(InvalidTransition, match=f"is {status} and cannot become {status}"):
            advance_step(step, StepStatus(status), output=output, error=error, now=NOW)
