"""Messages that wait until they are due: when they enter the log, and that each enters it once."""

from __future__ import annotations

import anyio
import pytest

from bus.errors import Conflict
from bus.model.records import BotMessage, DirectRecipient
from bus.model.repository import (
    Added,
    AddMessages,
    Appended,
    Change,
    FindRequest,
    LogMessage,
    MessageLog,
    NewMessage,
    Released,
    ReleaseDue,
    RemoveMessages,
    lots_of,
)

from ..conftest import StorePlace
from .conftest import LogPlace
from .samples import add, at, direct, page, read_page, release, to_channel

pytestmark = pytest.mark.anyio

SCHEDULED = Added(None, scheduled=True)
AGAIN = Added(None, duplicate=True, scheduled=True)


def ids(messages: list[LogMessage]) -> list[str]:
    return [message.id for message in messages]


async def test_message_waits_beside_the_log(log: MessageLog) -> None:
    given = [direct("a", "ann", "bob"), direct("later", "ann", "bob", due_at=at(9)), direct("b", "ann", "bob")]
    assert await add(log, *given) == [Added(1), SCHEDULED, Added(2)]
    assert ids((await read_page(log, page("bob", ("", 0)))).messages) == ["a", "b"]
    assert await log.find(FindRequest("later")) == given[1]
    assert (await log.load()).scheduled == {"ann": 1}


async def test_due_messages_enter_the_log_the_earliest_first(log: MessageLog) -> None:
    await add(log, direct("c", "ann", "bob", due_at=at(9)), to_channel("a", "ann", "news", due_at=at(5)))
    await add(log, direct("b", "ann", "bob", due_at=at(7)), direct("now", "ann", "bob"))
    assert (await log.load()).next_due_at == at(5)
    first = await release(log, 7)
    assert [(message.id, message.seq, message.timestamp) for message in first.messages] == [
        ("a", 2, at(7)),
        ("b", 3, at(7)),
    ]
    assert (first.next_due_at, first.damaged) == (at(9), ())
    assert ids((await read_page(log, page("bob", ("", 0), ("news", 0)))).messages) == ["now", "a", "b"]
    assert await release(log, 8) == Released([], at(9))
    assert ids((await release(log, 60)).messages) == ["c"]
    assert await release(log, 60) == Released([], None)


async def test_release_takes_no_more_than_it_is_told(log: MessageLog) -> None:
    await add(log, *(direct(f"{n}", "ann", "bob", due_at=at(n)) for n in range(5)))
    first = await release(log, 10, messages_max=3)
    assert (ids(first.messages), first.next_due_at) == (["0", "1", "2"], at(3))
    assert ids((await release(log, 10, messages_max=3)).messages) == ["3", "4"]


async def test_released_message_comes_back_as_given(log: MessageLog) -> None:
    given = direct(
        "a",
        "ann",
        "bob",
        message_type="ü",
        body=b'{"b": "\xc3\xbc"}',
        reply_to="z",
        headers=b'{"k":"v"}',
        expires_at=at(30),
        due_at=at(3),
    )
    await add(log, given)
    await release(log, 4)
    found = await log.find(FindRequest("a"))
    assert isinstance(found, LogMessage)
    names = set(given.__struct_fields__) - {"due_at"}
    assert all(getattr(found, name) == getattr(given, name) for name in names)
    assert (found.seq, found.timestamp) == (1, at(4))


async def test_a_sender_uses_an_id_once_in_both(log: MessageLog) -> None:
    later = direct("a", "ann", "bob", due_at=at(9))
    assert await add(log, later, later) == [SCHEDULED, AGAIN]
    assert await add(log, later, direct("a", "ann", "bob"), direct("b", "ann", "bob")) == [AGAIN, AGAIN, Added(1)]
    assert await add(log, direct("b", "ann", "bob", due_at=at(9))) == [Added(1, duplicate=True)]
    await release(log, 9)
    assert await add(log, later, direct("a", "ann", "bob")) == [Added(2, duplicate=True)] * 2


