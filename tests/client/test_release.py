"""Giving messages back without a failure: on purpose, and by being cancelled."""

from __future__ import annotations

import anyio
import pytest
import trio

import bus
from bus.testing import Worker

from .fake_worker import FakeWorker
from .test_application import Handled

pytestmark = pytest.mark.anyio

TOO_OFTEN = 6
"""Twice as often as a message may fail with the impatient worker."""


async def next_attempt(bot: bus.Bot) -> bus.Message:
    with anyio.fail_after(30):
        return await bot.receive()


async def test_releasing_is_no_failure(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a") as a:
        receipt = await a.send("a", "later")
        for attempt in range(1, TOO_OFTEN + 1):
            message = await next_attempt(a)
            assert (message.seq, message.attempt) == (receipt.seq, attempt)
            await message.release(0.01 if attempt % 2 else None, confirm=attempt % 3 == 0)
            assert message.settled
        async with await next_attempt(a) as message:
            assert message.attempt == TOO_OFTEN + 1
            await message.release()
            await message.ack()
        message = await next_attempt(a)
        assert message.attempt == TOO_OFTEN + 2, "what was settled stays as it was"
        await message.ack(confirm=True)
        assert await a.dead_letters() == []
        assert (await a.find(receipt.id))["mailboxes"][0]["state"] == "settled"


async def test_a_delay_is_waited_for(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        first, second = await a.send("a", 1), await a.send("a", 2)
        one, two = await next_attempt(a), await next_attempt(a)
        await one.release(1.0, confirm=True)
        await two.release(confirm=True)
        again = [await next_attempt(a), await next_attempt(a)]
        assert [(message.seq, message.attempt) for message in again] == [(second.seq, 2), (first.seq, 2)]


async def test_a_cancelled_block_gives_its_message_back(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a", max_in_flight=1) as a:
        await a.send("a", "slow")
        for attempt in range(1, TOO_OFTEN + 1):
            message = await next_attempt(a)
            assert message.attempt == attempt
            with anyio.CancelScope() as scope:
                async with message, anyio.create_task_group() as tasks:
                    tasks.start_soon(anyio.sleep_forever)
                    scope.cancel()
        async with await next_attempt(a) as message:
            assert (message.body, message.attempt) == ("slow", TOO_OFTEN + 1)
        assert await a.dead_letters() == []


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_group_of_cancellations_is_one(impatient_worker: Worker) -> None:
    """Trio's own nursery gives one for each of its tasks, in a group."""
    async with impatient_worker.connect(bot="a") as a:
        await a.send("a", "slow")
        for attempt in range(1, TOO_OFTEN + 1):
            message = await next_attempt(a)
            assert message.attempt == attempt
            with trio.CancelScope() as scope:
                async with message, trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    scope.cancel()
                    await trio.sleep_forever()
        for _ in range(3):
            with pytest.raises(BaseExceptionGroup) as raised:
                await fail_and_cancel(await next_attempt(a))
            assert raised.group_contains(ValueError)
        with anyio.fail_after(30):  # an error beside them is a failure, and three are a dead letter
            while not await a.dead_letters():
                await anyio.sleep(0.01)


async def fail_and_cancel(message: bus.Message) -> None:
    with trio.CancelScope() as scope:
        async with message, trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            raise ValueError("and that")


async def test_a_cancelled_context_gives_back_once(worker: Worker) -> None:
    """The release and the goodbye go together: whoever comes next sees one delivery before its own, and not two."""
    async with worker.connect(bot="a") as a:
        async with anyio.create_task_group() as tasks:

            async def work(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                async with worker.connect(bot="b") as b:
                    await a.send("b", "work")
                    async with await b.receive():
                        task_status.started()
                        await anyio.sleep_forever()

            await tasks.start(work)
            tasks.cancel_scope.cancel()
        async with worker.connect(bot="b") as b:
            assert (await next_attempt(b)).attempt == 2


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_cancelled_handler_gives_its_message_back_while_the_bot_stays(
    impatient_worker: Worker, how: str
) -> None:
    async with impatient_worker.connect(bot="a") as a:
        handled = Handled()

        @a.on_message()
        async def direct(message: bus.Message) -> None:
            handled.note("attempt", message.attempt)
            await anyio.sleep_forever()

        await a.send("a", "work")
        for attempt in range(1, TOO_OFTEN + 1):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: a.serve(stop_timeout=0))
                await handled.wait_for(attempt)
                if how == "stop":
                    a.stop()
                else:
                    tasks.cancel_scope.cancel()
        assert handled.seen == [("attempt", attempt) for attempt in range(1, TOO_OFTEN + 1)]
        async with await next_attempt(a) as message:
            assert message.attempt == TOO_OFTEN + 1
        assert await a.dead_letters() == []


async def test_a_release_on_the_wire() -> None:
    with FakeWorker("inproc://release") as fake:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fake.welcome)
            async with bus.connect(fake.url, bot="b", context=fake.context) as b:
                messages = [DELIVERY | {"seq": seq} for seq in (1, 2, 3)]
                fake.send(op="deliver", messages=messages)
                await (await next_attempt(b)).release()
                assert await fake.receive("nak") == {"op": "nak", "seqs": [1], "release": True}
                await (await next_attempt(b)).release(2.5)
                assert await fake.receive("nak") == {"op": "nak", "seqs": [2], "delay": 2.5, "release": True}
                await (await next_attempt(b)).nak()
                assert await fake.receive("nak") == {"op": "nak", "seqs": [3]}, "as an older worker knows it"
                tasks.start_soon(fake.farewell)


DELIVERY = {
    "id": "01900000-0000-7000-8000-000000000001",
    "sender_bot_id": "01900000-0000-7000-8000-000000000002",
    "sender_bot_name": "s",
    "recipient": {"type": "channel", "name": "news"},
    "message_type": "message",
    "body": 1,
    "reply_to": None,
    "headers": {},
    "timestamp": "2026-01-01T00:00:00.000000Z",
    "attempt": 1,
}


@pytest.mark.parametrize("error", [bus.StorageFull("the disk is full"), bus.StorageBusy("somebody else writes")])
async def test_a_block_that_meets_a_store_which_cannot_write_releases(error: bus.RequestError) -> None:
    with FakeWorker(f"inproc://{type(error).__name__}") as fake:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fake.welcome)
            async with bus.connect(fake.url, bot="b", context=fake.context, timeout=5) as b:
                fake.send(op="deliver", messages=[DELIVERY | {"seq": 1}])
                with pytest.raises(type(error)):
                    async with await next_attempt(b):
                        raise error
                assert await fake.receive("nak") == {"op": "nak", "seqs": [1], "release": True}
                tasks.start_soon(fake.farewell)
