"""Watching a channel: live, in order, once, and whatever the tap loses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import zmq

import bus
from bus.client.watch import Watch
from bus.settings import Delivery, Settings
from bus.testing import Worker
from bus.wire.frames import StoredMessage
from bus.wire.topics import channel_topic

from .fake_worker import FakeWorker

pytestmark = pytest.mark.anyio


async def take(watch: Watch, count: int) -> list[object]:
    """Give the next bodies."""
    found: list[object] = []
    with anyio.fail_after(30):
        async for message in watch:
            assert message.channel == "news"
            found.append(message.body)
            if len(found) == count:
                break
    return found


async def publish(bot: bus.Bot, bodies: range) -> None:
    await bot.send_all([bus.Draft(channel="news", body=body) for body in bodies])


async def test_everything_from_the_moment_of_watching(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b", max_in_flight=0) as b:
        await publish(a, range(3))
        async with b.watch("news") as watch:
            await publish(a, range(3, 6))
            await a.publish("newsletter", "another channel")
            assert await take(watch, 3) == [3, 4, 5]
            await publish(a, range(6, 8))
            assert await take(watch, 2) == [6, 7]
        assert await b.subscriptions() == []


@pytest.mark.parametrize("after", [0, 1, 300])
async def test_everything_after_a_seq(worker: Worker, after: int) -> None:
    async with worker.connect(bot="a") as a:
        await publish(a, range(500))
        async with a.watch("news", after=after) as watch:
            assert await take(watch, 500 - after) == list(range(after, 500))
            await publish(a, range(500, 502))
            assert await take(watch, 2) == [500, 501]


async def test_a_long_log_is_read_in_its_order(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with worker.connect(bot="a") as a:
        await publish(a, range(1000))
        asked: list[dict[str, Any]] = []
        history = a.history

        async def counted(**query: Any) -> list[StoredMessage]:
            asked.append(query)
            return await history(**query)

        monkeypatch.setattr(a, "history", counted)
        async with a.watch("news", after=0) as watch:
            assert await take(watch, 1) == [0]
            assert len(asked) == 2, "its end, and the first messages"
            assert await take(watch, 999) == list(range(1, 1000))
            assert len(asked) <= 7


async def test_after_a_seq_that_was_never_given(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        await publish(a, range(3))
        async with a.watch("news", after=10_000) as watch:
            await publish(a, range(3, 5))
            assert await take(watch, 2) == [3, 4]


async def test_a_channel_that_is_not_there_yet(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, a.watch("news") as watch:
        await publish(a, range(2))
        assert await take(watch, 2) == [0, 1]


async def test_watching_while_much_is_said(worker: Worker) -> None:
    """The reader begins in the middle of it, and is slower than the tap's queues are long."""
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b:
        await publish(a, range(10))
        async with anyio.create_task_group() as tasks:

            async def speak(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                for start in range(10, 5010, 250):
                    await publish(a, range(start, start + 250))
                    if start == 510:
                        task_status.started()

            await tasks.start(speak)
            async with b.watch("news") as watch:
                [first] = await take(watch, 1)
                assert isinstance(first, int)
                rest = await take(watch, 5009 - first)
                assert rest == list(range(first + 1, 5010))


class LossyTap:
    """A tap that a test speaks for, beside a real worker's log."""

    def __init__(self, worker: Worker) -> None:
        self.url = f"{worker.tap_url}-lossy"
        self._socket = worker.context.socket(zmq.XPUB)
        self._socket.bind(self.url)

    def close(self) -> None:
        self._socket.close(0)

    async def subscribed(self) -> None:
        with anyio.fail_after(30):
            while not self._socket.poll(0):
                await anyio.sleep(0.002)

    async def say(self, bot: bus.Bot, receipt: bus.Receipt) -> None:
        """Copy a message of the log, with what came before it there."""
        page = await bot.history(channel="news", before_seq=receipt.seq + 1, limit=2)
        value = msgspec.to_builtins(page[0]) | {"prev_seq": page[1].seq if len(page) > 1 else 0}
        self._socket.send_multipart([channel_topic("news"), msgspec.json.encode(value)])


@pytest.mark.parametrize("lost", [0, 1, 199, 200, 201, 650])
async def test_what_the_tap_lost_comes_from_the_log(worker: Worker, lost: int) -> None:
    tap = LossyTap(worker)
    try:
        async with worker.connect(bot="a", tap_url=tap.url) as a, a.watch("news") as watch:
            await tap.subscribed()
            await publish(a, range(lost))
            told = await a.publish("news", "told")
            await tap.say(a, told)
            await tap.say(a, told)
            after = await a.publish("news", "after")
            await tap.say(a, after)
            assert await take(watch, lost + 2) == [*range(lost), "told", "after"]
    finally:
        tap.close()


class LeakyTap:
    """Stands between a worker's tap and who listens, and drops messages when told so; heads pass."""

    def __init__(self, worker: Worker) -> None:
        self.url = f"{worker.tap_url}-leaky"
        self.leaks = False
        self.dropped = 0
        self._listeners = worker.context.socket(zmq.XPUB)
        self._listeners.bind(self.url)
        self._worker = worker.context.socket(zmq.XSUB)
        self._worker.connect(worker.tap_url)

    async def run(self) -> None:
        try:
            while True:
                while self._listeners.poll(0):
                    self._worker.send_multipart(self._listeners.recv_multipart())
                while self._worker.poll(0):
                    parts = self._worker.recv_multipart()
                    if self.leaks and parts[0].startswith(b"channel/"):
                        self.dropped += 1
                    else:
                        self._listeners.send_multipart(parts)
                await anyio.sleep(0.005)
        finally:
            self._listeners.close(0)
            self._worker.close(0)


async def test_a_lost_tail_is_noticed_by_the_head(store_url: str) -> None:
    settings = Settings(delivery=Delivery(tap_head_seconds=0.1))
    with Worker(store_url, settings) as worker:
        tap = LeakyTap(worker)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tap.run)
            async with worker.connect(bot="a", tap_url=tap.url) as a, a.watch("news") as watch:
                await publish(a, range(2))
                assert await take(watch, 2) == [0, 1]
                tap.leaks = True
                for start in range(2, 10, 2):
                    await publish(a, range(start, start + 2))
                    assert await take(watch, 2) == [start, start + 1]
                tap.leaks = False
                await publish(a, range(10, 12))
                assert await take(watch, 2) == [10, 11]
            tasks.cancel_scope.cancel()
        assert tap.dropped > 0


