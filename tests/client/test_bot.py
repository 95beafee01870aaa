"""A bot and a worker in one process: what an author does, on every event loop."""

from __future__ import annotations

import math
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

import bus
from bus.client.draft import publication
from bus.settings import Limits, Settings
from bus.testing import Worker

from ..engines import query

pytestmark = pytest.mark.anyio

ID = "01900000-0000-7000-8000-00000000000a"

WRONG_SECONDS = (math.nan, math.inf, -math.inf, -1, 316_224_001, True, "60")


async def bodies(bot: bus.Bot, count: int) -> list[object]:
    """Receive and settle some messages."""
    found: list[object] = []
    with anyio.fail_after(30):
        async for message in bot.messages():
            async with message:
                found.append(message.body)
            if len(found) == count:
                break
    return found


async def test_direct_message_and_reply(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker, worker.connect(bot="writer") as writer:
        receipt = await asker.send("writer", {"text": "hi"}, message_type="question", headers={"trace": "1"})
        with anyio.fail_after(30):
            async with await writer.receive() as question:
                await question.reply({"text": "hello"})
            answer = await asker.receive()
        assert (question.id, question.seq) == (receipt.id, receipt.seq)
        assert (question.sender, question.message_type, question.headers) == ("asker", "question", {"trace": "1"})
        assert (question.channel, question.attempt, question.settled) == (None, 1, True)
        assert abs((datetime.now(UTC) - question.timestamp).total_seconds()) < 3600
        assert (answer.body, answer.reply_to, answer.sender) == ({"text": "hello"}, receipt.id, "writer")


async def test_channel_reaches_its_subscribers_only(worker: Worker) -> None:
    async with (
        worker.connect(bot="a") as a,
        worker.connect(bot="b") as b,
        worker.connect(bot="c") as c,
    ):
        await b.subscribe("news")
        await a.publish("news", 1)
        assert await bodies(b, 1) == [1], "what still waits when a channel is left does not come any more"
        assert await b.unsubscribe("news")
        assert not await b.unsubscribe("news")
        await a.publish("news", 2)
        for to in ("b", "c"):
            await a.send(to, "end")
        assert await bodies(b, 1) == ["end"]
        assert await bodies(c, 1) == ["end"]


async def test_echo_and_starting_in_the_past(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        receipts = await a.send_all([bus.Draft(channel="news", body=number) for number in range(5)])
        await a.subscribe("news", start=receipts[3].seq, echo=True)
        await a.publish("news", 5)
        assert await bodies(a, 3) == [3, 4, 5]
    async with worker.connect(bot="late") as late:
        assert await late.subscribe("news", start="all") == 0
        assert await bodies(late, 6) == [0, 1, 2, 3, 4, 5]
    async with worker.connect(bot="timely") as timely:
        await timely.subscribe("news", start=datetime(2020, 1, 1, tzinfo=UTC))
        assert await bodies(timely, 6) == [0, 1, 2, 3, 4, 5]
        with pytest.raises(ValueError, match="time zone"):
            await timely.subscribe("news", start=datetime(2020, 1, 1))


async def test_reading_a_channel_a_second_time(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        await a.send_all([bus.Draft(channel="news", body=number) for number in range(3)])
        for _ in range(2):
            await b.subscribe("news", start="all")
            assert await bodies(b, 3) == [0, 1, 2]
            await b.unsubscribe("news")


async def test_history_and_asking(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        first = await a.send("b", 1)
        second = await b.send("a", 2, reply_to=first.id)
        await a.publish("news", 3)
        assert [entry.body for entry in await a.history(between=("a", "b"))] == [2, 1]
        assert [entry.body for entry in await a.history(between=("b", "a"), limit=1)] == [2]
        assert [entry.body for entry in await a.history(between=("a", "b"), before_seq=second.seq)] == [1]
        assert [entry.body for entry in await a.history(thread=second.id)] == [2, 1]
        [entry] = await a.history(channel="news")
        assert (entry.channel, entry.body) == ("news", 3)
        found = await a.find(first.id)
        assert found["message"]["body"] == 1
        assert [row["bot"] for row in found["mailboxes"]] == ["b"]
        assert [fate.mailbox for fate in (await a.find(second.seq or 0)).mailboxes] == ["a"]
        assert [row["name"] for row in await a.bots()] == ["a", "b"]
        assert [row["name"] for row in await a.channels()] == ["news"]
        await b.subscribe("news")
        assert [row["bot"] for row in await a.subscriptions(channel="news")] == ["b"]
        assert [session.bot for session in await b.sessions()] == ["a", "b"]
        assert [session.client for session in await b.sessions(bot="a")] == ["posthouse-python/0.1"]
        assert [row["channel_name"] for row in await a.subscriptions(bot="b")] == ["news"]
        assert (await a.status())["last_seq"] == 3
        with anyio.fail_after(30):
            while not (opened := await a.audit(bot="b", event="session_opened")):
                await anyio.sleep(0.01)
        assert [(event.bot, event.times) for event in opened] == [("b", 1)]
        assert await a.audit(since=datetime.now(UTC) + timedelta(days=1)) == []


async def test_a_mailbox_is_looked_at_in_frames_of_any_number(worker: Worker) -> None:
    async with worker.connect(bot="a", max_in_flight=0) as a:
        await a.send_all(bus.Draft(to="a", body=[number, "x" * 200_000]) for number in range(12))
        whole = await a.mailbox()
        assert [row.message.body[0] for row in whole.messages] == list(range(12))
        assert (whole.name, whole.counts.waiting, whole.more) == ("a", 12, False)
        part = await a.mailbox("a", limit=7)
        assert (len(part.messages), part.more) == (7, True)
        rest = await a.mailbox("a", after_seq=part.messages[-1].message.seq or 0)
        assert [row.message.seq for row in (*part.messages, *rest.messages)] == list(range(1, 13))
        with pytest.raises(bus.UnknownBot):
            await a.mailbox("nobody")


async def test_refusals_are_typed_and_say_what_to_do(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        with pytest.raises(bus.UnknownBot, match="known once it has connected") as refused:
            await a.send("nobody", 1)
        assert (refused.value.code, refused.value.retry) == ("unknown_bot", False)
        with pytest.raises(bus.TooLarge):
            await a.send("b", "x" * 300_000)
        with pytest.raises(bus.TooLarge):
            await a.send("b", "x" * 2_000_000)
        deep: object = []
        for _ in range(101):
            deep = [deep]
        with pytest.raises(bus.InvalidBody):
            await a.send("b", deep)
        with pytest.raises(bus.InvalidBody, match="nan"):
            await a.send("b", {"mean": float("nan")})
        with pytest.raises(bus.UnknownChannel):
            await a.history(channel="silence")
        with pytest.raises(bus.NotFound):
            await a.find(ID)
        with pytest.raises(bus.RequestError, match="bad_request"):
            await a.publish("no name", 1)
        await a.send("b", 1, id=ID)
        assert (await a.send("b", 1, id=ID)).duplicate
        assert not (await b.send("a", 2, id=ID)).duplicate, "an id is its sender's"
        assert [(await bot.find(ID)).message.body for bot in (a, b)] == [1, 2]
        assert [(await a.find(ID, sender=sender)).message.body for sender in ("a", "b")] == [1, 2]
        with pytest.raises(ValueError, match="either a bot or a channel"):
            await a.send_all([bus.Draft(body=1)])
        assert await bodies(b, 1) == [1]
    with pytest.raises(bus.BotConflict):
        async with worker.connect(bot="a", bot_id=ID):
            pass


@pytest.mark.parametrize(
    "times",
    [{"ttl": wrong} for wrong in (0, *WRONG_SECONDS)] + [{"delay": wrong} for wrong in WRONG_SECONDS],
    ids=str,
)
def test_a_time_that_is_none_is_refused_before_it_is_sent(times: dict[str, Any]) -> None:
    [(name, value)] = times.items()
    with pytest.raises(ValueError, match=rf"^{name} must be a number of seconds .*, not {re.escape(repr(value))}$"):
        publication(bus.Draft(to="b", body=1, **times), ID)


async def test_no_message_goes_at_once_for_a_time_that_is_none(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        for seconds in (math.nan, math.inf):
            late = bus.Draft(to="a", body="too soon", delay=seconds)
            with pytest.raises(ValueError, match="delay must be a number of seconds"):
                await a.send("a", "too soon", delay=seconds)
            with pytest.raises(ValueError, match="ttl must be a number of seconds"):
                await a.publish("news", "for ever", ttl=seconds)
            with pytest.raises(ValueError, match="delay must be a number of seconds"):
                await a.send_all([bus.Draft(to="a", body="beside it"), late])
            with pytest.raises(ValueError, match="delay must be a number of seconds"):
                await a.workflows.commit(messages=[late])
        assert (await a.status())["last_seq"] == 0, "nothing was sent"
        receipt = await a.send("a", "in ten years", delay=316_224_000, ttl=316_224_000)
        assert receipt.scheduled, "the longest that the worker takes"


async def test_one_refused_of_many_leaves_the_others(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        drafts = [bus.Draft(to="b", body=1), bus.Draft(to="nobody", body=2), bus.Draft(to="b", body=3)]
        with pytest.raises(bus.UnknownBot):
            await a.send_all(drafts)
        assert await bodies(b, 2) == [1, 3]


async def test_a_misspelt_option_is_an_error(worker: Worker) -> None:
    """Of mypy as well: else it would complain of the comments here."""
    async with worker.connect(bot="a") as a:
        with pytest.raises(TypeError, match="dealy"):
            await a.send("a", 1, dealy=3)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="message_typ"):
            await a.publish("news", 1, message_typ="note")  # type: ignore[call-arg]
        await a.send("a", 1)
        async with await a.receive() as message:
            with pytest.raises(TypeError, match="header"):
                await message.reply(2, header={})  # type: ignore[call-arg]


async def test_frames_have_no_more_messages_than_the_worker_takes(store_url: str) -> None:
    with Worker(store_url, Settings(limits=Limits(messages_per_publish_max=3))) as worker:
        async with worker.connect(bot="a") as a:
            receipts = await a.send_all([bus.Draft(to="a", body=number) for number in range(10)])
            assert [receipt.seq for receipt in receipts] == list(range(1, 11))


async def test_a_failing_block_gives_the_message_back(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a") as a:
        await a.send("a", "try me")
        with anyio.fail_after(30):
            with pytest.raises(RuntimeError, match="first time"):
                async with await a.receive():
                    raise RuntimeError("first time")
            async with await a.receive() as again:
                assert (again.body, again.attempt) == ("try me", 2)
        assert await a.dead_letters() == []


async def test_giving_up_and_trying_again(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a") as a:
        receipt = await a.send("a", "poison")
        with anyio.fail_after(30):
            for attempt in range(1, 4):
                message = await a.receive()
                assert message.attempt == attempt
                await message.nak(0, confirm=True)
            [dead] = await a.dead_letters()
            assert (dead["seq"], dead["attempts"]) == (receipt.seq, 3)
            assert await a.retry_dead_letters([receipt.seq, 99]) == 1
            message = await a.receive()
            await message.term("truly bad", confirm=True)
            [dead] = await a.dead_letters()
            assert dead["reason"] == "truly bad"
            assert (await a.find(receipt.id))["mailboxes"][0]["state"] == "dead"
            assert await a.retry_dead_letters([receipt.seq]) == 1
            async with await a.receive() as last:
                assert (last.body, last.attempt) == ("poison", 1)
        assert await a.dead_letters() == []


async def test_a_long_reason_is_cut_and_a_delay_that_is_none_is_refused(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a") as a:
        await a.send("a", "poison")
        with anyio.fail_after(30):
            message = await a.receive()
            for delay in (float("nan"), float("inf"), -1.0):
                for settle in (message.nak, message.release):
                    with pytest.raises(ValueError, match="delay must be a number of seconds"):
                        await settle(delay)
            assert not message.settled
            await message.term("x" * 2000, confirm=True)
            [dead] = await a.dead_letters()
        assert dead["reason"] == "x" * 1023 + "…"


async def test_a_block_that_meets_a_run_that_has_ended_gives_its_message_up(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a") as a:
        await a.send("a", "order")
        with anyio.fail_after(30):
            with pytest.raises(bus.RunCancelled):
                async with await a.receive() as message:
                    raise bus.RunCancelled("r")
            while not (dead := await a.dead_letters()):
                await anyio.sleep(0.01)
        assert (dead[0]["seq"], dead[0]["reason"]) == (message.seq, "run 'r' was cancelled")


async def test_long_work_is_not_taken_away(impatient_worker: Worker) -> None:
    """The client extends what it holds: its ack_wait passes several times, and nobody gets the message."""
    async with impatient_worker.connect(bot="a") as a:
        await a.send("a", "slow")
        with anyio.fail_after(30):
            message = await a.receive()
            before = (await a.status())["uptime_seconds"]
            while (await a.status())["uptime_seconds"] < before + 2.5:
                assert a.receive_nowait() is None
                await anyio.sleep(0.05)
            await message.ack(confirm=True)
        assert (await a.status())["counters"]["delivered"] == 1


async def test_credit_bounds_what_is_here(worker: Worker) -> None:
    async with worker.connect(bot="a", max_in_flight=2) as a:
        await a.send_all([bus.Draft(to="a", body=number) for number in range(5)])
        first = await a.receive()
        second = await a.receive()
        await a.status()  # whatever was delivered before it is here now
        assert a.receive_nowait() is None
        await a.set_credit(0)
        await first.ack(confirm=True)
        await second.ack(confirm=True)
        assert a.receive_nowait() is None
        await a.set_credit(10)
        assert await bodies(a, 3) == [2, 3, 4]


async def test_an_error_in_the_context_comes_out_as_it_is(worker: Worker) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with worker.connect(bot="a"):
            raise ValueError("mine")


async def test_a_closed_bot_says_so(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        pass
    with pytest.raises(bus.ClosedError):
        await a.send("a", 1)
    with pytest.raises(bus.ClosedError):
        await a.receive()
    with pytest.raises(RuntimeError, match="entered only once"):
        async with a:
            pass


async def test_nobody_there(worker: Worker) -> None:
    worker.stop()
    with pytest.raises(bus.WorkerUnavailable, match="posthouse serve"):
        async with worker.connect(bot="a", wait=0.1):
            pass
    worker.start()


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "tcp://127.0.0.1",
        "carrier-pigeon://x",
        "tcp://127.0.0.1:99999",
        "tcp://:7710",
        "tcp://127.0.0.1:7710/bus",
        "tcp://127.0.0.1:7 710",
        "tcp://ann:secret@127.0.0.1:7710",
        "ipc:///\udcff",
    ],
)
async def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(bus.AddressError, match="use an address like tcp://") as caught:
        async with bus.connect(url, bot="a", timeout=None):
            pass
    assert "secret" not in repr(caught.value)


async def test_a_cancelled_call_disturbs_nobody(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        for delay in (0, 1, 2, 3, 5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(a.send, "a", "cancelled")
                tasks.start_soon(a.status)
                for _ in range(delay):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        receipt = await a.send("a", "kept")
        kept = [entry for entry in await a.history(between=("a", "a")) if entry.body == "kept"]
        assert [entry.seq for entry in kept] == [receipt.seq]


async def test_two_sessions_of_one_bot_share_its_mailbox(worker: Worker) -> None:
    async with (
        worker.connect(bot="a") as a,
        worker.connect(bot="w", max_in_flight=10) as one,
        worker.connect(bot="w", max_in_flight=10) as two,
    ):
        await a.send_all([bus.Draft(to="w", body=number) for number in range(20)])
        seen = await bodies(one, 10) + await bodies(two, 10)
        assert sorted(map(str, seen)) == sorted(map(str, range(20)))


async def test_everything_a_bot_missed_arrives_in_order(worker: Worker) -> None:
    async with worker.connect(bot="away") as away:
        await away.subscribe("news")
    async with worker.connect(bot="a") as a:
        for start in range(0, 3000, 500):
            drafts = [
                bus.Draft(body=number, to="away") if number % 2 else bus.Draft(body=number, channel="news")
                for number in range(start, start + 500)
            ]
            await a.send_all(drafts)
        [row] = [row for row in await a.bots() if row["name"] == "away"]
        assert (row["backlog"], row["online"]) == (3000, False)
        assert row["last_seen_at"] > row["created_at"]
    async with worker.connect(bot="away", max_in_flight=50) as away:
        assert await bodies(away, 3000) == list(range(3000))


async def test_a_bot_whose_name_is_a_uuid_is_reached_by_it(worker: Worker) -> None:
    """A name of an earlier version; a new one is refused."""
    name = str(uuid.uuid4())
    with pytest.raises(bus.RequestError, match="add a prefix"):
        await worker.connect(bot=name).__aenter__()
    async with worker.connect(bot="old"):
        pass
    worker.stop()
    await query(worker.store_url, "UPDATE bots SET name = $1 WHERE name = 'old'", name)
    worker.start()
    async with worker.connect(bot=name) as old, worker.connect(bot="boss") as boss:
        with anyio.fail_after(60):
            sent = await boss.send(name, "question")
            async with await old.receive() as question:
                answered = await question.reply("answer")
            async with await boss.receive() as answer:
                assert (answer.body, answer.sender) == ("answer", name)
                again = await answer.reply("thanks")
            async with await old.receive() as thanks:
                assert thanks.body == "thanks"
                await thanks.term("no")
            await old.subscribe("news")
            history = await boss.history(between=("boss", name))
            assert [message.seq for message in reversed(history)] == [sent.seq, answered.seq, again.seq]
            assert [letter["seq"] for letter in await boss.dead_letters(bot=name)] == [again.seq]
            assert [found["channel_name"] for found in await boss.subscriptions(bot=name)] == ["news"]
            assert await boss.retry_dead_letters([again.seq], bot=name) == 1
            by_id = await boss.send(answer.sender_id, "by id")
        assert by_id.seq > again.seq


async def test_a_uuid_is_an_id_before_it_is_a_name(worker: Worker) -> None:
    async with worker.connect(bot="first") as first, worker.connect(bot="other"):
        assert first._connection.welcome is not None
        bot_id = first._connection.welcome.bot_id
    worker.stop()
    await query(worker.store_url, "UPDATE bots SET name = $1 WHERE name = 'other'", bot_id)
    worker.start()
    async with worker.connect(bot="first") as first, worker.connect(bot="boss") as boss:
        await boss.send(bot_id, "to the id")
        with anyio.fail_after(60):
            async with await first.receive() as message:
                assert message.body == "to the id"
        assert len(await boss.history(between=("boss", bot_id))) == 1
