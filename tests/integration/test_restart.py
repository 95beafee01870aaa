"""A worker process that is killed under load: what it acknowledged is there when it is back.

Each sender writes down what it was told; each receiver what it was handed. The comparison is made afterwards, from
these notes and from the log.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import bus

from .wire_worker import Worker

pytestmark = pytest.mark.anyio

SENDERS = [f"sender-{number}" for number in range(3)]
RECEIVERS = ["writer", "editor"]
KILLS = 3
SENT_BETWEEN_KILLS = 400


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path) as running:
        yield running


class Notes:
    """What the clients saw."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self.received: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.sent = 0
        self.progress = anyio.Event()

    def note(self) -> None:
        self.sent += 1
        self.progress.set()
        self.progress = anyio.Event()

    async def reach(self, sent: int) -> None:
        while self.sent < sent:
            await self.progress.wait()


async def send(url: str, name: str, notes: Notes, stop: anyio.Event) -> None:
    """Send in turn to each receiver and on the channel, one after the other, until told to stop."""
    targets = ["writer", "editor", None]
    async with bus.connect(url, bot=name) as bot:
        number = 0
        while not stop.is_set():
            number += 1
            to = targets[number % 3]
            body = {"from": name, "number": number}
            receipt = await (bot.send(to, body) if to else bot.publish("news", body))
            notes.acknowledged[to or "news"].append((name, number, receipt.seq))
            notes.note()


async def receive(url: str, name: str, notes: Notes) -> None:
    async with bus.connect(url, bot=name, max_in_flight=20) as bot:
        async for message in bot.messages():
            async with message:
                notes.received[name].append((message.body["from"], message.body["number"]))
                notes.note()


async def test_kill_under_load_loses_nothing(process: Worker) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    notes = Notes()
    stop = anyio.Event()
    with anyio.fail_after(100):
        for name in RECEIVERS:
            async with bus.connect(process.command, bot=name) as bot:
                await bot.subscribe("news")
        async with anyio.create_task_group() as receivers:
            for name in RECEIVERS:
                receivers.start_soon(receive, process.command, name, notes)
            async with anyio.create_task_group() as senders:
                for name in SENDERS:
                    senders.start_soon(send, process.command, name, notes, stop)
                for _ in range(KILLS):
                    await notes.reach(notes.sent + chance.randint(1, SENT_BETWEEN_KILLS))
                    await anyio.to_thread.run_sync(process.kill)
                    await anyio.to_thread.run_sync(process.start)
                await notes.reach(notes.sent + SENT_BETWEEN_KILLS)
                stop.set()
            news = len(notes.acknowledged["news"])
            for name in RECEIVERS:
                while len(notes.received[name]) < news + len(notes.acknowledged[name]):
                    await notes.progress.wait()
            async with bus.connect(process.command, bot="auditor") as auditor:
                await check(auditor, notes)
            receivers.cancel_scope.cancel()


async def check(auditor: bus.Bot, notes: Notes) -> None:
    for name in RECEIVERS:
        owed = notes.acknowledged[name] + notes.acknowledged["news"]
        expected = [(sender, number) for sender, number, _ in sorted(owed, key=lambda entry: entry[2])]
        received = notes.received[name]
        assert len(received) == len(set(received)), f"{name} was handed a message twice"
        assert sorted(received) == sorted(expected), f"{name} misses messages, or has some that nobody sent"
        for sender in SENDERS:
            numbers = [number for origin, number in received if origin == sender]
            assert numbers == sorted(numbers), f"{name} has messages of {sender} out of order"
        assert [row["channel_name"] for row in await auditor.subscriptions(bot=name)] == ["news"]
    stored = {row["name"]: row["messages"] for row in await auditor.channels()}
    assert stored == {"news": len(notes.acknowledged["news"])}
    for entries in notes.acknowledged.values():
        sender, number, seq = entries[-1]
        history = await auditor.history(
            **(
                {"channel": "news"}
                if entries is notes.acknowledged["news"]
                else {"between": (sender, _to(notes, entries))}
            ),
            before_seq=seq + 1,
            limit=1,
        )
        assert [(entry.seq, entry.body) for entry in history] == [(seq, {"from": sender, "number": number})]


def _to(notes: Notes, entries: list[tuple[str, int, int]]) -> str:
    return next(name for name, known in notes.acknowledged.items() if known is entries)