async def test_a_head_is_believed_and_what_lies_below_it_is_read() -> None:
    """The history is asked for what the head shows, and as long as heads show nothing new for nothing."""
    with tempfile.TemporaryDirectory(prefix="posthouse-") as folder, FakeWorker(f"ipc://{folder}/w") as fake:
        tap = fake.context.socket(zmq.XPUB)
        tap.bind("inproc://heads")
        bot = bus.connect(fake.url, bot="b", context=fake.context, tap_url="inproc://heads")
        try:
            async with anyio.create_task_group() as tasks:

                async def watch() -> None:
                    async with bot, bot.watch("news") as watching:
                        assert await take(watching, 1) == ["at last"]
                    tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                await fake.welcome()
                wanted = await fake.receive("history")
                assert {tap.recv() for _ in range(2)} == {b"\x01channel/news\0", b"\x01head/news\0"}
                for seq in (0, 0, 5):
                    tap.send_multipart([b"head/news\0", b'{"channel":"news","seq":%d}' % seq])
                while wanted.get("after_seq") is None:  # the first look, and those of a silence
                    fake.send(op="ok", request=wanted["request"], value={"messages": [], "more": False})
                    wanted = await fake.receive("history")
                assert wanted["after_seq"] == 0
                fake.send(op="ok", request=wanted["request"], value={"messages": [MESSAGE], "more": False})
                await fake.farewell()
        finally:
            tap.close(0)


async def test_a_lost_tail_is_noticed_in_silence(worker: Worker) -> None:
    """The tap never says a word."""
    tap = LossyTap(worker)
    try:
        async with worker.connect(bot="a", tap_url=tap.url) as a, a.watch("news") as watch:
            for number in range(3):
                await publish(a, range(number * 2, number * 2 + 2))
                assert await take(watch, 2) == [number * 2, number * 2 + 1]
    finally:
        tap.close()


