"""What the worker tells of itself in the log: messages of nobody, on channels that are its own."""

from __future__ import annotations

import pytest

from bus.model.events import PresenceConnected, PresenceVanished, event_lot
from bus.model.records import PRESENCE_CHANNEL, WORKER_ID, WORKER_NAME, Channel
from bus.model.repository import AddBot, AddChannel, AddMessages, AddSubscription, RemoveMessages

from .conftest import LogPlace
from .samples import at, bot, page, read_page

pytestmark = pytest.mark.anyio


async def test_who_is_there_is_told_with_the_channel_and_read_in_order(log_place: LogPlace) -> None:
    came = PresenceConnected(at=at(1), bot="bob", sessions=1, session="s", client="test/1")
    went = PresenceVanished(at=at(2), bot="bob", sessions=0, session="s", times=3)
    own = Channel(name=PRESENCE_CHANNEL, created_at=at(0), created_by_bot_id=WORKER_ID)
    async with log_place.open() as log:
        await log.apply([AddBot(bot("ann")), AddChannel(own), AddSubscription("ann", PRESENCE_CHANNEL, at(0))])
        await log.apply([AddMessages([event_lot([came], ["a"]), event_lot([went], ["b"])], at(3))])
    async with log_place.open() as log:
        state = await log.load()
        assert state.channels == [(own, 2)]
        found = (await read_page(log, page("ann", (PRESENCE_CHANNEL, 0)))).messages
        assert [(each.sender_bot_id, each.sender_bot_name) for each in found] == [(WORKER_ID, WORKER_NAME)] * 2
        assert [each.message_type for each in found] == ["presence.connected", "presence.vanished"]
        [removed] = (await log.apply([RemoveMessages((1,))])).answers
        assert removed == 1
