"""A bot's last will from its author's side, on every backend that the client runs on."""

from __future__ import annotations

import anyio
import pytest

import bus
from bus.client.caller import Caller
from bus.testing import Worker
from bus.wire.frames import Publication, ToChannel

pytestmark = pytest.mark.anyio

WILL = bus.Draft(channel="deaths", body="gone")


async def test_a_bot_that_says_goodbye_leaves_nothing(worker: Worker) -> None:
    async with worker.connect(bot="eve") as eve:
        await eve.subscribe("deaths")
        async with worker.connect(bot="ann") as ann:
            await ann.will(WILL, delay=0)
        await eve.publish("deaths", "the end", id=None)
        await eve.subscribe("more")
        async with worker.connect(bot="bob") as bob:
            await bob.publish("deaths", "of bob")
        with anyio.fail_after(30):
            message = await eve.receive()
    assert (message.sender, message.body) == ("bob", "of bob")


async def test_what_cannot_be_sent_is_refused(worker: Worker) -> None:
    async with worker.connect(bot="ann") as ann:
        with pytest.raises(bus.UnknownBot):
            await ann.will(bus.Draft(to="nobody", body=1))
        with pytest.raises(ValueError, match="delay"):
            await ann.will(bus.Draft(channel="deaths", body=1, delay=3))
        await ann.will(WILL)
        await ann.will(None)


async def test_a_will_that_is_refused_leaves_the_one_before(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker.connect(bot="ann") as ann:
        await ann.will(WILL)
        with pytest.raises(bus.UnknownBot):
            await ann.will(bus.Draft(to="nobody", body=1))
        left, again = anyio.Event(), list[object]()
        ask = ann._will._send

        async def noted(caller: Caller, message: Publication | None) -> None:
            await ask(caller, message)
            again.append(message and message.recipient)
            left.set()

        monkeypatch.setattr(ann._will, "_send", noted)
        ann._caller.connection.reconnect()
        with anyio.fail_after(30):
            await left.wait()
        assert again == [ToChannel("deaths")]
