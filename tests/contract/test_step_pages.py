"""What every WorkflowRepository does (docs/workflows.md): a run's history, read page by page."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from bus.errors import NotFound
from bus.model.openings import OpenedRun
from bus.model.records import StepStatus, WorkflowDefinition, WorkflowRun, WorkflowStepLog
from bus.model.repository import WorkflowRepository

from .conftest import Place
from .executing import BOUND_SECONDS, Programs
from .samples import at, run, step

pytestmark = pytest.mark.anyio

KIB = 1024


async def fill(workflows: WorkflowRepository) -> None:
    """Create more step logs than fit into a page, in an order that is not that of their ids."""
    times = [at(3), at(1), None, at(1), at(2), None] * 5
    for number, began in enumerate(times):
        status = StepStatus.PENDING if began is None else StepStatus.COMPLETED
        row = step(f"{97 - number}", status=status, started_at=began, output="x" * (100 * KIB))
        await workflows.create_step_log(row)


async def pages(workflows: WorkflowRepository, run_id: str) -> list[list[WorkflowStepLog]]:
    page = await workflows.page_step_logs(run_id)
    found = [list(page.steps)]
    while page.more:
        page = await workflows.page_step_logs(run_id, page.steps[-1].id)
        found.append(list(page.steps))
    return found


async def test_the_pages_of_a_history_are_its_list(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_run(run("other"))
    await workflows.create_step_log(step("of another run", "other", started_at=at(0)))
    await fill(workflows)
    found = await pages(workflows, "r")
    rows = [row for page in found for row in page]
    expected = await workflows.list_step_logs("r", 1000)
    assert rows == expected == await workflows.list_step_logs("r")
    assert [row.started_at for row in rows] == [at(1)] * 10 + [at(2)] * 5 + [at(3)] * 5 + [None] * 10
    assert len(found) > 1


async def test_a_page_has_as_many_step_logs_as_fit(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    for number in range(400):
        await workflows.create_step_log(step(f"{number:03}", started_at=at(0), output="x" * KIB))
    assert [len(page) for page in await pages(workflows, "r")] == [400]
    for number in range(3):
        await workflows.create_step_log(step(f"large {number}", started_at=at(1), output="x" * (900 * KIB)))
    assert [page[-1].id for page in await pages(workflows, "r")][-2:] == ["large 1", "large 2"]


async def test_a_page_follows_a_step_log_of_its_run(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_run(run("other"))
    await workflows.create_step_log(step("of another run", "other"))
    for missing in ("of another run", "nowhere"):
        with pytest.raises(NotFound):
            await workflows.page_step_logs("r", missing)
    empty = await workflows.page_step_logs("r")
    assert (empty.steps, empty.more) == ((), False)


async def test_a_step_log_is_found_by_its_id(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    created = await workflows.create_step_log(step("s", output={"n": 1}, started_at=at(0)))
    assert await workflows.get_step_log("s") == created
    assert await workflows.get_step_log("nowhere") is None


class SlowReading:
    """Workflows whose history is read only when the lease was renewed."""

    def __init__(self, workflows: WorkflowRepository) -> None:
        self._workflows = workflows
        self._renewed = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workflows, name)

    async def renew_run(self, *args: Any) -> Any:
        lease = await self._workflows.renew_run(*args)
        self._renewed.set()
        return lease

    async def open_run(self, *args: Any) -> OpenedRun:
        return msgspec.structs.replace(await self._workflows.open_run(*args), steps=None)

    async def list_step_logs(self, run_id: str) -> list[WorkflowStepLog]:
        with anyio.fail_after(BOUND_SECONDS):
            await self._renewed.wait()
        return await self._workflows.list_step_logs(run_id)


async def test_a_lease_is_renewed_while_a_history_is_read(place: Place, workflow: WorkflowDefinition) -> None:
    programs = Programs(place)
    await programs.leave_undone(lambda run: run.step("a", lambda: 1))
    async with programs.open(through=SlowReading(place.workflows), lease_seconds=0.3) as opened:
        assert await opened.step("a", lambda: 2) == 1


async def test_a_run_whose_history_cannot_be_read_is_given_back(place: Place, workflow: WorkflowDefinition) -> None:
    class Unreadable(SlowReading):
        async def list_step_logs(self, run_id: str) -> list[WorkflowStepLog]:
            raise ValueError("unreadable")

    programs = Programs(place)
    await place.workflows.create_run(run("r"))  # of a run that is new, there is no history to read
    with pytest.raises(ValueError, match="unreadable"):
        async with programs.open(through=Unreadable(place.workflows)):
            pytest.fail("the block was entered")
    async with programs.open_as_other(timeout=0) as opened:
        assert await opened.step("a", lambda: 1) == 1
