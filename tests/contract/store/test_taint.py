"""The taint of replies: found in the transaction that stores them, however they come, and kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.model.repository import (
    Added,
    AddMessages,
    Appended,
    CommitWork,
    FindRequest,
    MessageLog,
    NewMessage,
    NotCommitted,
    ReleaseDue,
    RemoveMessages,
    lots_of,
)

from .conftest import LogPlace
from .samples import add, at, direct, page, read_page, to_channel

pytestmark = pytest.mark.anyio


def external(id: str, **fields: Any) -> NewMessage:
    return to_channel(id, "eve", "news", tainted=True, **fields)


def reply(id: str, reply_to: str | None, **fields: Any) -> NewMessage:
    return direct(id, "ann", "bob", reply_to=reply_to, **fields)


async def tainted(log: MessageLog) -> set[str]:
    """Return the ids of tainted messages, as they are delivered and as they are found."""
    pages = [await read_page(log, page("bob", ("", 0), ("news", 0), messages_max=5000))]
    seqs = [message.seq for each in pages for message in each.messages]
    ids = {message.id for each in pages for message in each.messages if message.tainted}
    assert {message.id for message in await log.messages(seqs) if message.tainted} == ids
    return ids


async def test_a_thread_is_tainted_from_an_external_message_on(log: MessageLog) -> None:
    await add(log, reply("before", None), external("outside", reply_to="before"))
    await add(log, reply("first", "outside"))
    await add(log, reply("second", "first"), reply("beside", "before"), reply("alone", None))
    assert await tainted(log) == {"outside", "first", "second"}
    for id, is_tainted in (("second", True), ("beside", False)):
        found = await log.find(FindRequest(id))
        assert found is not None
        assert found.tainted is is_tainted


async def test_the_messages_of_a_lot_are_told_apart(log: MessageLog) -> None:
    await add(log, external("outside"), reply("inside", None))
    answers = ["outside", "outside", "inside", "outside", "inside"]
    lots = lots_of([reply(str(at), parent) for at, parent in enumerate(answers)])
    assert len(lots) == 1
    [[outcome]] = (await log.apply([AddMessages(lots, at(1))])).answers
    assert outcome == [Added(3 + at, tainted=parent == "outside") for at, parent in enumerate(answers)]
    assert await tainted(log) == {"outside", "0", "1", "3"}


async def test_a_lot_of_the_same_taint_stays_one(log: MessageLog) -> None:
    await add(log, external("outside"))
    lots = lots_of([reply(str(number), "outside") for number in range(100)])
    [[outcome]] = (await log.apply([AddMessages(lots, at(1))])).answers
    assert outcome == Appended(2, tainted=True)


async def test_a_chain_in_one_batch_is_followed(log: MessageLog) -> None:
    found = await add(log, external("outside"), *(reply(str(n), str(n - 1) if n else "outside") for n in range(50)))
    assert all(added.tainted for added in found)
    assert len(await tainted(log)) == 51


async def test_a_chain_over_the_changes_of_a_batch_is_followed(log: MessageLog) -> None:
    first, second = lots_of([external("outside")]), lots_of([reply("answer", "outside")])
    await log.apply([AddMessages(first, at(1)), AddMessages(second, at(1))])
    assert await tainted(log) == {"outside", "answer"}


async def test_what_answers_a_message_that_is_gone_is_tainted_if_anything_is(log: MessageLog) -> None:
    await add(log, reply("early", "unknown"))
    assert await tainted(log) == set()
    await add(log, external("outside"), reply("last", None))
    await log.apply([RemoveMessages((2,))])
    await add(log, reply("late", "outside"), reply("other", "unknown"), reply("known", "early"))
    assert await tainted(log) == {"late", "other"}


async def test_a_delayed_message_keeps_its_taint(log: MessageLog) -> None:
    await add(log, external("outside"), reply("inside", None))
    await add(log, reply("later", "outside", due_at=at(5)), reply("clean", "inside", due_at=at(5)))
    found = await log.find(FindRequest("later"))
    assert found is not None
    assert found.tainted
    await add(log, reply("to what waits", "later"))
    [released] = (await log.apply([ReleaseDue(at(9), 10)])).answers
    assert [message.tainted for message in released.messages] == [True, False]
    assert await tainted(log) == {"outside", "to what waits", "later"}


async def test_the_messages_of_a_commit_are_tainted_likewise(log: MessageLog) -> None:
    await add(log, external("outside"), reply("inside", None))
    lots = lots_of([reply("yes", "outside"), reply("no", "inside")])
    work = CommitWork(
        "commit", "ann", "digest", None, None, (), None, None, None, lots, (),
        known_only=False, timestamp=at(1), number=1,
    )  # fmt: skip
    [committed] = (await log.apply([work])).answers
    assert committed.added == [[Added(3, tainted=True), Added(4)]]
    assert await tainted(log) == {"outside", "yes"}


async def test_what_must_not_be_tainted_is_stored_only_if_it_is_not(log: MessageLog) -> None:
    await add(log, external("outside"), reply("inside", None))
    answers = [
        reply(str(n), parent, untainted_only=True) for n, parent in enumerate(("outside", "inside", "outside"))
    ]
    assert await add(log, *answers) == [Added(None, forbidden=True), Added(3), Added(None, forbidden=True)]
    assert await add(log, reply("later", "outside", untainted_only=True, due_at=at(5))) == [
        Added(None, forbidden=True)
    ]
    assert await tainted(log) == {"outside"}
    assert await log.find(FindRequest("later")) is None


async def test_a_commit_with_a_message_that_must_not_be_tainted_is_not_carried_out(log: MessageLog) -> None:
    await add(log, external("outside"))
    lots = lots_of([reply("yes", None), reply("no", "outside", untainted_only=True)])
    work = CommitWork(
        "commit", "ann", "digest", None, None, (), None, None, None, lots, (),
        known_only=False, timestamp=at(1), number=1,
    )  # fmt: skip
    assert (await log.apply([work])).answers == [NotCommitted(None)]
    assert await log.find(FindRequest("yes")) is None


async def test_a_repeat_changes_nothing(log: MessageLog) -> None:
    await add(log, external("outside"), reply("answer", "outside"))
    assert await add(log, reply("answer", "outside")) == [Added(2, duplicate=True)]
    assert await tainted(log) == {"outside", "answer"}


async def test_taint_outlives_a_restart(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, external("outside"), reply("inside", None))
    async with log_place.open() as log:
        await add(log, reply("answer", "outside"), reply("clean", "inside"))
        assert await tainted(log) == {"outside", "answer"}


@pytest.mark.parametrize("count", [1, 15, 16, 100, 1500])
async def test_tainted_messages_are_written_in_every_number(log_place: LogPlace, count: int) -> None:
    async with log_place.open() as log:
        await add(log, *(external(f"{number}") for number in range(count)))
        await add(log, *(reply(f"answer {number}", f"{number}") for number in range(count)))
        assert len(await tainted(log)) == 2 * count


async def test_a_copied_id_keeps_its_taint_and_hands_it_on(log: MessageLog) -> None:
    """Two senders used one id: the answer may be to either."""
    await add(log, reply("same", None), external("outside"))
    await add(log, msgspec.structs.replace(reply("same", "outside"), sender_bot_id="bob"))
    await add(log, reply("answer", "same"))
    pages = await log.messages(range(1, 5))
    assert [(message.id, message.tainted) for message in sorted(pages, key=lambda each: each.seq)] == [
        ("same", False),
        ("outside", True),
        ("same", True),
        ("answer", True),
    ]


async def test_the_removal_of_what_was_tainted_is_remembered_over_a_restart(log_place: LogPlace) -> None:
    """Or whoever waits for retention could answer without the bit."""
    async with log_place.open() as log:
        await add(log, external("outside"), reply("last", None))
        await log.apply([RemoveMessages((1,))])
    async with log_place.open() as log:
        await add(log, reply("answer", "outside"), reply("alone", None))
        [answer, alone] = await log.messages([3, 4])
        assert sorted((message.id, message.tainted) for message in (answer, alone)) == [
            ("alone", False),
            ("answer", True),
        ]
