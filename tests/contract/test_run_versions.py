"""Executing a run: two releases with different definitions, and sleeps that have changed, or whose clock has."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

import bus
from bus.errors import Conflict, InvalidValue
from bus.model.definitions import is_older
from bus.model.records import StepStatus, WorkflowDefinition
from bus.model.repository import WorkflowRepository
from bus.runs.timing import Timing

from .conftest import Clock, Place
from .executing import BOUND_SECONDS, Programs, mortal
from .samples import definition

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


@pytest.mark.parametrize(
    ("version", "other", "older"),
    [
        ("1.0.0", "1.0.1", True),
        ("1.9", "1.10", True),
        ("1", "1.0.1", True),
        ("1.0.0", "1", False),
        ("2", "1.9.9", False),
        ("1.0.0", "1.0.0", False),
        ("1.0.0-rc1", "1.0.0", False),
        ("spring", "summer", False),
        ("", "1", False),
    ],
)
def test_versions_are_compared_number_by_number(version: str, other: str, older: bool) -> None:
    assert is_older(version, other) is older


async def test_an_older_release_does_not_put_its_definition_back(programs: Programs) -> None:
    old, new = (definition("w", version=version, concurrency=int(version)) for version in ("1", "2"))
    for number, given in enumerate((old, new, old, new)):
        async with programs.open(f"r{number}", definition=given):
            pass
        wanted = old if number == 0 else new
        assert await programs.workflows.get_definition("w") == wanted
        assert await programs.workflows.get_run_definition(f"r{number}") == wanted


async def test_a_definition_with_the_same_version_is_replaced(programs: Programs) -> None:
    for concurrency in (1, 2):
        given = definition("w", concurrency=concurrency)
        async with programs.open(f"r{concurrency}", definition=given):
            pass
        assert await programs.workflows.get_definition("w") == given


async def test_of_two_programs_with_one_version_the_later_one_prevails(programs: Programs) -> None:
    old, new, newest = (definition("w", concurrency=number) for number in (1, 2, 3))
    for number, (given, counts) in enumerate([(old, old), (new, new), (old, new), (newest, newest), (new, newest)]):
        async with programs.open(f"r{number}", definition=given):
            pass
        assert await programs.workflows.get_definition("w") == counts
        assert await programs.workflows.get_run_definition(f"r{number}") == counts
    await programs.workflows.save_definition(old)  # on purpose
    for given in (new, newest, old):
        assert await programs.workflows.offer_definition(given) == old
        assert await programs.place.others.offer_definition(given) == old
    later = definition("w", concurrency=1, version="2")
    assert await programs.workflows.offer_definition(later) == later
    assert await programs.workflows.offer_definition(old) == later


async def test_an_offered_definition_is_checked_like_a_saved_one(workflows: WorkflowRepository) -> None:
    await workflows.save_definition(definition("w"))
    with pytest.raises(InvalidValue, match="concurrency"):
        await workflows.offer_definition(definition("w", concurrency=0))
    with pytest.raises(Conflict, match="belongs to another workflow"):
        await workflows.offer_definition(definition("v", name="w"))
    renamed = definition("w", name="v")
    assert await workflows.offer_definition(renamed) == renamed


async def test_an_older_definition_can_be_saved_on_purpose(programs: Programs) -> None:
    await programs.workflows.save_definition(definition("w", version="2"))
    await programs.workflows.save_definition(definition("w", version="1"))
    found = await programs.workflows.get_definition("w")
    assert found is not None
    assert found.version == "1"


async def test_a_sleep_of_another_length_is_another_step(programs: Programs, workflow: WorkflowDefinition) -> None:
    await programs.leave_undone(lambda run: run.sleep("nap", 0))
    async with programs.open() as run:
        with pytest.raises(bus.StepChanged, match="recorded for the input 0, and is now called with 5"):
            await run.sleep("nap", 5)
    async with programs.open() as run:
        await run.sleep("nap", 0)


async def test_a_clock_that_is_put_back_makes_no_sleep_longer(
    programs: Programs, workflow: WorkflowDefinition, clock: Clock
) -> None:
    timing = Timing(clock=clock, poll_seconds_max=0.02)
    put_back = Timing(clock=lambda: clock.now - timedelta(hours=1), poll_seconds_max=0.02)
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            dying = mortal(programs.workflows)

            async def execute() -> None:
                async with programs.open(through=dying, timing=timing) as run:
                    await run.sleep("nap", 0.5)

            tasks.start_soon(execute)
            await programs.until(lambda: programs.rows("nap"))
            dying.die()
            tasks.cancel_scope.cancel()
        clock.advance(20)  # the lease of the program that died is over
        async with programs.open(timing=put_back) as run:
            await run.sleep("nap", 0.5)
    [row] = await programs.rows("nap")
    assert row.status is StepStatus.COMPLETED
