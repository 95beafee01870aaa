"""Last values of channels through a bot's connection: retained, told to who subscribes, and read directly."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import pytest

import bus
from bus.testing import Worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


@pytest.fixture
async def ann(worker: Worker) -> AsyncIterator[bus.Bot]:
    async with worker.connect(bot="ann", max_in_flight=0) as bot:
        yield bot


@pytest.fixture
async def bob(worker: Worker) -> AsyncIterator[bus.Bot]:
    async with worker.connect(bot="bob") as bot:
        yield bot


async def test_who_subscribes_later_is_told_the_last_value(ann: bus.Bot, bob: bus.Bot) -> None:
    first = await ann.publish("prices", {"tea": 3}, retain=True, message_type="price", headers={"unit": "g"})
    await ann.publish("prices", {"tea": 99})
    last = await bob.subscribe("prices", retained=True)
    assert last is not None
    assert (last.seq, last.body, last.message_type, last.headers) == (first.seq, {"tea": 3}, "price", {"unit": "g"})
    assert (last.sender_bot_name, last.recipient["name"], last.id) == ("ann", "prices", first.id)
    await ann.publish("prices", {"tea": 4}, retain=True)
    with anyio.fail_after(BOUND_SECONDS):
        message = await bob.receive()
    assert message.body == {"tea": 4}, "what came before the subscription is not delivered"
    await message.ack()
    again = await bob.subscribe("prices", retained=True)
    assert again is not None
    assert again.body == {"tea": 4}
    assert isinstance(await bob.subscribe("prices"), int)


async def test_it_is_read_directly_and_cleared(ann: bus.Bot, bob: bus.Bot) -> None:
    assert await bob.retained("states") is None
    await ann.publish("states", [1, 2], retain=True)
    found = await bob.retained("states")
    assert found is not None
    assert found.body == [1, 2]
    await bob.subscribe("states")
    await ann.publish("states", None, retain=True)
    assert await bob.retained("states") is None
    with anyio.fail_after(BOUND_SECONDS):
        assert (await bob.receive()).body is None
    assert await bob.subscribe("states", retained=True) is None


async def test_it_is_there_after_a_restart_and_in_a_group(ann: bus.Bot, bob: bus.Bot, worker: Worker) -> None:
    await ann.publish("kept", "value", retain=True)
    await anyio.to_thread.run_sync(worker.stop)
    await anyio.to_thread.run_sync(worker.start)
    last = await bob.subscribe("kept", group="team", retained=True)
    assert last is not None
    assert last.body == "value"


async def test_a_repeated_publish_does_not_bring_it_back(ann: bus.Bot) -> None:
    first = await ann.publish("repeated", 1, retain=True)
    await ann.publish("repeated", 2, retain=True)
    assert (await ann.publish("repeated", 1, retain=True, id=first.id)).duplicate
    found = await ann.retained("repeated")
    assert found is not None
    assert found.body == 2


async def test_a_commit_retains(ann: bus.Bot) -> None:
    await ann.workflows.commit(messages=[bus.Draft(channel="committed", body=1, retain=True)])
    found = await ann.retained("committed")
    assert found is not None
    assert found.body == 1


async def test_it_ends_with_its_ttl_and_with_its_channel(ann: bus.Bot) -> None:
    await ann.publish("short", 1, retain=True, ttl=0.05)
    with anyio.fail_after(BOUND_SECONDS):
        while await ann.retained("short") is not None:
            await anyio.sleep(0.01)
    await ann.publish("ended", 1, retain=True)
    await ann.remove_channel("ended")
    assert await ann.retained("ended") is None


async def test_only_channels_retain_and_nothing_that_is_delayed(ann: bus.Bot, bob: bus.Bot) -> None:
    for draft in (
        bus.Draft(to="bob", body=1, retain=True),
        bus.Draft(channel="later", body=1, retain=True, delay=5),
    ):
        with pytest.raises(ValueError, match="can be retained"):
            await ann.send_all([draft])


async def test_no_store_of_a_client_has_them(ann: bus.Bot) -> None:
    await ann.publish("hidden", 1, retain=True)
    with pytest.raises(bus.InvalidValue, match="must be a name"):
        await ann.kv("$retained").get("hidden")
