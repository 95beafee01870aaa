"""Subscriptions to patterns in the log: what each change does, and what comes back after a restart."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from bus.model.records import BotSubscription
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddPattern,
    AddSubscription,
    Change,
    EndPattern,
    EndSubscription,
    LogState,
    MessageLog,
    PatternSubscription,
    PurgeMailbox,
    Remove,
    RemoveBot,
    RemovePattern,
    RemoveSubscription,
    Store,
    Subscribed,
    Subscription,
    lots_of,
)

from .conftest import LogPlace
from .samples import add, at, bot, channel, direct, page, to_channel, work

pytestmark = pytest.mark.anyio

PATTERN = AddPattern("ann", "orders.*", at(1), echo=True)
STORED = PatternSubscription("ann", "orders.*", at(1), 0, True)


def brought(name: str = "orders.a", pattern: str | None = "orders.*", **fields: Any) -> AddSubscription:
    return AddSubscription("ann", name, at(1), **{"start_seq": 0, "pattern": pattern} | fields)


def found(state: LogState) -> dict[tuple[str, str], str | None]:
    return {(each.bot_id, each.channel): each.pattern for each in state.subscriptions}


async def stored(log: MessageLog, *changes: Change) -> list[Any]:
    names = {each.channel for each in changes if isinstance(each, AddSubscription)}
    await log.apply([AddChannel(channel(name)) for name in sorted(names)])
    return (await log.apply(list(changes))).answers


async def test_a_pattern_and_what_it_brought_come_back(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, direct("a", "eve", "bob"))
        changes = (PATTERN, brought(echo=True), AddPattern("bob", "**", at(2), start_seq=9, group="team"))
        assert await stored(log, *changes) == [
            Subscribed(1, created=True),
            Subscribed(0, created=True),
            Subscribed(9, created=True, group="team"),
        ]
    async with log_place.open() as log:
        state = await log.load()
    assert sorted(state.patterns, key=lambda each: each.bot_id) == [
        PatternSubscription("ann", "orders.*", at(1), 1, True),
        PatternSubscription("bob", "**", at(2), 9, False, "team"),
    ]
    assert state.subscriptions == [Subscription("ann", "orders.a", at(1), 0, True, None, "orders.*")]


async def test_an_existing_pattern_stays_as_it_is(log: MessageLog) -> None:
    await stored(log, PATTERN)
    again = AddPattern("ann", "orders.*", at(2), start_seq=5, group="team")
    assert await stored(log, again) == [Subscribed(0, created=False)]
    assert (await log.load()).patterns == [STORED]


async def test_a_name_takes_over_what_a_pattern_brought(log: MessageLog) -> None:
    await stored(log, PATTERN, brought(), brought("orders.b", group="team"))
    by_name = brought(pattern=None, start_seq=5, echo=True)
    assert await stored(log, by_name) == [Subscribed(0, created=False)]
    assert await stored(log, brought("orders.b", pattern=None)) == [Subscribed(0, created=False, group="team")]
    state = await log.load()
    assert found(state) == {("ann", "orders.a"): None, ("ann", "orders.b"): "orders.*"}
    assert state.subscriptions[0].echo is False


async def test_a_pattern_takes_over_nothing(log: MessageLog) -> None:
    await stored(log, PATTERN, brought(pattern=None))
    assert await stored(log, brought(start_seq=7)) == [Subscribed(0, created=False)]
    assert found(await log.load()) == {("ann", "orders.a"): None}


async def test_only_a_subscription_by_name_ends_by_name(log: MessageLog) -> None:
    await stored(log, PATTERN, brought(), brought("orders.b", pattern=None))
    assert await stored(log, RemoveSubscription("ann", "orders.a"), RemoveSubscription("ann", "orders.b")) == [
        False,
        True,
    ]
    assert found(await log.load()) == {("ann", "orders.a"): "orders.*"}


async def test_a_subscription_passes_to_a_pattern(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await stored(log, PATTERN, brought(pattern=None), brought("orders.b"))
        passing = [RemoveSubscription("ann", name, "orders.*") for name in ("orders.a", "orders.b", "orders.c")]
        assert await stored(log, *passing) == [True, False, False]
    async with log_place.open() as log:
        assert found(await log.load()) == {("ann", "orders.a"): "orders.*", ("ann", "orders.b"): "orders.*"}


async def test_a_pattern_ends_with_what_it_brought_and_passes_some_on(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await stored(log, PATTERN, AddPattern("ann", "**", at(2)), AddPattern("bob", "orders.*", at(2)))
        await stored(log, brought(), brought("orders.b"), brought("orders.c", pattern=None))
        ending = RemovePattern("ann", "orders.*", {"orders.b": "**", "orders.c": "**", "orders.x": "**"})
        assert await stored(log, ending) == [True]
        assert await stored(log, ending, RemovePattern("eve", "**")) == [False, False]
    async with log_place.open() as log:
        state = await log.load()
    assert found(state) == {("ann", "orders.b"): "**", ("ann", "orders.c"): None}
    assert {(each.bot_id, each.pattern) for each in state.patterns} == {("ann", "**"), ("bob", "orders.*")}


async def test_a_commit_subscribes_to_the_channels_that_it_creates(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), PATTERN])
    await add(log, to_channel("b", "eve", "news"))
    commit = work(
        "c",
        lots=lots_of([to_channel("a", "ann", "orders.a")]),
        channels=[channel("orders.a")],
        subscriptions=[brought(start_seq=1), brought(pattern="**")],
    )
    [committed] = (await log.apply([commit])).answers
    assert committed.seqs == [2]
    assert (await log.load()).subscriptions == [Subscription("ann", "orders.a", at(1), 1, False, None, "orders.*")]
    assert (await log.apply([commit])).answers[0].added is None


async def test_an_operator_ends_a_pattern(log: MessageLog) -> None:
    await stored(log, PATTERN, brought(), brought("orders.b"))
    await add(log, to_channel("a", "eve", "orders.a"), to_channel("b", "eve", "orders.b"))
    what = EndPattern("ann", "orders.*", PurgeMailbox(page("ann", ("orders.a", 0)), 0), {"orders.b": "**"})
    await log.apply([AddPattern("ann", "**", at(2))])
    change = Remove("r", "eve", "eve", at(3), "subscription", "ann orders.*", what)
    counts = {"subscriptions": 1, "waiting": 1}
    looked = (await log.look(change)).removed
    assert (looked.counts, looked.done, len((await log.load()).patterns)) == (counts, False, 2)
    [removed] = (await log.apply([change])).answers
    assert (removed.counts, removed.done) == (counts, True)
    state = await log.load()
    assert (found(state), [each.pattern for each in state.patterns]) == ({("ann", "orders.b"): "**"}, ["**"])


async def test_an_operator_ends_a_subscription_that_passes_to_a_pattern(log: MessageLog) -> None:
    await stored(log, PATTERN, brought(pattern=None))
    what = EndSubscription("ann", "orders.a", None, "orders.*")
    [removed] = (await log.apply([Remove("r", "eve", "eve", at(3), "subscription", "ann", what)])).answers
    assert (removed.counts, removed.done) == ({"subscriptions": 1, "waiting": 0}, True)
    assert found(await log.load()) == {("ann", "orders.a"): "orders.*"}


async def test_a_bot_that_is_removed_has_no_patterns_left(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann"))])
    await stored(log, PATTERN, brought())
    what = RemoveBot("ann", PurgeMailbox(page("ann", ("", 0)), 0), 0)
    change = Remove("r", "eve", "eve", at(3), "bot", "ann", what)
    [refused] = (await log.apply([change])).answers
    assert (refused.in_the_way, refused.done) == ({"subscriptions": 1, "patterns": 1}, False)
    [removed] = (await log.apply([replace(change, force=True)])).answers
    state = await log.load()
    assert (removed.done, state.patterns, state.subscriptions) == (True, [], [])


async def test_the_repository_lists_what_a_pattern_brought(store: Store) -> None:
    await stored(store.log, PATTERN, brought())
    listed = await store.messages.get_subscriptions("ann")
    assert listed == [BotSubscription(bot_id="ann", channel_name="orders.a", subscribed_at=at(1))]
    assert await store.messages.get_channel_subscribers("orders.a") == ["ann"]
