"""Removals by operators in the log: what is counted, what is gone, and one record of each."""

from __future__ import annotations

from typing import Any

import pytest

from bus.model.repository import (
    AddBot,
    AddDeadLetters,
    CancelDelayed,
    DeadLetter,
    DelayedRequest,
    DiscardDeadLetters,
    MessageLog,
    PurgeMailbox,
    Remove,
    Removed,
    Store,
    What,
)

from .conftest import LogPlace, stores_only
from .samples import add, at, bot, direct, page, release, to_channel

pytestmark = pytest.mark.anyio


async def remove(log: MessageLog, what: What | None, *, id: str = "first", **fields: Any) -> Removed:
    kinds = {DiscardDeadLetters: "dead_letters", PurgeMailbox: "backlog", CancelDelayed: "delayed"}
    kind = next((name for type, name in kinds.items() if isinstance(what, type)), "")
    change = Remove(id, "ops", "operator", at(9), kind, "bob", what, **fields)
    [removed] = (await log.apply([change])).answers
    assert isinstance(removed, Removed)
    return removed


async def bury(log: MessageLog, *seqs: int, mailbox_id: str = "bob") -> None:
    await log.apply([AddBot(bot(mailbox_id))])
    await add(log, *(direct(f"{mailbox_id}{seq}", "ann", mailbox_id) for seq in seqs))
    await log.apply([AddDeadLetters(tuple(DeadLetter(mailbox_id, seq, "no", 1, at(seq)) for seq in seqs))])


async def test_dead_letters_of_one_mailbox_are_removed(log: MessageLog) -> None:
    await bury(log, 1, 2)
    await bury(log, 3, 4, mailbox_id="eve")
    removed = await remove(log, DiscardDeadLetters("bob", (4, 2, 7, 2)))
    assert removed == Removed("dead_letters", "bob", {"dead_letters": 1}, (2,), done=True)
    assert {*(await log.load()).dead_letters} == {("bob", 1), ("eve", 3), ("eve", 4)}
    assert len(await log.messages([1, 2, 3, 4])) == 4


async def test_what_waits_is_counted(log: MessageLog) -> None:
    await add(log, *(direct(id, "ann", "bob") for id in "abcd"), to_channel("e", "ann", "news"))
    await add(log, to_channel("f", "bob", "news"))
    unread = page("bob", ("", 1), ("news", 0), skip_own={"news"}, seqs=(3,), through_seq=6)
    assert (await remove(log, PurgeMailbox(unread, 5))).counts == {"waiting": 5 + 3}


async def test_delayed_messages_of_one_sender_are_removed(log: MessageLog) -> None:
    await add(
        log, *(direct(id, "ann", "bob", due_at=at(50)) for id in "ab"), direct("a", "eve", "bob", due_at=at(60))
    )
    what = CancelDelayed("ann", ("b", "c", "a", "b"))
    assert (await remove(log, what, dry_run=True)).ids == ("a", "b")
    removed = await remove(log, what)
    assert removed == Removed("delayed", "bob", {"delayed": 2}, ids=("a", "b"), done=True)
    assert dict((await log.load()).scheduled) == {"eve": 1}
    assert [message.sender_bot_id for message in (await release(log, 70)).messages] == ["eve"]


@stores_only
async def test_delayed_messages_are_listed(log: MessageLog) -> None:
    assert await log.delayed(DelayedRequest(9)) == []
    sent = [direct(id, sender, "bob", due_at=at(second)) for id, sender, second in (
        ("b", "ann", 50), ("a", "eve", 50), ("a", "ann", 50), ("c", "ann", 40), ("d", "eve", 60),
    )]  # fmt: skip
    await add(log, *sent, direct("now", "ann", "bob"))
    expected = [("c", "ann"), ("a", "ann"), ("a", "eve"), ("b", "ann"), ("d", "eve")]
    found = await log.delayed(DelayedRequest(9))
    assert [(each.id, each.sender_bot_id) for each in found] == expected
    assert found[0] == sent[3]
    for place, each in enumerate(found, start=1):
        after = (each.due_at or "", each.id, each.sender_bot_id)
        rest = await log.delayed(DelayedRequest(2, after=after))
        assert [(each.id, each.sender_bot_id) for each in rest] == expected[place : place + 2]
    assert [each.id for each in await log.delayed(DelayedRequest(9, "eve"))] == ["a", "d"]


async def test_a_dry_run_removes_nothing(log: MessageLog) -> None:
    await bury(log, 1, 2)
    what = DiscardDeadLetters("bob", (1, 2))
    would = await remove(log, what, dry_run=True)
    assert would == Removed("dead_letters", "bob", {"dead_letters": 2}, (1, 2))
    assert await remove(log, what) == Removed("dead_letters", "bob", {"dead_letters": 2}, (1, 2), done=True)


async def test_a_repeated_id_has_its_first_answer(log: MessageLog) -> None:
    await bury(log, 1, 2)
    first = await remove(log, DiscardDeadLetters("bob", (1,)))
    for again in (DiscardDeadLetters("bob", (1, 2)), None):
        for dry_run in (False, True):
            answer = await remove(log, again, dry_run=dry_run)
            assert (answer.again, answer.seqs, answer.done) == (True, first.seqs, True)
    assert (await log.load()).dead_letters == [("bob", 2)]


async def test_an_unknown_id_without_anything_to_remove_is_not_recorded(log: MessageLog) -> None:
    assert await remove(log, None, dry_run=True) == Removed("", "bob")
    assert not (await remove(log, DiscardDeadLetters("bob", ()))).again


async def test_the_record_names_who_and_what(store: Store) -> None:
    await bury(store.log, 1)
    await remove(store.log, DiscardDeadLetters("bob", (1,)), dry_run=True)
    removed = await remove(store.log, DiscardDeadLetters("bob", (1,)), reference="ticket 7")
    [record] = await store.log.removals(0, 9)
    assert (record.id, record.at, record.bot_id, record.bot_name) == ("first", at(9), "ops", "operator")
    assert (record.reference, record.removed, record.damaged) == ("ticket 7", removed, False)
    assert (record.erased.seqs, record.scrubbed_at) == ((), None)
    await store.log.scrub(at(20))
    [record] = await store.log.removals(0, 9)
    assert (record.removed, record.scrubbed_at, record.damaged) == (removed, at(20), False)


@stores_only
async def test_what_was_removed_stays_so(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await bury(log, 1)
        await remove(log, DiscardDeadLetters("bob", (1,)))
    async with log_place.open() as log:
        assert (await log.load()).dead_letters == []
        assert (await remove(log, DiscardDeadLetters("bob", (1,)))).again
