"""Which runs are next for a slot: those whose claims would succeed now."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bus.errors import SlotsTaken
from bus.model.records import RunStatus
from bus.model.repository import RunNews, WorkflowStore

from ..conftest import Clock, StorePlace
from ..samples import ANN, add_bots, definition, run

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def workflows(store_place: StorePlace, clock: Clock) -> AsyncIterator[WorkflowStore]:
    async with store_place.open(clock=clock) as store:
        await add_bots(store, ANN)
        yield store.workflows


def news(run_id: str, next_runs: tuple[str, ...] = (), *, ended: bool = False) -> RunNews:
    """What is to be known of a run of w that ANN held last."""
    return RunNews(run_id, ended, ANN, next_runs, workflow=("w", "w"))


async def waiting(workflows: WorkflowStore, *ids: str, key: str | None = None, workflow: str = "w") -> None:
    """Create runs, and claim them: those without a slot wait."""
    for id in ids:
        await workflows.create_run(run(id, workflow, concurrency_key=key))
        try:
            await workflows.claim_run(id, ANN, 100, place_seconds=1000)
        except SlotsTaken:
            continue


async def test_as_many_are_next_as_there_are_slots_in_their_order(workflows: WorkflowStore) -> None:
    await workflows.save_definition(definition("w", concurrency=2))
    await waiting(workflows, "a", "b", "c", "d", "e")
    await waiting(workflows, "x", "y", "z", key="k")
    assert await workflows.next_runs() == []
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    assert await workflows.next_runs() == ["c"]
    await workflows.update_run_status("b", RunStatus.COMPLETED)
    await workflows.update_run_status("x", RunStatus.PAUSED)
    assert await workflows.next_runs() == ["c", "d", "z"]
    assert await workflows.news_of(["a", "x", "y", "nothing"], slots=True) == [
        news("a", ("c", "d"), ended=True),
        news("x", ("z",)),
        news("y"),
    ]
    assert await workflows.news_of(["a"], slots=False) == [news("a", ended=True)]


async def test_who_is_next_has_a_slot(workflows: WorkflowStore) -> None:
    await workflows.save_definition(definition("w", concurrency=3))
    await waiting(workflows, *"abcdefgh")
    for id in "ab":
        await workflows.update_run_status(id, RunStatus.COMPLETED)
    next_runs = await workflows.next_runs()
    for id in next_runs:
        await workflows.claim_run(id, ANN, 100)
    assert next_runs == ["d", "e"]
    assert await workflows.next_runs() == []


async def test_a_definition_without_a_limit_lets_all_of_them_run(workflows: WorkflowStore) -> None:
    await workflows.save_definition(definition("w", concurrency=1))
    await waiting(workflows, "a", "b", "c")
    await workflows.save_definition(definition("w", concurrency=None))
    assert await workflows.next_runs() == ["b", "c"]
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    assert await workflows.news_of(["a"], slots=True) == [news("a", ("b", "c"), ended=True)]


async def test_a_place_that_ended_is_not_waited_for(workflows: WorkflowStore, clock: Clock) -> None:
    await workflows.save_definition(definition("w", concurrency=1))
    await waiting(workflows, "a", "b", "c", "d")
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    await workflows.leave_queue("b")
    assert await workflows.next_runs() == ["c"]
    await workflows.end_places(None, 15)
    clock.advance(14)
    assert await workflows.next_runs() == ["c"]
    clock.advance(1)
    assert await workflows.next_runs() == []
    await workflows.claim_run("d", ANN, 100)


async def test_ending_a_place_does_not_prolong_it(workflows: WorkflowStore, clock: Clock) -> None:
    await workflows.save_definition(definition("w", concurrency=1))
    await waiting(workflows, "a", "b")
    await workflows.end_places(["b"], 10)
    await workflows.end_places(["b"], 500)
    await workflows.update_run_status("a", RunStatus.COMPLETED)
    clock.advance(10)
    assert await workflows.next_runs() == []
