"""What commands ask about the runs that they show: which wait for a person, and the names of their bots."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from uuid import UUID

import msgspec
import pytest

from bus import Bot
from bus.cli.finding import asking_of, bot_names
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


class Bots:
    """A house of bots whose names are their ids in upper case, but for one that is gone. It notes what is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def bots(self, *, only: list[str]) -> list[SimpleNamespace]:
        self.asked.append(len(only))
        return [SimpleNamespace(id=each, name=each.upper()) for each in only if each != GONE]


GONE = str(UUID(int=0))


async def test_names_are_asked_of_the_bots_that_are_shown() -> None:
    house, ids = Bots(), [str(UUID(int=number)) for number in range(1500)]
    names = await bot_names(cast(Bot, house), [*ids, *ids, None, "an author's text"])
    assert names == {id: id.upper() for id in ids if id != GONE}
    assert house.asked == [1000, 500]
    assert await bot_names(cast(Bot, house), [None]) == {}
    assert len(house.asked) == 2
