"""The last value of a channel in the log: written with its message, and there for those who subscribe later."""

from __future__ import annotations

from typing import Any

import pytest

from bus.model.repository import (
    AddBot,
    AddChannel,
    AddMessages,
    AddSubscription,
    CloseChannel,
    Erase,
    LogMessage,
    MessageLog,
    NewMessage,
    Remove,
    RemoveMessages,
    Store,
    Subscribed,
    lots_of,
)
from bus.model.retaining import RETAINED

from .conftest import LogPlace
from .samples import add, at, bot, channel, direct, to_channel, work

pytestmark = pytest.mark.anyio


def kept(id: str, body: bytes = b'"x"', sender: str = "ann", name: str = "news", **fields: Any) -> NewMessage:
    return to_channel(id, sender, name, body=body, retain=True, **fields)


async def begin(log: MessageLog) -> None:
    await log.apply(
        [AddBot(bot("ann")), AddBot(bot("bob")), AddChannel(channel("news")), AddChannel(channel("other"))]
    )


async def last(log: MessageLog, name: str = "news") -> LogMessage | None:
    """Return what a bot is told that subscribes, again or for the first time."""
    [subscribed] = (await log.apply([AddSubscription("bob", name, at(9), retained=True)])).answers
    assert isinstance(subscribed, Subscribed)
    return subscribed.retained


async def last_id(log: MessageLog, name: str = "news") -> str | None:
    found = await last(log, name)
    return None if found is None else found.id


async def test_the_last_message_that_is_retained_is_kept_whole(log: MessageLog) -> None:
    await begin(log)
    assert await last(log) is None
    fields: dict[str, Any] = {"reply_to": "q", "headers": b'{"a":"b"}', "message_type": "price"}
    await add(log, kept("a"), direct("d", "ann", "bob"), kept("b", b'{"n": 1.50}', **fields), second=3)
    await add(log, to_channel("c", "ann", "news"), second=4)
    expected = LogMessage(
        "b", "ann", "ann", None, "news", "price", b'{"n": 1.50}', "q", b'{"a":"b"}', seq=3, timestamp=at(3)
    )
    assert await last(log) == expected
    assert await last(log, "other") is None
    assert (await log.messages([3]))[0] == expected, "it is in the log like any other"


async def test_a_body_of_null_clears_it(log: MessageLog) -> None:
    await begin(log)
    await add(log, kept("a"), kept("b", name="other"))
    [cleared] = await add(log, kept("c", b"null"))
    assert cleared.seq == 3, "it is delivered as well"
    assert (await last_id(log), await last_id(log, "other")) == (None, "b")
    await add(log, kept("d", b"null"))
    await add(log, kept("e"))
    assert await last_id(log) == "e"


async def test_a_repeat_retains_nothing(log: MessageLog) -> None:
    await begin(log)
    await add(log, kept("a"))
    await add(log, kept("b"))
    [again] = await add(log, kept("a"))
    assert again.duplicate
    assert await last_id(log) == "b"
    mixed = await add(log, kept("a"), kept("a", sender="bob"), kept("b"))
    assert [one.duplicate for one in mixed] == [True, False, True]
    found = await last(log)
    assert found is not None
    assert (found.id, found.sender_bot_id) == ("a", "bob")


async def test_a_subscription_has_what_was_there_when_it_was_made(log: MessageLog) -> None:
    await begin(log)
    before, after = (AddMessages(lots_of([kept(id)]), at(1)) for id in "ab")
    subscription = AddSubscription("bob", "news", at(1), retained=True)
    _, subscribed, _ = (await log.apply([before, subscription, after])).answers
    assert (subscribed.retained.id, subscribed.start_seq) == ("a", 1)
    assert await last_id(log) == "b"
    [unasked] = (await log.apply([AddSubscription("ann", "news", at(1))])).answers
    assert unasked.retained is None


async def test_a_commit_retains_with_the_rest(log: MessageLog) -> None:
    await begin(log)
    change = work("c", lots=lots_of([kept("a"), kept("b")]))
    await log.apply([change])
    assert await last_id(log) == "b"
    await add(log, kept("d"))
    await log.apply([change])
    assert await last_id(log) == "d"


async def test_it_stays_when_its_message_has_left_the_log(log: MessageLog) -> None:
    await begin(log)
    await add(log, kept("a"), direct("z", "ann", "bob"))
    await log.apply([RemoveMessages((1,))])
    assert await log.messages([1]) == []
    assert await last_id(log) == "a"


async def test_it_goes_with_its_message_that_is_erased(log: MessageLog) -> None:
    await begin(log)
    await add(log, kept("a"), kept("b"), kept("c", name="other"))
    [erased] = (await log.apply([Erase("1", "ops", "operator", at(9), (1,))])).answers
    assert (erased.values, await last_id(log)) == ((), "b")
    [erased] = (await log.apply([Erase("2", "ops", "operator", at(9), (2,))])).answers
    assert [value.store for value in erased.values] == [RETAINED]
    assert (await last_id(log), await last_id(log, "other")) == (None, "c")


async def test_it_goes_with_its_channel(log: MessageLog) -> None:
    await begin(log)
    await add(log, kept("a"))
    change = Remove("r", "ops", "operator", at(9), "channel", "news", CloseChannel("news", ()))
    assert not (await log.look(change)).removed.done
    assert await last_id(log) == "a"
    change = Remove("r", "ops", "operator", at(9), "channel", "news", CloseChannel("news", ()), force=True)
    [removed] = (await log.apply([change])).answers
    assert removed.done
    await log.apply([AddChannel(channel("news"))])
    assert await last_id(log) is None
    await add(log, kept("b"))
    await log.apply([change])
    assert await last_id(log) == "b", "the removal was done before"


async def test_it_is_there_after_a_restart(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await begin(log)
        await add(log, kept("a"))
    async with log_place.open() as log:
        assert await last_id(log) == "a"


async def test_it_expires_with_its_message(store: Store) -> None:
    await begin(store.log)
    await add(store.log, kept("a", expires_at=at(0)), second=1)
    assert await last_id(store.log) is None
    await add(store.log, kept("b", expires_at=at(59 * 60)), second=1)
    assert await last_id(store.log) == "b"


async def test_no_client_can_name_its_store(store: Store) -> None:
    await begin(store.log)
    await add(store.log, kept("a"))
    found = await store.keyed.get(RETAINED, "news")
    assert found is not None
    assert (found.key, found.bot_id) == ("news", "ann")
