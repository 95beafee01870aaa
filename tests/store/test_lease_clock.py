"""Leases on a machine whose wall clock is set while the store is open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus.errors import RunHeld
from bus.model.records import GlobalOwner, WorkflowDefinition, WorkflowRun
from bus.model.repository import WorkflowRules
from store.sqlite import steady_clock
from store.sqlite.file.database import open_database
from store.sqlite.workflows.workflows import SqliteWorkflows

from ..contract.store.samples import at

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


class Machine:
    """The two clocks of a machine, both set by hand."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.set_by = timedelta()

    def wall(self) -> datetime:
        return START + timedelta(seconds=self.passed) + self.set_by

    def monotonic(self) -> float:
        return self.passed


@pytest.mark.parametrize("set_by", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=9000)], ids=str)
async def test_a_lease_is_as_long_as_it_was_given_whatever_the_clock_is_set_to(
    path: Path, set_by: timedelta
) -> None:
    machine = Machine()
    async with open_database(path, None) as database:
        clock = steady_clock(machine.wall, machine.monotonic)
        workflows = SqliteWorkflows(database, WorkflowRules(), machine.wall, clock)
        await workflows.save_definition(WorkflowDefinition(id="w", name="w", owner=GlobalOwner()))
        for id in ("r", "s"):
            await workflows.create_run(
                WorkflowRun(id=id, workflow_id="w", workflow_name="w", trigger_type="manual", started_at=at(0))
            )
            await workflows.claim_run(id, "ann", 10)
        machine.passed, machine.set_by = 9.0, set_by
        assert await workflows.list_crashed_runs() == []
        assert await workflows.recover_runs() == []
        with pytest.raises(RunHeld):
            await workflows.claim_run("r", "bob", 10)
        await workflows.renew_run("r", 1, 10)
        machine.passed = 11.0
        assert [run.id for run in await workflows.list_crashed_runs()] == ["s"]
        [recovered] = await workflows.recover_runs()
        assert recovered.run.id == "s"
        assert (await workflows.claim_run("s", "bob", 10)).fence == 3
