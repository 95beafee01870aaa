"""Channels that messages name first: each is created with the first message that is stored on it, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from bus.model.budgeting import budgeted
from bus.model.budgets import Budget
from bus.model.repository import (
    Added,
    AddFirstMessages,
    AddMessages,
    AddPattern,
    AddSubscription,
    Appended,
    Change,
    MessageLog,
    NewMessage,
    RemoveMessages,
    lots_of,
)

from .conftest import LogPlace
from .samples import add, at, channel, direct, page, read_page, to_channel

pytestmark = pytest.mark.anyio

SPENT = budgeted(direct("spent", "ann", "bob"), Budget(0))


def first(*messages: NewMessage, subscriptions: Sequence[AddSubscription] = ()) -> AddFirstMessages:
    """Return the change that adds messages, and the channels that they name."""
    names = dict.fromkeys(each.recipient_channel for each in messages if each.recipient_channel)
    return AddFirstMessages(lots_of(messages), at(1), [channel(name) for name in names], subscriptions)


async def applied(log: MessageLog, *changes: Change) -> list[Any]:
    return (await log.apply(list(changes))).answers


async def channels(log: MessageLog) -> set[str]:
    return {found.name for found, _ in (await log.load()).channels}


async def test_the_channel_comes_with_its_first_message(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        brought = AddSubscription("bob", "news", at(1), start_seq=0, pattern="n*")
        await log.apply([AddPattern("bob", "n*", at(1))])
        [[outcome]] = await applied(log, first(to_channel("a", "ann", "news"), subscriptions=[brought]))
        assert outcome == Appended(1)
        assert await add(log, to_channel("b", "ann", "news")) == [Added(2)]
    async with log_place.open() as log:
        state = await log.load()
        assert [(found.name, head) for found, head in state.channels] == [("news", 2)]
        assert [(each.bot_id, each.channel, each.pattern) for each in state.subscriptions] == [
            ("bob", "news", "n*")
        ]
        found = await read_page(log, page("bob", ("news", 0)))
        assert [message.id for message in found.messages] == ["a", "b"]


async def test_a_channel_of_refused_messages_alone_is_not_created(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, SPENT, direct("outside", "eve", "ann", tainted=True))
        await log.apply([AddPattern("bob", "**", at(1), group="team")])
        brought = [
            AddSubscription("bob", name, at(1), start_seq=0, pattern="**", group="team")
            for name in ("late", "news")
        ]
        messages = [
            to_channel("a", "ann", "late", reply_to="spent"),
            to_channel("b", "ann", "dirty", reply_to="outside", untainted_only=True),
            to_channel("c", "ann", "news", reply_to="spent"),
            to_channel("d", "ann", "news"),
            direct("e", "ann", "bob"),
        ]
        [outcomes] = await applied(log, first(*messages, subscriptions=brought))
        seqs = [
            one.seq if isinstance(one, Added) else one
            for outcome in outcomes
            for one in ([outcome.first_seq] if isinstance(outcome, Appended) else outcome)
        ]
        assert seqs == [None, None, None, 3, 4]
    async with log_place.open() as log:
        state = await log.load()
        assert [found.name for found, _ in state.channels] == ["news"]
        assert [each.channel for each in state.subscriptions] == ["news"]
        assert [each.channel for each in state.groups] == ["news"]
        assert state.last_seq == 4
        assert await add(log, direct("f", "ann", "bob")) == [Added(5)]


async def test_one_that_exists_stays(log: MessageLog) -> None:
    await applied(log, first(to_channel("a", "ann", "news")))
    await add(log, SPENT)
    [[[refused]]] = await applied(log, first(to_channel("b", "ann", "news", reply_to="spent")))
    assert isinstance(refused, Added)
    assert refused.seq is None
    assert await channels(log) == {"news"}


async def test_one_that_others_create_in_the_same_transaction_is_theirs(log: MessageLog) -> None:
    await add(log, SPENT)
    refused = first(to_channel("a", "ann", "news", reply_to="spent"))
    for accepted, name in ((first(to_channel("b", "bob", "news")), "news"), (None, "other")):
        if accepted is None:
            accepted = first(to_channel("c", "bob", name))
        await applied(log, refused, accepted, refused)
        assert name in await channels(log)
    assert await channels(log) == {"news", "other"}


async def test_a_repeat_creates_none(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), direct("last", "ann", "bob"))
    [[[again]]] = await applied(log, first(to_channel("a", "ann", "news")))
    assert again == Added(1, duplicate=True)
    assert await channels(log) == set()
    await applied(log, RemoveMessages((1,)))
    await applied(log, first(to_channel("a", "ann", "news")))
    assert await channels(log) == {"news"}


async def test_a_delayed_message_creates_one(log: MessageLog) -> None:
    [[[waits]]] = await applied(log, first(to_channel("a", "ann", "news", due_at=at(60))))
    assert waits == Added(None, scheduled=True)
    assert await channels(log) == {"news"}


async def test_what_is_around_it_in_a_transaction_is_carried_out_once(log: MessageLog) -> None:
    await add(log, SPENT)
    before, after = ([direct(id, "ann", "bob")] for id in ("before", "after"))
    refused = first(to_channel("a", "ann", "news", reply_to="spent"), direct("b", "ann", "bob"))
    await applied(log, AddMessages(lots_of(before), at(1)), refused, AddMessages(lots_of(after), at(1)))
    found = await read_page(log, page("bob", ("", 0)))
    assert [message.id for message in found.messages] == ["spent", "before", "b", "after"]
    assert [message.seq for message in found.messages] == [1, 2, 3, 4]
