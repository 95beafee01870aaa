"""The budgets of threads: counted in the transaction that stores a reply, however it comes, and kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.errors import BudgetSpent
from bus.model.budgeting import budgeted
from bus.model.budgets import NO_BUDGET, Budget, budget_of
from bus.model.repository import (
    Added,
    AddMessages,
    Appended,
    Committed,
    Erase,
    FindRequest,
    MessageLog,
    NewMessage,
    NotCommitted,
    ReleaseDue,
    RemoveMessages,
    lots_of,
)

from .conftest import LogPlace
from .samples import add, at, direct, page, read_page, to_channel, work

pytestmark = pytest.mark.anyio


def root(id: str, hops: int | None = None, deadline: str | None = None, **fields: Any) -> NewMessage:
    """A message that gives its thread a budget."""
    return budgeted(direct(id, "ann", "bob", **fields), Budget(hops, deadline))


def reply(id: str, reply_to: str | None, **fields: Any) -> NewMessage:
    return direct(id, "ann", "bob", reply_to=reply_to, **fields)


async def left(log: MessageLog) -> dict[str, Budget]:
    """Return the budget of each message, as it is delivered, with when it expires."""
    found = (await read_page(log, page("bob", ("", 0), messages_max=5000))).messages
    for message in found:
        assert (message.expires_at is None) == (budget_of(message.headers).deadline is None)
    return {message.id: budget_of(message.headers) for message in found}


async def sent(log: MessageLog, *messages: NewMessage, seconds: int = 1) -> list[Added]:
    return await add(log, *messages, second=seconds)


def is_spent(added: Added) -> bool:
    return added.seq is None and added.budget is not None and added.budget.is_spent


async def test_each_answer_has_one_hop_less_until_there_is_none(log: MessageLog) -> None:
    await add(log, root("first", 2))
    for id, reply_to in (("second", "first"), ("third", "second")):
        [added] = await add(log, reply(id, reply_to))
        assert added.seq is not None
    [refused] = await add(log, reply("fourth", "third"))
    assert is_spent(refused)
    assert await left(log) == {"first": Budget(2), "second": Budget(1), "third": Budget(0)}


async def test_what_is_answered_twice_leaves_the_same_to_both(log: MessageLog) -> None:
    await add(log, root("first", 2))
    await add(log, reply("one", "first"), reply("other", "first"))
    await add(log, reply("beside", None), reply("after", "one"))
    expected = {"first": 2, "one": 1, "other": 1, "beside": None, "after": 0}
    assert {id: budget.hops for id, budget in (await left(log)).items()} == expected


async def test_an_answer_may_have_less_and_never_more(log: MessageLog) -> None:
    await add(log, root("first", 5, at(100)))
    await add(log, root("less", 1, at(50), reply_to="first"), root("more", 9, at(500), reply_to="first"))
    found = await left(log)
    assert found["less"] == Budget(1, at(50))
    assert found["more"] == Budget(4, at(100))


async def test_a_thread_ends_at_its_deadline(log: MessageLog) -> None:
    await sent(log, root("first", deadline=at(10)))
    await sent(log, reply("in time", "first"), seconds=9)
    [late] = await sent(log, reply("late", "in time"), seconds=10)
    assert is_spent(late)
    assert await left(log) == {"first": Budget(None, at(10)), "in time": Budget(None, at(10))}


async def test_an_answer_that_is_due_after_the_deadline_is_refused_at_once(log: MessageLog) -> None:
    await sent(log, root("first", deadline=at(10)))
    waits, late = await sent(log, reply("waits", "first", due_at=at(9)), reply("late", "first", due_at=at(10)))
    assert waits.scheduled
    assert is_spent(late)


async def test_a_message_expires_with_its_thread_or_earlier(log: MessageLog) -> None:
    await sent(log, root("first", deadline=at(10)))
    await sent(log, reply("sooner", "first", expires_at=at(5)), reply("later", "first", expires_at=at(20)))
    found = (await read_page(log, page("bob", ("", 0)))).messages
    assert {message.id: message.expires_at for message in found} == {
        "first": at(10), "sooner": at(5), "later": at(10),
    }  # fmt: skip


async def test_the_answers_of_a_lot_are_told_apart(log: MessageLog) -> None:
    await add(log, root("two", 2), root("none", 0), reply("free", None))
    lots = lots_of([reply(str(at), id) for at, id in enumerate(["two", "two", "none", "free", "none", "two"])])
    assert len(lots) == 1
    [[outcome]] = (await log.apply([AddMessages(lots, at(1))])).answers
    assert [added.seq for added in outcome] == [4, 5, None, 6, None, 7]
    assert [added.budget for added in outcome] == [
        Budget(1), Budget(1), Budget(-1), None, Budget(-1), Budget(1),
    ]  # fmt: skip


async def test_a_lot_with_one_budget_stays_one(log: MessageLog) -> None:
    await add(log, root("first", 3))
    lots = lots_of([reply(str(number), "first") for number in range(100)])
    [[outcome]] = (await log.apply([AddMessages(lots, at(1))])).answers
    assert outcome == Appended(2, budget=Budget(2))


async def test_a_chain_in_one_batch_is_counted(log: MessageLog) -> None:
    found = await add(log, root("first", 9), *(reply(str(n), str(n - 1) if n else "first") for n in range(11)))
    assert [is_spent(added) for added in found] == [False] * 10 + [True, False], "the last one answers nothing"


async def test_a_repeat_is_answered_as_before_whatever_is_left_now(log: MessageLog) -> None:
    await sent(log, root("first", 1, at(10)))
    [accepted] = await sent(log, reply("answer", "first"), seconds=2)
    [again] = await sent(log, reply("answer", "first"), seconds=20)
    assert again == Added(accepted.seq, duplicate=True)


async def test_what_answers_an_unknown_message_begins_a_thread(log: MessageLog) -> None:
    await add(log, root("first", 0), direct("last", "ann", "bob"))
    await log.apply([RemoveMessages((1,))])
    [free] = await add(log, reply("answer", "first"))
    [own] = await add(log, root("with its own", 3, reply_to="never sent"))
    assert free.seq is not None
    assert own.budget == Budget(3)


@pytest.mark.parametrize("due_at", [None, at(1000)])
@pytest.mark.parametrize("in_one_batch", [False, True])
async def test_an_answer_to_a_bot_gets_what_that_bots_message_left(
    log: MessageLog, in_one_batch: bool, due_at: str | None
) -> None:
    before, mine = (
        budgeted(direct("one", "eve", "ann"), Budget(0)),
        budgeted(direct("one", "bob", "ann"), Budget(5)),
    )
    after = budgeted(direct("one", "dan", "ann"), Budget(0, at(2)))
    messages = [before, msgspec.structs.replace(mine, due_at=due_at), after, reply("answer", "one")]
    groups = [messages] if in_one_batch else [[message] for message in messages]
    *_, added = [each for group in groups for each in await sent(log, *group)]
    assert added.budget == Budget(4)


@pytest.mark.parametrize("in_one_batch", [False, True])
async def test_an_answer_to_anybody_else_gets_what_the_first_with_the_id_left(
    log: MessageLog, in_one_batch: bool
) -> None:
    waits = budgeted(direct("one", "zoe", "ann", due_at=at(1000)), Budget(7))
    first, copy = budgeted(direct("one", "bob", "ann"), Budget(5)), budgeted(direct("one", "eve", "ann"), Budget(0))
    answers = [
        direct("to a third", "ann", "dan", reply_to="one"),
        to_channel("told", "ann", "news", reply_to="one"),
    ]
    messages = [*([] if in_one_batch else [waits]), first, copy, *answers]
    groups = [messages] if in_one_batch else [[message] for message in messages]
    found = [each for group in groups for each in await sent(log, *group)]
    assert [added.budget for added in found[-2:]] == [Budget(4), Budget(4)]


async def test_of_what_waits_the_first_that_is_due_counts(log: MessageLog) -> None:
    late, soon = direct("one", "bob", "ann", due_at=at(20)), direct("one", "eve", "ann", due_at=at(10))
    await sent(log, budgeted(late, Budget(0)), budgeted(soon, Budget(3)))
    [added] = await sent(log, direct("to a third", "ann", "dan", reply_to="one"))
    assert added.budget == Budget(2)


async def test_a_message_that_is_refused_is_not_answered(log: MessageLog) -> None:
    refused = msgspec.structs.replace(root("full", 0), known_only=True)
    *_, added = await add(log, root("first", 1), refused, reply("answer", "full"))
    assert (added.seq, added.budget) == (2, None)


async def test_a_delayed_message_has_the_budget_that_was_left_when_it_was_sent(log: MessageLog) -> None:
    await sent(log, root("first", 3, at(100)), root("own", 7, due_at=at(5)))
    await sent(log, reply("waits", "first", due_at=at(5)))
    await sent(log, reply("follows", "waits"))
    await log.apply([ReleaseDue(at(6), 10)])
    found = await left(log)
    assert found["waits"] == Budget(2, at(100))
    assert found["follows"] == Budget(1, at(100))
    assert found["own"] == Budget(7)


async def test_a_commit_with_a_spent_answer_does_nothing(log: MessageLog) -> None:
    await add(log, root("first", 1), root("end", 0))
    fits = work("fits", lots=lots_of([reply("one", "first")]))
    spent = work("spent", lots=lots_of([direct("beside", "ann", "bob"), reply("two", "end")]), number=2)
    also = work("also", lots=lots_of([reply("three", "first"), reply("four", "three")]), number=3)
    answers = (await log.apply([fits, spent, also])).answers
    assert isinstance(answers[0], Committed)
    assert answers[0].added == [Appended(3, budget=Budget(0))]
    for answer, answered in ((answers[1], "end"), (answers[2], None)):
        if answered is not None:
            assert isinstance(answer, NotCommitted)
            assert isinstance(answer.error, BudgetSpent)
            assert (answer.error.reply_to, answer.error.deadline) == (answered, None)
    assert isinstance(answers[2], NotCommitted)
    assert isinstance(answers[2].error, BudgetSpent)
    assert answers[2].error.reply_to == "three"
    assert {*await left(log)} == {"first", "end", "one"}
    [again] = (await log.apply([fits])).answers
    assert again == Committed(answers[0].seqs)


async def test_what_is_left_is_known_after_a_restart(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, root("first", 1), direct("other", "ann", "bob"))
    async with log_place.open() as log:
        await add(log, reply("second", "first"), reply("free", "other"))
        [refused] = await add(log, reply("third", "second"))
        assert is_spent(refused)
        assert await left(log) == {
            "first": Budget(1), "other": NO_BUDGET, "second": Budget(0), "free": NO_BUDGET,
        }  # fmt: skip


async def test_a_refused_commit_with_the_first_budget_notes_nothing(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        lots = lots_of([root("first", 0), reply("second", "first")])
        [refused] = (await log.apply([work("spent", lots=lots)])).answers
        assert isinstance(refused, NotCommitted)
        await add(log, root("own", 0), direct("other", "ann", "bob"))
    async with log_place.open() as log:
        [answer] = await add(log, reply("answer", "own"))
        assert is_spent(answer), "it is known after a restart that there are budgets"


async def test_a_deadline_of_an_answer_that_is_over_at_once_only_lets_it_expire(log: MessageLog) -> None:
    await sent(log, root("first", deadline=at(90)))
    [added] = await sent(log, root("short", deadline=at(3), reply_to="first"), seconds=5)
    assert added.budget == Budget(None, at(3))


async def test_an_erased_message_leaves_its_budget_to_its_answers(log: MessageLog) -> None:
    await add(log, root("first", 1, at(10), headers=b'{"secret":"yes"}'), direct("last", "ann", "bob"))
    await log.apply([Erase("1", "ops", "ops", at(2), seqs=(1,))])
    [added] = await sent(log, reply("second", "first"))
    assert added.budget == Budget(0, at(10))
    erased = await log.find(FindRequest("first"))
    assert erased is not None
    assert erased.body == b""
    assert b"secret" not in erased.headers
    assert budget_of(erased.headers) == Budget(1, at(10))


async def test_what_was_counted_where_it_comes_from_is_not_counted_again(log: MessageLog) -> None:
    kept = Budget(kept=True)
    await sent(log, root("first", 0, at(2)))
    imported = msgspec.structs.replace(reply("imported", "first"), budget=kept)
    [added] = await sent(log, imported, seconds=30)
    assert added.seq is not None
