"""Removals by operators in the log: what is counted, what is gone, and one record of each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.model.erasing import joined
from bus.model.records import BotOwner, WorkflowDefinition
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    AddSubscription,
    CancelDelayed,
    CloseChannel,
    CloseGroup,
    DeadLetter,
    DelayedRequest,
    DiscardDeadLetters,
    EndSubscription,
    Erase,
    MessageLog,
    PurgeMailbox,
    Remove,
    RemoveBot,
    Removed,
    RemoveSubscription,
    Store,
    What,
)

from .conftest import LogPlace, stores_only
from .samples import add, at, bot, channel, direct, hold_run, page, release, to_channel

pytestmark = pytest.mark.anyio


def removal(what: What | None, *, id: str = "first", **fields: Any) -> Remove:
    kinds = {DiscardDeadLetters: "dead_letters", PurgeMailbox: "backlog", CancelDelayed: "delayed"}
    kind = next((name for type, name in kinds.items() if isinstance(what, type)), "")
    return Remove(id, "ops", "operator", at(9), kind, "bob", what, **fields)


async def look(log: MessageLog, what: What | None, **fields: Any) -> Removed:
    return (await log.look(removal(what, **fields))).removed


async def remove(log: MessageLog, what: What | None, **fields: Any) -> Removed:
    change = removal(what, **fields)
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


async def test_what_was_counted_is_not_counted_again(log: MessageLog) -> None:
    """Between the count and the removal some of it is delivered, some early, and more arrives."""
    await add(log, *(direct(id, "ann", "bob") for id in "abcd"), *(to_channel(id, "ann", "news") for id in "efg"))
    before = page("bob", ("", 1), ("news", 0), seqs=(3,), through_seq=7)
    looked = await log.look(removal(PurgeMailbox(before, 0)))
    assert looked.removed.counts == {"waiting": 2 + 3}
    assert sorted(each.messages for each in looked.counted) == [3, 3]
    await add(log, direct("h", "ann", "bob"), to_channel("i", "ann", "news"), to_channel("j", "ann", "other"))
    now = page("bob", ("", 2), ("news", 5), ("other", 0), seqs=(3, 6), through_seq=10)
    counts = {"waiting": 2 + 2 + 1}  # d and h, g and i, j
    assert (await look(log, PurgeMailbox(now, 0))).counts == counts
    assert (await remove(log, PurgeMailbox(now, 0), counted=looked.counted)).counts == counts


@stores_only
async def test_what_was_counted_is_believed(log: MessageLog) -> None:
    await add(log, *(direct(id, "ann", "bob") for id in "abc"))
    waiting = PurgeMailbox(page("bob", ("", 1)), 0)
    [counted] = (await log.look(removal(waiting))).counted
    more = msgspec.structs.replace(counted, messages=counted.messages + 100)
    assert (await remove(log, waiting, counted=(more,))).counts == {"waiting": 102}


async def test_a_subscription_from_the_past_after_a_count_is_counted(log: MessageLog) -> None:
    await add(log, *(to_channel(id, "ann", "news") for id in "abcd"))
    looked = await log.look(removal(PurgeMailbox(page("bob", ("news", 3)), 0)))
    assert looked.removed.counts == {"waiting": 1}
    removed = await remove(log, PurgeMailbox(page("bob", ("news", 1)), 0), counted=looked.counted)
    assert removed.counts == {"waiting": 3}


async def test_delayed_messages_of_one_sender_are_removed(log: MessageLog) -> None:
    await add(
        log, *(direct(id, "ann", "bob", due_at=at(50)) for id in "ab"), direct("a", "eve", "bob", due_at=at(60))
    )
    what = CancelDelayed("ann", ("b", "c", "a", "b"))
    assert (await look(log, what)).ids == ("a", "b")
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
    expected = [("c", "ann"), ("b", "ann"), ("a", "eve"), ("a", "ann"), ("d", "eve")]
    found = await log.delayed(DelayedRequest(9))
    assert [(each.id, each.sender_bot_id) for each in found] == expected
    assert found[0] == sent[3]
    for place, each in enumerate(found, start=1):
        after = (each.due_at or "", each.id, each.sender_bot_id)
        rest = await log.delayed(DelayedRequest(2, after=after))
        assert [(each.id, each.sender_bot_id) for each in rest] == expected[place : place + 2]
    assert [each.id for each in await log.delayed(DelayedRequest(9, "eve"))] == ["a", "d"]
    await remove(log, CancelDelayed("eve", ("a",)))
    rest = await log.delayed(DelayedRequest(9, after=(at(50), "a", "eve")))
    assert [(each.id, each.sender_bot_id) for each in rest] == [("b", "ann"), ("a", "ann"), ("d", "eve")]


async def test_a_dry_run_removes_nothing(log: MessageLog) -> None:
    await bury(log, 1, 2)
    what = DiscardDeadLetters("bob", (1, 2))
    would = await look(log, what)
    assert would == Removed("dead_letters", "bob", {"dead_letters": 2}, (1, 2))
    assert await remove(log, what) == Removed("dead_letters", "bob", {"dead_letters": 2}, (1, 2), done=True)


async def test_a_repeated_id_has_its_first_answer(log: MessageLog) -> None:
    await bury(log, 1, 2)
    first = await remove(log, DiscardDeadLetters("bob", (1,)))
    for again in (DiscardDeadLetters("bob", (1, 2)), None):
        for answer in (await look(log, again), await remove(log, again)):
            assert (answer.again, answer.seqs, answer.done) == (True, first.seqs, True)
    assert (await log.load()).dead_letters == [("bob", 2)]


async def test_an_unknown_id_without_anything_to_remove_is_not_recorded(log: MessageLog) -> None:
    assert await look(log, None) == Removed("", "bob")
    assert not (await remove(log, DiscardDeadLetters("bob", ()))).again


async def test_the_record_names_who_and_what(store: Store) -> None:
    await bury(store.log, 1)
    await look(store.log, DiscardDeadLetters("bob", (1,)))
    removed = await remove(store.log, DiscardDeadLetters("bob", (1,)), reference="ticket 7")
    [record] = await store.log.removals(0, 9)
    assert (record.id, record.at, record.bot_id, record.bot_name) == ("first", at(9), "ops", "operator")
    assert (record.reference, record.removed, record.damaged) == ("ticket 7", removed, False)
    assert (record.erased.seqs, record.scrubbed_at) == ((), None)
    await store.log.scrub(at(20))
    [record] = await store.log.removals(0, 9)
    assert (record.removed, record.scrubbed_at, record.damaged) == (removed, at(20), False)


async def test_parts_of_a_command_say_so_and_are_one_removal(store: Store) -> None:
    log = store.log
    await bury(log, 1, 2, 3)
    for seq in (1, 2):
        what = DiscardDeadLetters("bob", (seq,))
        await remove(log, what, id=f"part-{seq}", part_of="command", reference="ticket 7")
    again = await remove(log, DiscardDeadLetters("bob", (2,)), id="part-2", part_of="command")
    assert (again.again, again.seqs) == (True, (2,))
    await log.apply([Erase("part-3", "ops", "operator", at(9), (1,), part_of="erasing")])
    await log.apply([Erase("part-4", "ops", "operator", at(10), (2, 3), part_of="erasing")])
    await log.apply([Erase("part-5", "eve", "other", at(11), (), part_of="erasing")])
    records = await log.removals(0, 10)
    assert [record.part_of for record in records] == ["command", "command", "erasing", "erasing", "erasing"]
    discarded, erased, other = joined(records)
    assert discarded.removed is not None
    assert (discarded.number, discarded.reference) == (records[0].number, "ticket 7")
    assert discarded.removed.seqs == (1, 2)
    assert discarded.removed.counts == {"dead_letters": 2}
    assert (erased.number, erased.at, erased.erased.seqs) == (records[2].number, at(9), (1, 2, 3))
    assert (other.bot_name, other.erased.seqs) == ("other", ())
    assert not any(record.damaged for record in records)


async def test_where_nothing_is_found_nothing_is_recorded(store: Store) -> None:
    await bury(store.log, 1)
    nothing: list[What] = [
        DiscardDeadLetters("bob", (7,)),
        CancelDelayed("bob", ("x",)),
        PurgeMailbox(page("bob", ("", 9)), 0),
        EndSubscription("bob", "news", None),
    ]
    for what in nothing:
        assert (await remove(store.log, what)).done is False
    assert await store.log.removals(0, 9) == []
    removed = await remove(store.log, DiscardDeadLetters("bob", (1,)))
    assert (removed.seqs, removed.done, removed.again) == ((1,), True, False)


@stores_only
async def test_what_was_removed_stays_so(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await bury(log, 1)
        await remove(log, DiscardDeadLetters("bob", (1,)))
    async with log_place.open() as log:
        assert (await log.load()).dead_letters == []
        assert (await remove(log, DiscardDeadLetters("bob", (1,)))).again


# ── Subscriptions and groups ─────────────────────────────────────────────────────────────────────────────


async def with_group(log: MessageLog) -> PurgeMailbox:
    """Open a group with two members, beside other subscriptions, and return what waits for it."""
    await log.apply(
        [
            *(AddBot(bot(id)) for id in ("ann", "bob", "eve")),
            *(AddChannel(channel(name)) for name in ("work", "news")),
            *(AddSubscription(id, "work", at(1), 0, group="team") for id in ("ann", "bob")),
            AddSubscription("eve", "work", at(1), 0, group="other"),
            *(AddSubscription(id, "news", at(1), 0) for id in ("ann", "bob")),
        ]
    )
    await add(log, to_channel("a", "ann", "work"), to_channel("b", "ann", "work"), to_channel("c", "ann", "news"))
    letters = (DeadLetter("work/team", 1, "no", 1, at(2)), DeadLetter("work/other", 1, "no", 1, at(2)))
    await log.apply([AddDeadLetters(letters)])
    return PurgeMailbox(page("work/team", ("work", 0), seqs=(1,)), 3)


async def test_a_subscription_is_ended(log: MessageLog) -> None:
    await with_group(log)
    waiting = PurgeMailbox(page("bob", ("news", 0)), 0)
    for what, counts in (
        (EndSubscription("bob", "news", waiting), {"subscriptions": 1, "waiting": 1}),
        (EndSubscription("bob", "news", None), {"subscriptions": 0, "waiting": 0}),
    ):
        assert (await look(log, what, id=f"would {counts}")).counts == counts
        removed = await remove(log, what, id=f"do {counts}")
        assert (removed.counts, removed.done) == (counts, counts["subscriptions"] > 0)
    left = {(each.bot_id, each.channel) for each in (await log.load()).subscriptions}
    assert left == {("ann", "work"), ("bob", "work"), ("eve", "work"), ("ann", "news")}


async def test_a_group_in_use_is_removed_only_by_force(log: MessageLog) -> None:
    what = CloseGroup("work", "team", await with_group(log), 2)
    counts = {"waiting": 4, "in_flight": 2, "members": 2, "dead_letters": 1}
    refused = await remove(log, what)
    assert (refused.in_the_way, refused.counts, refused.done) == (counts, counts, False)
    state = await log.load()
    assert len(state.subscriptions) == 5
    removed = await remove(log, what, force=True)
    assert (removed.in_the_way, removed.done, removed.again) == (counts, True, False)
    assert await remove(log, what) == msgspec.structs.replace(removed, again=True)
    state = await log.load()
    assert {(each.channel, each.name) for each in state.groups} == {("work", "other")}
    assert {each.mailbox_id for each in state.mailboxes} == {"ann", "bob", "eve", "work/other"}
    assert state.dead_letters == [("work/other", 1)]
    assert {(each.bot_id, each.channel) for each in state.subscriptions} == {
        ("eve", "work"), ("ann", "news"), ("bob", "news"),
    }  # fmt: skip
    assert len(await log.messages([1, 2, 3])) == 3


async def test_a_group_that_nobody_uses_is_removed(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddChannel(channel("work"))])
    await log.apply([AddSubscription("ann", "work", at(1), 0, group="team"), RemoveSubscription("ann", "work")])
    removed = await remove(log, CloseGroup("work", "team", PurgeMailbox(page("work/team", ("work", 0)), 0), 0))
    assert (removed.done, sum(removed.counts.values())) == (True, 0)
    await log.apply([AddSubscription("ann", "work", at(1), None, group="team")])
    assert len((await log.load()).groups) == 1


# ── Bots ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_bot_is_removed_with_what_it_has(log: MessageLog) -> None:
    await with_group(log)
    await add(log, direct("d", "ann", "bob"))
    await log.apply([AddDeadLetters((DeadLetter("bob", 4, "no", 1, at(2)),))])
    what = RemoveBot("bob", PurgeMailbox(page("bob", ("", 0), ("news", 0)), 0), 0)
    counts = {"subscriptions": 2, "waiting": 2, "dead_letters": 1}
    refused = await remove(log, what)
    assert (refused.in_the_way, refused.done) == (counts, False)
    removed = await remove(log, what, force=True)
    assert (removed.in_the_way, removed.done) == (counts, True)
    state = await log.load()
    assert {each.id for each in state.bots} == {"ann", "eve"}
    assert {each.mailbox_id for each in state.mailboxes} == {"ann", "eve", "work/team", "work/other"}
    assert "bob" not in {each.bot_id for each in state.subscriptions}
    assert "bob" not in {mailbox_id for mailbox_id, _ in state.dead_letters}
    assert len(await log.messages([4])) == 1
    await log.apply([AddBot(msgspec.structs.replace(bot("bob"), id="another"))])


async def test_what_keeps_a_bot_even_by_force(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddBot(bot("bob"))])
    await add(log, direct("a", "ann", "bob", due_at=at(50)))
    for id in ("ann", "bob"):
        what = RemoveBot(id, PurgeMailbox(page(id, ("", 0)), 0), 0)
        refused = await remove(log, what, id=f"delayed {id}", force=True)
        assert (refused.in_the_way, refused.done) == ({"delayed": 1}, False)
    await release(log, 50)
    connected = RemoveBot("ann", PurgeMailbox(page("ann", ("", 0)), 0), 2)
    refused = await remove(log, connected, force=True)
    assert (refused.in_the_way, refused.done) == ({"sessions": 2}, False)


async def test_a_bot_that_holds_a_run_or_owns_a_workflow_is_kept(store: Store) -> None:
    await store.log.apply([AddBot(bot("ann"))])
    await hold_run(store, "held")
    await store.workflows.save_definition(WorkflowDefinition(id="own", name="own", owner=BotOwner("ann")))
    refused = await remove(store.log, RemoveBot("ann", PurgeMailbox(page("ann", ("", 0)), 0), 0), force=True)
    assert (refused.in_the_way, refused.done) == ({"runs": 1, "definitions": 1}, False)


# ── Channels ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_channel_is_removed_with_its_subscriptions_and_groups(log: MessageLog) -> None:
    groups = (await with_group(log), PurgeMailbox(page("work/other", ("work", 0)), 0))
    await add(log, to_channel("d", "ann", "work", due_at=at(50)))
    what = CloseChannel("work", groups)
    counts = {"waiting": 6, "subscriptions": 3, "groups": 2, "dead_letters": 2}
    refused = await remove(log, what, force=True)
    assert (refused.in_the_way, refused.done) == (counts | {"delayed": 1}, False)
    await release(log, 50)
    counts["waiting"] = 8
    assert (await remove(log, what)).done is False
    removed = await remove(log, what, force=True)
    assert (removed.in_the_way, removed.done) == (counts, True)
    state = await log.load()
    assert [channel.name for channel, _ in state.channels] == ["news"]
    assert ({each.mailbox_id for each in state.mailboxes}, state.groups) == ({"ann", "bob", "eve"}, [])
    assert {each.channel for each in state.subscriptions} == {"news"}
    assert state.dead_letters == []
    assert len(await log.messages([1, 2, 3, 4])) == 4
    await log.apply([AddChannel(channel("work"))])
    assert {channel.name: seq for channel, seq in (await log.load()).channels} == {"news": 3, "work": 4}
