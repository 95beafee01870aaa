"""A bot that meets a limit is slowed, and loses nothing by it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import bus
from bus.settings import Limits, Settings
from bus.testing import Worker

from .fake_worker import FakeWorker
from .test_application import serving
from .test_release import DELIVERY, next_attempt

pytestmark = pytest.mark.anyio

PAIR_RATE, PAIR_BURST = 20, 5


@pytest.fixture
def strict_worker(store_url: str) -> Iterator[Worker]:
    """A worker that lets a bot say five things at once to another one, and then twenty a second."""
    limits = Limits(pair_messages_per_second_max=PAIR_RATE, rate_burst_seconds=PAIR_BURST / PAIR_RATE)
    with Worker(store_url, Settings(limits=limits)) as running:
        yield running


async def test_who_is_too_fast_is_told_when_to_try_again(strict_worker: Worker) -> None:
    async with strict_worker.connect(bot="a") as a, strict_worker.connect(bot="b", max_in_flight=0):
        with pytest.raises(bus.LimitReached, match="no more than 20 a second, and 5 at once") as refused:
            await a.send_all([bus.Draft(to="b", body=number) for number in range(PAIR_BURST + 10)])
        assert (refused.value.code, refused.value.retry) == ("rate_limited", True)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 1 / PAIR_RATE
        assert len(await a.history(between=("a", "b"))) == PAIR_BURST, "the others of its frame stand"
        await anyio.sleep(refused.value.retry_after)
        await a.send("b", "now")
        await a.send_all([bus.Draft(channel="news", body=number) for number in range(100)])
        status = await a.status()
        assert status["counters"]["rate_limited"] == 10
        [limited] = status["rate_limited"]
        assert (limited["sender"], limited["recipient"], limited["times"]) == ("a", "b", 10)


async def test_two_bots_that_answer_each_other_for_ever(strict_worker: Worker) -> None:
    """They are slowed, and visible; they lose nothing and fail at nothing; and a third bot does not notice."""
    bots = [strict_worker.connect(bot=name) for name in ("ping", "pong")]
    for bot in bots:

        @bot.on_message()
        async def answer(message: bus.Message) -> Any:
            return message.body + 1

    started = anyio.current_time()
    async with strict_worker.connect(bot="third") as third, serving(bots[0]), serving(bots[1]):
        await bots[0].send("pong", 0)
        said = asked = 0
        limited: set[tuple[str, str]] = set()
        while said < 60 or not limited:  # a busy machine may be slower than the limit for a while
            asked += 1
            assert (await third.request("pong", asked)).body == asked + 1
            said = (await third.history(between=("ping", "pong"), limit=1))[0].body + 1
            limited = {(row["sender"], row["recipient"]) for row in (await third.status())["rate_limited"]}
            await anyio.sleep(2 / PAIR_RATE)
        seconds = anyio.current_time() - started
        assert said <= 2 * (PAIR_BURST + PAIR_RATE * seconds) + 2
        assert limited <= {("ping", "pong"), ("pong", "ping")}
        told = await third.history(between=("ping", "pong"), limit=60)
        assert [entry.body for entry in told] == list(range(told[0].body, told[0].body - 60, -1))
        for bot in bots:
            assert await third.dead_letters(bot=bot.name) == []


REFUSALS: list[dict[str, Any]] = [
    {"code": "rate_limited", "retry_after": 0.01},
    {"code": "mailbox_full"},
    {"code": "busy"},
    {"code": "storage_full"},
]


async def refuse(fake: FakeWorker, refusal: dict[str, Any]) -> str:
    """Take a publish frame of one message and refuse it; give its id."""
    frame = await fake.receive("publish")
    [message] = frame["messages"]
    error = {"index": 0, "message": "not now", **refusal}
    fake.send(op="published", request=frame["request"], seqs=[None], errors=[error])
    return str(message["id"])


async def test_a_reply_waits_for_its_turn() -> None:
    with FakeWorker("inproc://reply") as fake:
        bot = bus.connect(fake.url, bot="b", context=fake.context)

        @bot.on_channel("news")
        async def answer(message: bus.Message) -> str:
            return "at last"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: bot.serve())
            await fake.welcome()
            subscribe = await fake.receive("subscribe")
            value = {"channel": "news", "start_seq": 0, "created": True}
            fake.send(op="ok", request=subscribe["request"], value=value)
            fake.send(op="deliver", messages=[DELIVERY | {"seq": 1}])
            ids = [await refuse(fake, refusal) for refusal in REFUSALS]
            ids += await fake.publish(first_seq=2)
            assert len(set(ids)) == 1, "one message, however often it is sent"
            assert (await fake.receive("ack"))["seqs"] == [1]
            bot.stop()
            await fake.farewell()


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal["code"])
async def test_a_handler_that_is_kept_waiting_for_too_long_has_not_failed(refusal: dict[str, Any]) -> None:
    """Its message is released: with its bot's patience over, it comes again later, and is no dead letter ever."""
    with FakeWorker("inproc://patience") as fake:
        bot = bus.connect(fake.url, bot="b", context=fake.context, timeout=5)

        @bot.on_channel("news")
        async def send_on(message: bus.Message) -> None:
            await bot.send("c", "on it goes")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: bot.serve())
            await fake.welcome()
            subscribe = await fake.receive("subscribe")
            value = {"channel": "news", "start_seq": 0, "created": True}
            fake.send(op="ok", request=subscribe["request"], value=value)
            fake.send(op="deliver", messages=[DELIVERY | {"seq": 1}])
            await refuse(fake, refusal)
            released = {"op": "nak", "seqs": [1], "release": True}
            delay = {"delay": refusal["retry_after"]} if "retry_after" in refusal else {}
            assert await fake.receive("nak") == released | delay
            bot.stop()
            await fake.farewell()


async def test_a_block_that_meets_a_limit_releases_and_a_reply_is_patient_only_for_so_long() -> None:
    with FakeWorker("inproc://block") as fake:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fake.welcome)
            async with bus.connect(fake.url, bot="b", context=fake.context, timeout=5) as b:
                fake.send(op="deliver", messages=[DELIVERY | {"seq": 1}])
                tasks.start_soon(refuse, fake, {"code": "rate_limited", "retry_after": 3600})
                with pytest.raises(bus.LimitReached) as refused:
                    async with await next_attempt(b) as message:
                        await message.reply("no")
                assert (refused.value.retry, refused.value.retry_after) == (True, 3600)
                released = {"op": "nak", "seqs": [1], "delay": 3600.0, "release": True}
                assert await fake.receive("nak") == released
                tasks.start_soon(fake.farewell)
