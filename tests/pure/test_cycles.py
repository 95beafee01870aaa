"""What the core does in hours leaves no cycles of objects behind: Python collects those rarely.

The worker lets Python look for cycles only after 50,000 objects, because there are none. A few a second were some
MiB an hour of memory before they were found.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from bus.settings import RetentionSettings, Settings
from bus.wire.frames import Ack, Goodbye, Nak, Subscribe, ToBot, ToChannel

from .worker import Worker, delivered, published


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def play(worker: Worker) -> None:
    """Let two bots come, publish, give back, settle and leave, and let time pass."""
    for bot in ("a", "b"):
        worker.hello(bot)
    worker.say(b"b", Subscribe(request=1, channel="news"))
    worker.commit(flush=True)
    worker.say(b"a", published(ToBot(bot="b"), ToChannel(name="news")))
    seqs = [message["seq"] for message in delivered(worker.commit(flush=True))]
    assert len(seqs) == 2
    worker.say(b"b", Ack(seqs=seqs[:1], request=3))
    worker.say(b"b", Nak(seqs=seqs[1:], delay=0, request=4))
    again = delivered(worker.settle(1))
    worker.say(b"b", Ack(seqs=[message["seq"] for message in again]))
    for address in (b"a", b"b"):
        worker.say(address, Goodbye(request=5))
    worker.settle(2)


@pytest.mark.usefixtures("no_collector")
def test_bots_that_come_and_go_leave_no_cycles() -> None:
    worker = Worker(Settings(retention=RetentionSettings(messages_max=5, sweep_seconds=1)))
    play(worker)
    gc.collect()
    for _ in range(5):
        play(worker)
    assert gc.collect() == 0