async def test_another_sender_uses_the_same_ids_in_both(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", due_at=at(9)), direct("b", "ann", "bob"))
    assert await add(log, direct("a", "eve", "bob"), direct("b", "eve", "bob", due_at=at(8))) == [
        Added(2),
        SCHEDULED,
    ]
    assert await add(log, direct("a", "dan", "bob", due_at=at(7))) == [SCHEDULED]
    released = await release(log, 8)
    assert [(message.id, message.sender_bot_id, message.seq) for message in released.messages] == [
        ("a", "dan", 3),
        ("b", "eve", 4),
    ]
    assert await add(log, direct("a", "ann", "bob")) == [AGAIN], "only what was due has left"
    assert [message.sender_bot_id for message in (await release(log, 9)).messages] == ["ann"]
    assert await add(log, *(direct("a", sender, "bob") for sender in ("ann", "dan", "eve"))) == [
        Added(seq, duplicate=True) for seq in (5, 3, 2)
    ]


async def test_known_only_looks_and_does_not_store(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), direct("later", "ann", "bob", due_at=at(9)))
    asked = [direct(id, "ann", "bob", known_only=True) for id in ("a", "later", "new")]
    assert await add(log, *asked) == [Added(1, duplicate=True), AGAIN, Added(None)]
    assert await add(log, direct("a", "eve", "bob", known_only=True)) == [Added(None)], "it tells of no other"
    assert (await log.load()).last_seq == 1


async def test_what_waits_survives_a_restart(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, direct("a", "ann", "bob", due_at=at(9)))
    async with log_place.open() as log:
        state = await log.load()
        assert (state.scheduled, state.next_due_at) == ({"ann": 1}, at(9))
        assert await add(log, direct("a", "ann", "bob")) == [AGAIN], "it is known after a restart too"
        assert ids((await release(log, 60)).messages) == ["a"]
    async with log_place.open() as log:
        state = await log.load()
        assert (state.scheduled, state.next_due_at, state.last_seq) == ({}, None, 1)


async def test_release_and_more_in_one_transaction(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", due_at=at(1)))
    changes: list[Change] = [
        AddMessages(lots_of([direct("b", "ann", "bob")]), at(2)),
        ReleaseDue(at(2), 10),
        AddMessages(lots_of([direct("c", "ann", "bob"), direct("d", "ann", "bob", due_at=at(9))]), at(2)),
        RemoveMessages((1,)),
    ]
    added, released, more, removed = (await log.apply(changes)).answers
    assert (added, more, removed) == ([Appended(1)], [Appended(3), [SCHEDULED]], 1)
    assert [message.seq for message in released.messages] == [2]
    assert await add(log, direct("d", "ann", "bob")) == [AGAIN]


async def test_audit_side_knows_what_waits(store_place: StorePlace) -> None:
    async with store_place.open() as store:
        await add(store.log, direct("a", "ann", "bob", due_at=at(9)))
        message = BotMessage(
            id="a",
            sender_bot_id="ann",
            sender_bot_name="ann",
            recipient=DirectRecipient(bot_id="bob"),
            message_type="note",
            body={"n": 1},
            timestamp=at(1),
        )
        with pytest.raises(Conflict, match="'a'"):
            await store.messages.save_message(message)


async def test_release_takes_no_more_bytes_than_it_is_told(log: MessageLog) -> None:
    body = b'"' + b"x" * 98 + b'"'
    await add(log, *(direct(f"{n}", "ann", "bob", body=body, due_at=at(n)) for n in range(5)))
    [first] = (await log.apply([ReleaseDue(at(10), 10, bytes_max=250)])).answers
    [second] = (await log.apply([ReleaseDue(at(10), 10, bytes_max=1)])).answers
    assert (ids(first.messages), ids(second.messages)) == (["0", "1"], ["2"]), "at least one, or none would ever go"
    assert second.next_due_at == at(3)


async def test_an_id_is_used_once_though_both_messages_are_on_their_way(log: MessageLog) -> None:
    answers: dict[str, list[Added]] = {}

    async def send(name: str, message: NewMessage) -> None:
        answers[name] = await add(log, message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send, "later", direct("a", "ann", "bob", due_at=at(9)))
        tasks.start_soon(send, "now", direct("a", "ann", "bob"))
    assert answers == {"later": [SCHEDULED], "now": [AGAIN]}
    assert await add(log, direct("b", "ann", "bob")) == [Added(1)], "others are appended while one waits"
