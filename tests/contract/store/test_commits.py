"""A commit beside other writes: it shares their transaction, and a neighbour that fails takes nothing of it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from bus.errors import Conflict, NotFound, TooLarge
from bus.model.records import RunStatus, WorkflowStepLog
from bus.model.repository import (
    AddBot,
    AddMessages,
    Appended,
    Committed,
    FindRequest,
    LogMessage,
    MailboxState,
    MessageLog,
    NotCommitted,
    SaveMailbox,
    Store,
    UnsettledState,
    WorkflowRules,
    lots_of,
)

from ..conftest import StorePlace
from .conftest import stores_only
from .samples import at, bot, direct, hold_run, work

pytestmark = pytest.mark.anyio


async def test_neighbours_that_fail_take_nothing_of_it(store: Store) -> None:
    """It is first in its group, which is rolled back for the second's sake, and is carried out a second time."""
    answers: dict[str, Any] = {}

    async def apply(name: str, change: Any) -> None:
        [answers[name]] = (await store.log.apply([change])).answers

    async def fails() -> None:
        with pytest.raises(NotFound):
            await store.workflows.update_run_status("nowhere", RunStatus.RUNNING)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(apply, "commit", work("c", "bob"))
            tasks.start_soon(fails)
            tasks.start_soon(apply, "next", AddMessages(lots_of([direct("d", "ann", "bob")]), at(1)))
        answers["again"] = (await store.log.apply([work("c", "bob")])).answers[0]
    assert isinstance(answers["commit"], Committed)
    assert answers["commit"].added is not None, "nothing of the first time stayed"
    assert answers["commit"].added + answers["next"] == [Appended(1), Appended(2)]
    assert answers["again"] == Committed([1])
    found = [await store.log.find(FindRequest(id)) for id in ("c to bob", "d")]
    assert [message.seq for message in found if isinstance(message, LogMessage)] == [1, 2]


@stores_only
async def test_one_that_is_refused_leaves_its_neighbours(log: MessageLog) -> None:
    refused, done = (await log.apply([work("c", "bob", run_id="nowhere"), work("d", "bob")])).answers
    assert not isinstance(refused, Committed)
    assert done.seqs == [1]
    assert await log.find(FindRequest("c to bob")) is None


@stores_only
async def test_a_commit_that_is_alone_goes_to_the_disk_with_what_follows_it(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    with pytest.raises(Conflict):
        await log.apply([work("c", "ann"), AddBot(bot("ann"))])
    assert (await log.load()).last_seq == 0
    assert (await log.apply([work("c", "ann", known_only=True)])).answers == [None], "nothing without the rest"


async def test_a_commit_settles_in_its_own_transaction(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    state = MailboxState("ann", 0, (UnsettledState(7, 1, 0),))
    answers = (await log.apply([work("c", "ann"), SaveMailbox(state, {1: [7]})])).answers
    assert isinstance(answers[0], Committed)
    [mailbox] = (await log.load()).mailboxes
    assert mailbox.unsettled == ()


async def test_a_new_step_that_could_not_be_sent_to_who_reads_it_is_refused(store_place: StorePlace) -> None:
    """Its numbers are longer as they are stored than as they came."""
    output = [1e15] * 100
    step = WorkflowStepLog(id="s", run_id="r", step_id="s", step_name="s", output=output)
    async with store_place.open(rules=WorkflowRules(record_bytes_max=1_500)) as store:
        await hold_run(store, "r")
        [answer] = (await store.log.apply([work("c", "bob", run_id="r", steps=[step])])).answers
        assert isinstance(answer, NotCommitted)
        assert isinstance(answer.error, TooLarge)
        assert await store.workflows.list_step_logs("r") == []
        assert await store.log.find(FindRequest("c to bob")) is None
