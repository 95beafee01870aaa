"""What a client does when its worker goes away, on every event loop."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

import bus
from bus.testing import Worker

from ..engines import query, sqlite_only
from .fake_worker import FakeWorker
from .test_bot import bodies

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_going_on_after_a_restart(worker: Worker, how: str) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        await b.subscribe("news")
        await a.send("b", "before")
        with anyio.fail_after(30):
            held = await b.receive()
            await anyio.to_thread.run_sync(worker.stop if how == "stop" else worker.kill)
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(a.send, "b", f"while away {number}")
                await anyio.to_thread.run_sync(worker.start)
            await b.bots()  # b is back, too: a confirmation that waits for a session is not carried over into it
            await held.ack(confirm=how == "stop")
            await a.publish("news", "after")
        seen = await bodies(b, 11)
        assert sorted(map(str, seen)) == sorted([f"while away {n}" for n in range(10)] + ["after"])
        assert len(await a.history(between=("a", "b"))) == 11


async def test_what_was_settled_is_not_handed_out_again(worker: Worker) -> None:
    """An ack without confirmation may be lost with the worker; the client answers the repeat by itself."""
    async with worker.connect(bot="a") as a:
        await a.send_all([bus.Draft(to="a", body=number) for number in range(5)])
        assert await bodies(a, 5) == [0, 1, 2, 3, 4]
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        await a.send("a", "next")
        assert await bodies(a, 1) == ["next"]
        [row] = await a.bots()
        assert row["backlog"] == 0


@pytest.mark.parametrize(
    "junk",
    [b"", b"\xff", b"not json", b'{"op":"pong","last_seq":', b'{"op":"ok","request":1,"value":' + b"[" * 9000,
     b'{"op":"deliver","messages":7}', b'{"op":"of a later version"}'],
    ids=lambda junk: repr(junk[:16]),
)  # fmt: skip
async def test_what_is_no_frame_of_a_worker_ends_no_session(junk: bytes) -> None:
    with FakeWorker("inproc://junk") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                worker.send_raw(junk)
                tasks.start_soon(worker.publish)
                with anyio.fail_after(30):
                    receipt = await bot.publish("news", 1)
                assert receipt.seq == 1
                tasks.start_soon(worker.farewell)


async def test_unanswered_messages_are_repeated_with_their_ids() -> None:
    with FakeWorker("inproc://repeat") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                receipts: list[bus.Receipt] = []

                async def send() -> None:
                    receipts.append(await bot.send("x", 1))

                tasks.start_soon(send)
                frame = await worker.receive("publish")
                worker.send(op="error", code="unknown_session", message="who are you?", retry=True)
                await worker.welcome()
                again = await worker.publish(first_seq=7)
                with anyio.fail_after(30):
                    while not receipts:
                        await anyio.sleep(0.002)
                assert again == [frame["messages"][0]["id"]]
                assert receipts == [bus.Receipt(id=again[0], seq=7)]
                tasks.start_soon(worker.farewell)


async def test_concurrent_sends_share_frames() -> None:
    with FakeWorker("inproc://share") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                for number in range(100):
                    tasks.start_soon(bot.send, "x", number)
                frames: list[list[str]] = []
                while sum(map(len, frames)) < 100:
                    frames.append(await worker.publish(first_seq=1 + sum(map(len, frames))))
                tasks.start_soon(worker.farewell)
        assert len(frames) <= 3, "a hundred sends of one turn travel in a frame or two"


async def test_a_full_window_makes_the_caller_wait() -> None:
    with FakeWorker("inproc://window") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)

            async def small_window() -> None:
                await worker.welcome(max_publish_in_flight=3)

            tasks.start_soon(small_window)
            async with bot:
                tasks.start_soon(bot.send_all, [bus.Draft(to="x", body=number) for number in range(5)])
                first = await worker.receive("publish")
                seen = len(first["messages"])
                unanswered = [first]
                while seen < 3:
                    unanswered.append(await worker.receive("publish"))
                    seen += len(unanswered[-1]["messages"])
                assert seen == 3, "no more than the window is unanswered"
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(bot.set_credit, 1)
                later = await worker.receive("publish", "credit")
                assert later["op"] == "credit", "a fourth message was sent although the window is full"
                worker.send(op="ok", request=later["request"])
                for frame in unanswered:
                    worker.send(op="published", request=frame["request"], seqs=[1] * len(frame["messages"]))
                while seen < 5:
                    seen += len(await worker.publish())
                tasks.start_soon(worker.farewell)


async def test_a_pause_outlasts_the_session(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        await b.set_credit(0)
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        await a.send("b", 1)
        await b.status()  # whatever was delivered before it is here now
        assert b.receive_nowait() is None
        await b.set_credit(1)
        assert await bodies(b, 1) == [1]


@sqlite_only("it puts back a copy of the file; tests/postgresql/test_restoring.py does it with dumps")
async def test_a_restored_log_gives_its_seqs_to_other_messages(worker: Worker, tmp_path: Path) -> None:
    """The same seq in the same log may name another message, after an older copy was put back."""
    async with worker.connect(bot="a") as a:
        await a.send("a", "kept")
        assert await bodies(a, 1) == ["kept"]
        await anyio.to_thread.run_sync(worker.stop)
        copy = tmp_path / "copy.db"
        await anyio.to_thread.run_sync(shutil.copyfile, worker.database, copy)
        await anyio.to_thread.run_sync(worker.start)
        lost = await a.send("a", "lost with the newer file")
        assert await bodies(a, 1) == ["lost with the newer file"]
        await anyio.to_thread.run_sync(worker.stop)
        await anyio.to_thread.run_sync(shutil.copyfile, copy, worker.database)
        await anyio.Path(f"{worker.database}-lock").unlink()
        await anyio.to_thread.run_sync(worker.start)
        again = await a.send("a", "new")
        assert again.seq == lost.seq
        assert await bodies(a, 1) == ["new"]


async def test_settling_what_another_log_numbered(worker: Worker, store_url: str) -> None:
    """A message that was held while its log was replaced must not settle the one that has its seq now."""
    async with worker.connect(bot="a") as a:
        await a.send("a", "old")
        old = await a.receive()
        await anyio.to_thread.run_sync(worker.stop)
        await _forget(store_url)
        await anyio.to_thread.run_sync(worker.start)
        receipt = await a.send("a", "new")
        assert receipt.seq == old.seq
        with pytest.raises(bus.NotInFlight, match="another log"):
            await old.ack(confirm=True)
        with anyio.fail_after(30):  # the new worker may still be reading what to hand out
            while (state := (await a.find(receipt.id))["mailboxes"][0]["state"]) == "waiting":
                await anyio.sleep(0.01)
        assert state == "in_flight"
        assert await bodies(a, 1) == ["new"]


async def test_an_ack_is_confirmed_after_the_worker_forgot_it(worker: Worker) -> None:
    """It is acked once more when it comes again, and confirmed only then."""
    async with worker.connect(bot="a") as a:
        await a.send("a", 1)
        message = await a.receive()
        await message.ack()
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        await message.ack(confirm=True)
        assert (await a.find(message.id))["mailboxes"][0]["state"] == "settled"


async def test_confirming_later(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await a.send("a", 1)
        message = await a.receive()
        await message.ack()
        await message.ack(confirm=True)
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        assert (await a.status())["counters"]["delivered"] == 0
        [row] = await a.bots()
        assert row["backlog"] == 0


async def test_a_cancelled_block_does_not_hold_its_message(impatient_worker: Worker) -> None:
    async with impatient_worker.connect(bot="a", max_in_flight=1) as a:
        await a.send("a", "slow")
        with anyio.fail_after(30):
            message = await a.receive()
            with anyio.CancelScope() as scope:
                async with message:
                    scope.cancel()
                    await anyio.sleep_forever()
            message = await a.receive()
        assert (message.body, message.attempt) == ("slow", 2)
        await message.ack()


async def test_cancelled_messages_leave_the_window(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await anyio.to_thread.run_sync(worker.kill)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.send_all, [bus.Draft(to="a", body=number) for number in range(5000)])
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(a.send, "a", "next")
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(worker.start)


async def test_a_refusal_for_good_wakes_everybody() -> None:
    with FakeWorker("inproc://refusal") as worker:
        async with anyio.create_task_group() as tasks:
            bot = bus.connect(worker.url, bot="b", context=worker.context)
            tasks.start_soon(worker.welcome)
            async with bot:
                refused = anyio.Event()

                async def receive() -> None:
                    with pytest.raises(bus.BotConflict):
                        await bot.receive()
                    refused.set()

                tasks.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                worker.send(op="closing")
                hello = await worker.receive("hello")
                worker.send(op="error", request=hello["request"], code="bot_conflict", message="no", retry=False)
                with anyio.fail_after(30):
                    await refused.wait()


async def test_a_bot_that_leaves_while_it_says_hello_says_goodbye_after_it() -> None:
    """Else its hello would begin a session that nobody is in, and that is delivered messages."""
    with FakeWorker("inproc://leaves") as worker, anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            bot = bus.Bot("a", "inproc://leaves", context=worker.context)

            async def lose_the_session() -> None:
                async with bot:
                    bot._connection._lost.set()
                    await left.wait()

            left = anyio.Event()
            tasks.start_soon(lose_the_session)
            await worker.welcome()
            await worker.receive("hello")
            left.set()
            await worker.receive("goodbye")


async def _forget(store_url: str) -> None:
    """Remove everything that is stored."""
    if store_url.startswith("postgresql:"):
        await query(store_url, "DROP SCHEMA posthouse CASCADE")
    else:
        for suffix in ("", "-lock", "-wal", "-shm"):
            await anyio.Path(f"{store_url}{suffix}").unlink(missing_ok=True)
