"""Who is there, from an author's side, on every backend that the client runs on."""

from __future__ import annotations

import anyio
import pytest

import bus
from bus.testing import Worker

pytestmark = pytest.mark.anyio


async def test_a_bot_is_told_who_is_there(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve:
        await eve.subscribe("posthouse.presence")
        assert [each.name for each in await eve.present()] == ["eve"]
        async with worker.connect(bot="ann"):
            with anyio.fail_after(30):
                message = await eve.receive()
            connected = bus.events.read_event(message.message_type, message.body)
            assert isinstance(connected, bus.events.PresenceConnected)
            assert (connected.bot, connected.sessions) == ("ann", 1)
            [session] = await eve.sessions(bot="ann")
            assert connected.session == session.id
            assert [each.name for each in await eve.present()] == ["ann", "eve"]
            assert [each.name for each in await eve.bots(online=True, only=["ann"])] == ["ann"]
        with anyio.fail_after(30):
            message = await eve.receive()
        ended = bus.events.read_event(message.message_type, message.body)
        assert isinstance(ended, bus.events.PresenceEnded)
        assert (ended.bot, ended.sessions, ended.session) == ("ann", 0, connected.session)
        assert [each.name for each in await eve.present()] == ["eve"]
        assert [each.name for each in await eve.bots()] == ["ann", "eve"]
