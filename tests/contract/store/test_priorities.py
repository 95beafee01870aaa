"""Priorities in a log: each is a source of its own, whatever waits beside it."""

from __future__ import annotations

import pytest

from bus.model.counting import Counted
from bus.model.repository import (
    AddBot,
    FindRequest,
    LogMessage,
    MailboxState,
    MessageLog,
    PurgeMailbox,
    Remove,
    SaveMailbox,
    SurveyRequest,
    UnsettledState,
)

from .conftest import LogPlace, stores_only
from .samples import add, at, bot, direct, page, read_page, release, to_channel

pytestmark = pytest.mark.anyio

HIGH, LOW = 1, -1


def ids(messages: list[LogMessage]) -> str:
    return "".join(message.id for message in messages)


async def fill(log: MessageLog) -> None:
    """Seqs 1 to 9: to bob low a c, normal b e, high d h; in news f; to cleo high g, and normal i."""
    await log.apply([AddBot(bot("ann")), AddBot(bot("bob")), AddBot(bot("cleo"))])
    await add(
        log,
        direct("a", "ann", "bob", priority=LOW),
        direct("b", "ann", "bob"),
        direct("c", "ann", "bob", priority=LOW),
        direct("d", "eve", "bob", priority=HIGH),
        direct("e", "ann", "bob"),
        to_channel("f", "ann", "news"),
        direct("g", "ann", "cleo", priority=HIGH),
        direct("h", "ann", "bob", priority=HIGH, tainted=True, reply_to="a"),
        direct("i", "ann", "cleo"),
    )


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ([("", 0)], "abcdeh"),
        ([("^", 0)], "be"),
        ([("^", 2), ("news", 0)], "ef"),
        ([("^high", 0)], "dh"),
        ([("^high", 4)], "h"),
        ([("^low", 0)], "ac"),
    ],
)
async def test_each_priority_is_a_source(log: MessageLog, sources: list[tuple[str, int]], found: str) -> None:
    await fill(log)
    read = await read_page(log, page("bob", *sources))
    assert (ids(read.messages), read.complete) == (found, True)
    assert await log.count(page("bob", *sources[:1])) == {
        sender: count
        for sender, count in (("ann", sum(c in "abceh" for c in found)), ("", found.count("d")))
        if count
    }


async def test_a_page_of_a_priority_is_as_long_as_it_may_be(log: MessageLog) -> None:
    await fill(log)
    first = await read_page(log, page("bob", ("^low", 0), messages_max=1))
    assert (ids(first.messages), first.complete) == ("a", False)
    rest = await read_page(log, page("bob", ("^low", first.messages[-1].seq), messages_max=1))
    assert (ids(rest.messages), rest.complete) == ("c", True)


async def test_what_waits_is_counted_in_all_of_them(log: MessageLog) -> None:
    await fill(log)
    sources = (("^", 2), ("^high", 4), ("^low", 0))
    assert await log.count(page("bob", *sources, seqs=(3, 99))) == {"ann": 3}
    change = Remove("r", "ann", "ann", at(9), "backlog", "bob", PurgeMailbox(page("bob", *sources, seqs=(3,)), 0))
    looked = await log.look(change)
    assert looked.removed.counts["waiting"] == 3
    assert all(isinstance(each, Counted) for each in looked.counted)


@stores_only
async def test_what_is_unsettled_is_counted_for_people(log: MessageLog) -> None:
    await fill(log)
    wanted = page("bob", ("^", 0), ("^high", 0), ("^low", 1), ("news", 0), seqs=(2,))
    assert await log.backlogs([wanted, page("bob", ("", 0)), page("bob", ("^", 0))]) == [5, 6, 2]


async def test_the_last_of_each_is_known_at_the_start(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await fill(log)
    async with log_place.open() as log:
        state = await log.load()
    assert sorted(state.prioritized) == [("bob", LOW, 3), ("bob", HIGH, 8), ("cleo", HIGH, 7)]


async def test_a_priority_stays_with_its_message_wherever_it_is_read(log: MessageLog) -> None:
    await fill(log)
    assert [each.priority for each in (await read_page(log, page("bob", ("", 0)))).messages] == [
        LOW,
        0,
        LOW,
        HIGH,
        0,
        HIGH,
    ]
    assert [each.priority for each in await log.survey(SurveyRequest(None, 0, 99, 4))] == [LOW, 0, LOW, HIGH]
    assert [each.source for each in await log.locate([2, 4, 6])] == [None, "^high", "news"]
    found = await log.find(FindRequest("h"))
    assert found is not None
    assert (found.priority, found.tainted) == (HIGH, True)


async def test_a_repeat_changes_no_priority(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", priority=HIGH))
    [again] = await add(log, direct("a", "ann", "bob", priority=LOW))
    assert again.duplicate
    [other] = await add(log, direct("a", "eve", "bob", priority=LOW))
    assert not other.duplicate
    found = (await read_page(log, page("bob", ("", 0)))).messages
    assert [(each.sender_bot_id, each.priority) for each in found] == [("ann", HIGH), ("eve", LOW)]


async def test_a_delayed_message_has_its_priority_when_it_is_due(log: MessageLog) -> None:
    await add(
        log,
        direct("a", "ann", "bob", priority=LOW, due_at=at(5)),
        direct("b", "ann", "bob", due_at=at(6), tainted=True),
        direct("c", "ann", "bob", priority=HIGH, due_at=at(7)),
    )
    assert [(each.id, each.priority) for each in (await release(log, 9)).messages] == [
        ("a", -1),
        ("b", 0),
        ("c", 1),
    ]
    assert ids((await read_page(log, page("bob", ("^high", 0)))).messages) == "c"


async def test_many_of_one_lot_are_stored_with_their_priority(log: MessageLog) -> None:
    await add(log, *(direct(f"m{n}", "ann", "bob", priority=LOW) for n in range(1500)))
    await add(log, *(direct(f"r{n}", "ann", "bob", priority=HIGH, reply_to="m0") for n in range(300)))
    lows = await read_page(log, page("bob", ("^low", 0), messages_max=2000))
    highs = await read_page(log, page("bob", ("^high", 0), messages_max=2000))
    assert (len(lows.messages), len(highs.messages)) == (1500, 300)
    assert {each.priority for each in highs.messages} == {HIGH}


async def test_a_mailbox_is_restored_with_its_places(log_place: LogPlace) -> None:
    unsettled = (UnsettledState(2, 1, 0), UnsettledState(4, 2, 1, priority=HIGH))
    saved = MailboxState("bob", 2, unsettled, {"^high": 8, "^low": 1}, (5,))
    async with log_place.open() as log:
        await fill(log)
        await log.apply([SaveMailbox(saved)])
    async with log_place.open() as log:
        assert saved in (await log.load()).mailboxes
