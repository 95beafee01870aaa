"""What `posthouse runs` asks to say which of the runs that it shows wait for a person."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest

from bus.cli.finding import asking_of
from bus.model.records import RunStatus, RunSummary, WorkflowStepLog
from bus.model.repository import WorkflowRepository

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Workflows:
    """Runs of which some wait for a person. It notes of which it was asked."""

    def __init__(self, *waiting: str) -> None:
        self.waiting = waiting
        self.asked: list[tuple[str | None, int | None]] = []

    async def list_waiting_approvals(self, run_id: str | None, limit: int | None) -> list[WorkflowStepLog]:
        self.asked.append((run_id, limit))
        assert run_id is not None
        step = WorkflowStepLog(id="s", run_id=run_id, step_id="agree", step_name="agree")
        return [step] if run_id in self.waiting else []


async def test_only_of_runs_that_are_shown_and_go_on_it_is_asked_whether_they_wait() -> None:
    run = RunSummary("r", "w", "w", RunStatus.PAUSED, "manual", "t", None, None, None, None, 0, None, 0, None)
    ended = msgspec.structs.replace(run, id="ended", completed_at="t", status=RunStatus.COMPLETED)
    shown = [ended, *(msgspec.structs.replace(run, id=f"r-{number}") for number in range(250))]
    workflows = Workflows("ended", "r-7", "r-249", "another")
    assert await asking_of(cast(WorkflowRepository, workflows), shown) == {"r-7", "r-249"}
    assert sorted(workflows.asked) == sorted((each.id, 1) for each in shown[1:])