async def test_a_cancelled_wait_loses_nothing(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, a.watch("news") as watch:
        await publish(a, range(700))
        found: list[object] = []
        checkpoints = 0
        with anyio.fail_after(30):
            while len(found) < 700:
                checkpoints = checkpoints % 40 + 1
                async with anyio.create_task_group() as tasks:

                    async def read() -> None:
                        found.append((await anext(watch)).body)

                    tasks.start_soon(read)
                    for _ in range(checkpoints):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
        assert found == list(range(700))


async def test_a_restart_of_the_worker(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="b") as b, b.watch("news") as watch:
        await publish(a, range(2))
        assert await take(watch, 2) == [0, 1]
        await anyio.to_thread.run_sync(worker.kill)
        await anyio.to_thread.run_sync(worker.start)
        await publish(a, range(2, 4))
        assert await take(watch, 2) == [2, 3]


async def test_a_worker_that_does_not_answer_is_waited_for() -> None:
    with tempfile.TemporaryDirectory(prefix="posthouse-") as folder:
        url = f"ipc://{Path(folder) / 'w'}"
        with FakeWorker(url) as fake:
            answers: dict[str, Any] = {"messages": [], "more": False}
            bot = bus.connect(url, bot="b", timeout=0.2, context=fake.context, tap_url="inproc://nobody")
            async with anyio.create_task_group() as tasks:

                async def watch() -> None:
                    async with bot, bot.watch("news") as watching:
                        assert await take(watching, 1) == ["at last"]
                    tasks.cancel_scope.cancel()

                tasks.start_soon(watch)
                await fake.welcome()
                asked = await fake.receive("history")
                fake.send(op="ok", request=asked["request"], value=answers)
                await fake.receive("history")  # is not answered
                asked = await fake.receive("history")
                answers["messages"] = [MESSAGE]
                for _ in range(2):
                    fake.send(op="ok", request=asked["request"], value=answers)
                    asked = await fake.receive("history")
                fake.send(op="ok", request=asked["request"], value=answers)
                await fake.farewell()


MESSAGE = {
    "seq": 5,
    "id": "01900000-0000-7000-8000-00000000000a",
    "sender_bot_id": "01900000-0000-7000-8000-00000000000b",
    "sender_bot_name": "a",
    "recipient": {"type": "channel", "name": "news"},
    "message_type": "message",
    "body": "at last",
    "reply_to": None,
    "headers": {},
    "timestamp": "2026-11-22T18:00:00.000000Z",
}


async def test_a_watch_ends_with_its_bot(worker: Worker) -> None:
    async with worker.connect(bot="a") as a:
        watch = a.watch("news")
        with pytest.raises(RuntimeError, match="inside its context"):
            await anext(watch)
        async with watch:
            with pytest.raises(RuntimeError, match="entered only once"):
                async with watch:
                    pass
        outliving = await a.watch("news").__aenter__()
    try:
        with anyio.fail_after(30), pytest.raises(bus.ClosedError):
            await anext(outliving)
    finally:
        await outliving.__aexit__(None, None, None)


async def test_the_worker_names_its_tap(worker: Worker) -> None:
    async with worker.connect(bot="a", tap_url=None) as a, a.watch("news") as watch:
        assert a.tap_url == worker.tap_url
        await a.publish("news", 1)
        assert await take(watch, 1) == [1]


@pytest.mark.parametrize(
    ("told", "given", "used"),
    [
        ("tcp://127.0.0.1:9", None, "tcp://127.0.0.1:9"),
        ("tcp://0.0.0.0:9", None, "tcp://localhost:9"),
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:8", "tcp://127.0.0.1:8"),
        ("inproc://elsewhere", None, bus.DEFAULT_TAP_URL),
        ("nonsense", None, bus.DEFAULT_TAP_URL),
        (None, None, bus.DEFAULT_TAP_URL),
    ],
)
async def test_what_a_program_says_of_the_tap_counts(told: str | None, given: str | None, used: str) -> None:
    with FakeWorker("tcp://127.0.0.1:*") as fake:

        async def serve() -> None:
            await fake.welcome(**({} if told is None else {"tap": told}))
            await fake.farewell()

        url = fake.url.replace("127.0.0.1", "localhost")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve)
                async with bus.connect(url, bot="b", tap_url=given) as bot:
                    assert bot.tap_url == used


async def test_a_channel_that_is_removed_meanwhile_goes_on_when_it_is_created_again(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        await publish(a, range(3))
        async with a.watch("news", after=1) as watch:
            assert await take(watch, 2) == [1, 2]
            await operator.remove_channel("news", force=True)
            async with a.watch("news", after=2) as later:
                await publish(a, range(3, 5))
                assert await take(watch, 2) == [3, 4]
                assert await take(later, 3) == [2, 3, 4]


async def test_what_is_missing_of_a_channel_that_is_removed_is_waited_for(worker: Worker) -> None:
    async with worker.connect(bot="a") as a, worker.connect(bot="operator") as operator:
        await publish(a, range(2))
        async with a.watch("news", after=1) as watch:
            await operator.remove_channel("news", force=True)
            with anyio.move_on_after(0.05):
                await anext(watch)
            await publish(a, range(2, 3))
            assert await take(watch, 2) == [1, 2]
