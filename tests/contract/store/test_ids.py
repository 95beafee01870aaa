"""Ids that several senders have used: which message is found, and what its thread is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bus.model.repository import FindRequest, MessageLog, RemoveMessages

from .conftest import stores_only
from .playing import play_ids
from .samples import add, at, direct, to_channel

pytestmark = pytest.mark.anyio


async def found(log: MessageLog, id: str, **fields: Any) -> str | None:
    """Return who sent the message that is found."""
    message = await log.find(FindRequest(id, **fields))
    return None if message is None else message.sender_bot_id


async def thread(log: MessageLog, id: str, sender: str) -> list[int]:
    return sorted(await log.thread(FindRequest(id, sender), before_seq=None, limit=100))


# ── Which message is found ───────────────────────────────────────────────────────────────────────────────


async def test_an_askers_own_message_is_found_before_all_others(log: MessageLog) -> None:
    await add(log, direct("a", "eve", "ann"), direct("a", "dan", "ann"), direct("a", "ann", "bob"))
    assert await found(log, "a", asker_bot_id="ann") == "ann"
    assert await found(log, "a", asker_bot_id="dan") == "dan"


async def test_what_was_sent_to_an_asker_is_found_before_what_was_not(log: MessageLog) -> None:
    await add(log, direct("a", "eve", "dan"), to_channel("a", "cleo", "news"), direct("a", "ann", "bob"))
    assert await found(log, "a", asker_bot_id="bob") == "ann"
    assert await found(log, "a", asker_bot_id="fay", asker_channels=["art", "news"]) == "cleo"
    assert await found(log, "a", asker_bot_id="fay", asker_channels=["art"]) == "eve", "else the first"
    assert await found(log, "a") == "eve"


async def test_the_first_of_several_that_were_sent_to_an_asker_is_found(log: MessageLog) -> None:
    await add(log, to_channel("a", "ann", "news"), direct("a", "eve", "bob"), to_channel("a", "dan", "news"))
    assert await found(log, "a", asker_bot_id="bob", asker_channels=["news"]) == "ann"


async def test_a_message_is_found_by_its_sender(log: MessageLog) -> None:
    await add(log, *(direct("a", sender, "bob") for sender in ("ann", "eve", "dan")))
    for sender in ("ann", "eve", "dan"):
        assert await found(log, "a", sender_bot_id=sender, asker_bot_id="ann") == sender
    assert await found(log, "a", sender_bot_id="bob", asker_bot_id="bob") is None


async def test_a_delayed_message_hides_no_other_and_is_hidden_from_its_sender_by_none(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", due_at=at(9)), direct("a", "fay", "bob", due_at=at(8)))
    assert await found(log, "a", asker_bot_id="bob") == "ann", "the first of the delayed ones"
    await add(log, direct("a", "eve", "dan"))
    assert await found(log, "a", asker_bot_id="ann") == "ann"
    assert await found(log, "a", asker_bot_id="bob") == "eve"
    assert await found(log, "a", sender_bot_id="fay", asker_bot_id="bob") == "fay"


async def test_what_was_removed_is_not_found_and_its_senders_id_is_new(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), direct("a", "eve", "bob"), direct("b", "eve", "bob"))
    await log.apply([RemoveMessages((1,))])
    assert await found(log, "a", asker_bot_id="ann") == "eve"
    [again] = await add(log, direct("a", "ann", "bob"))
    assert (again.seq, again.duplicate) == (4, False)


async def test_an_id_stays_its_senders_when_the_first_that_used_it_is_removed(log: MessageLog) -> None:
    """Whatever is removed: the next message with an id is known as it was, and others are stored."""
    senders = ("ann", "dan", "eve", "fay")
    await add(
        log, *(direct(id, sender, "bob") for sender in senders for id in ("a", "b")), direct("c", "ann", "bob")
    )
    for removed, left in (((1,), "dan eve fay"), ((3, 5), "fay"), ((7,), "")):
        await log.apply([RemoveMessages(removed)])
        for sender in senders:
            [known] = await add(log, direct("a", sender, "bob", known_only=True))
            assert known.duplicate == (sender in left)
            assert await found(log, "a", sender_bot_id=sender) == (sender if sender in left else None)
    again = await add(log, *(direct("a", sender, "bob") for sender in senders))
    assert [one.seq for one in again] == [10, 11, 12, 13]
    assert [one.duplicate for one in await add(log, *(direct("b", sender, "bob") for sender in senders))] == [
        True
    ] * 4


@pytest.mark.parametrize("seed", range(5))
async def test_ids_and_senders_are_known_as_in_a_table_of_both(log: MessageLog, seed: int) -> None:
    await play_ids(log, seed)


# ── Threads ──────────────────────────────────────────────────────────────────────────────────────────────


@stores_only
async def test_a_direct_reply_belongs_to_the_message_of_its_recipient_alone(log: MessageLog) -> None:
    await add(
        log,
        direct("q", "eve", "bob", reply_to="z"),
        direct("q", "ann", "bob"),
        direct("r", "bob", "ann", reply_to="q"),
        direct("s", "bob", "eve", reply_to="q"),
        direct("z", "fay", "gus"),
    )
    assert await thread(log, "q", "ann") == await thread(log, "r", "bob") == [2, 3]
    assert await thread(log, "q", "eve") == await thread(log, "s", "bob") == [1, 4, 5]


@stores_only
async def test_a_copied_id_brings_nothing_into_a_thread_and_keeps_nothing_out(log: MessageLog) -> None:
    """Eve's own messages may be in both threads, as any message that says so; nobody else's are."""
    await add(
        log,
        to_channel("q", "ann", "news"),
        to_channel("r", "bob", "news", reply_to="q"),
        direct("other", "fay", "gus"),
        direct("said", "gus", "fay", reply_to="other"),
    )
    await add(log, direct("q", "eve", "hal", reply_to="other"), direct("other", "eve", "hal", reply_to="q"))
    assert await thread(log, "q", "ann") == await thread(log, "r", "bob") == [1, 2, 5, 6]
    assert await thread(log, "other", "fay") == await thread(log, "said", "gus") == [3, 4, 5, 6]


@stores_only
async def test_all_that_a_reply_on_a_channel_may_mean_are_in_its_thread(log: MessageLog) -> None:
    """Also if Eve's came first: it may end the chain, but it hides no message that was answered."""
    await add(log, to_channel("q", "eve", "news"), direct("q", "fay", "gus"), to_channel("q", "ann", "news"))
    await add(log, to_channel("r", "bob", "news", reply_to="q"), direct("s", "ann", "bob", reply_to="r"))
    assert await thread(log, "s", "ann") == [1, 3, 4, 5]
    assert await thread(log, "q", "ann") == [3, 4, 5]
    assert await thread(log, "q", "fay") == [2]


