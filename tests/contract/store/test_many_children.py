"""Cancelling a run with many children: in portions, between which others write, and of which none is forgotten."""

from __future__ import annotations

import anyio
import pytest

from bus.model.records import CONTINUED, WORKER_ID, WORKER_NAME, RunStatus, WorkflowRun
from bus.model.repository import CommitWork, RecoverRuns, Store
from bus.model.workflows import WorkflowRepository
from store.portions import CANCELLED_RUNS

from ...engines import query
from ..conftest import StorePlace
from ..samples import ANN, add_bots, at, definition, run

pytestmark = pytest.mark.anyio

CHILDREN = 3 * CANCELLED_RUNS + 7


async def family(workflows: WorkflowRepository) -> None:
    """Create a run with many children, some of which have ended, and one that has as many of its own."""
    await workflows.save_definition(definition("w"))
    await workflows.create_run(run("r"))
    await workflows.create_run(run("c0", parent_run_id="r"))
    for number in range(1, CHILDREN):
        await workflows.create_run(run(f"c{number}", parent_run_id="r"))
        await workflows.create_run(run(f"d{number}", parent_run_id="c0"))
    await workflows.update_run_status("c1", RunStatus.COMPLETED)
    await workflows.create_run(run("c1~2", parent_run_id="c1", trigger_type=CONTINUED))
    await workflows.update_run_status("c2", RunStatus.FAILED)
    await workflows.create_run(run("under", parent_run_id="c2"))


async def left(workflows: WorkflowRepository) -> set[str]:
    """Return which runs are not cancelled."""
    return {each.id for each in await workflows.list_runs("w", None) if each.status is not RunStatus.CANCELLED}


UNTOUCHED = {"c1", "c2", "under"}


async def test_others_write_between_the_portions(store: Store) -> None:
    workflows, done = store.workflows, list[str]()
    await family(workflows)

    async def cancel() -> None:
        await workflows.cancel_run("r", "too many")
        done.append("cancelled")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        await anyio.lowlevel.checkpoint()
        await workflows.create_run(run("other"))
        done.append("created")
    assert done == ["created", "cancelled"]
    assert await left(workflows) == UNTOUCHED | {"other"}
    assert {run.error for run in await workflows.list_runs("w", None) if run.status is RunStatus.CANCELLED} == {
        "too many",
        "run r was cancelled: too many",
    }


async def cancelled_in_a_commit(store: Store) -> int:
    """Cancel the run in a transaction of the log, as its program does, and return how many runs are left."""
    await add_bots(store, ANN)
    fence = (await store.workflows.claim_run("r", ANN)).fence
    work = CommitWork(
        id="00000000-0000-4000-8000-000000000001",
        bot_id=ANN,
        digest="",
        run_id="r",
        fence=fence,
        steps=[],
        status=RunStatus.CANCELLED,
        error=None,
        context=None,
        lots=[],
        channels=[],
        known_only=False,
        timestamp=at(1),
        number=1,
    )
    await store.log.apply([work])
    return len(await left(store.workflows))


async def test_what_a_crash_left_is_cancelled_by_the_next_worker(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        await family(store.workflows)
        before = len(await left(store.workflows))
        assert before - await cancelled_in_a_commit(store) == CANCELLED_RUNS + 1
    async with store_place.open() as store:
        sweeps = 0
        while await left(store.workflows) != UNTOUCHED:
            await store.workflows.recover_runs()
            sweeps += 1
            assert sweeps <= before // CANCELLED_RUNS + 1
        assert sweeps == (before - 1) // CANCELLED_RUNS


async def test_a_worker_sweeps_until_none_is_left(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        await family(store.workflows)
        await cancelled_in_a_commit(store)
    async with store_place.open() as store:
        to_cancel = await left(store.workflows) - UNTOUCHED
        cancelled: list[str] = []
        more = True
        while more:  # soon after its start, it ends no holds
            sweep = RecoverRuns(0, WORKER_ID, WORKER_NAME, timestamp=at(2))
            [swept] = (await store.log.apply([sweep])).answers
            cancelled += swept.cancelled
            more = swept.more
        assert (set(cancelled), len(cancelled)) == (to_cancel, len(to_cancel))
        assert await left(store.workflows) == UNTOUCHED


async def test_what_is_started_to_clean_up_lives_on(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        workflows = store.workflows
        await family(workflows)
        await add_bots(store, ANN)
        fence = (await workflows.claim_run("r", ANN, cleans_up=True)).fence
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(workflows.cancel_run, "r")
            refund: WorkflowRun | None = None
            while refund is None:
                asked = await workflows.get_run("r")
                if asked is not None and asked.cancel_by is not None:
                    refund = await workflows.create_run(run("refund", parent_run_id="r"), fence=fence)
        assert await left(workflows) == UNTOUCHED | {"r", "refund"}
        await workflows.cancel_run("r", None, 0)
        assert await left(workflows) == UNTOUCHED, "a second request, with a shorter time, is for it too"


async def test_a_damaged_child_holds_up_nobody(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        await family(store.workflows)
    await query(store_place.url, "UPDATE workflow_runs SET context = 'damaged' WHERE id = 'c9'")
    async with store_place.open() as store:
        await store.workflows.cancel_run("r")
        await store.workflows.recover_runs()
        statuses = {
            each.id: each.status for each in await store.workflows.list_all_runs(limit=None) if each.id != "c9"
        }
    assert {id for id, status in statuses.items() if status is not RunStatus.CANCELLED} == UNTOUCHED