@stores_only
async def test_a_reply_that_fits_none_belongs_to_all(log: MessageLog) -> None:
    await add(log, direct("q", "ann", "bob"), direct("q", "eve", "bob"), direct("r", "bob", "fay", reply_to="q"))
    assert await thread(log, "q", "ann") == [1, 3]
    assert await thread(log, "q", "eve") == [2, 3]
    assert await thread(log, "r", "bob") == [1, 2, 3]


@stores_only
async def test_a_thread_of_a_delayed_message_is_empty_though_another_used_its_id(log: MessageLog) -> None:
    await add(log, direct("q", "ann", "bob", due_at=at(9)), direct("q", "eve", "bob"))
    assert await log.thread(FindRequest("q", asker_bot_id="ann"), before_seq=None, limit=10) == []


@stores_only
@pytest.mark.parametrize("seed", range(5))
async def test_threads_without_shared_ids_are_the_closure_of_their_ids(log: MessageLog, seed: int) -> None:
    chance = random.Random(seed)
    parents: dict[int, int | None] = {}
    senders: dict[int, str] = {}
    for seq in range(1, 40):
        parents[seq] = chance.choice([None, *parents]) if parents else None
        reply_to = None if parents[seq] is None else f"m{parents[seq]}"
        to_bob = chance.random() < 0.5
        make, sender, recipient = (direct, "ann", "bob") if to_bob else (to_channel, "bob", "news")
        senders[seq] = sender
        await add(log, make(f"m{seq}", sender, recipient, reply_to=reply_to))
    for seq in parents:
        wanted, at_seq = {seq}, parents[seq]
        while at_seq is not None:
            wanted.add(at_seq)
            at_seq = parents[at_seq]
        for later in sorted(parents):
            if parents[later] in wanted:
                wanted.add(later)
        assert await thread(log, f"m{seq}", senders[seq]) == sorted(wanted)
