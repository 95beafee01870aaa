"""Subscribing to much at the tap, which needs no session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from bus.core.effects import Effect, EmptyTap
from bus.settings import Limits, Settings
from bus.wire.topics import channel_topic, head_topic

from ..integration.wire_worker import Worker
from ..pure.worker import Worker as PureWorker
from .conftest import Serve
from .neighbour import is_served, mebibytes

TOPICS = 60_000


@pytest.fixture
def small(serve: Serve) -> Worker:
    return serve("[limits]\ntap_topics_bytes_max = 200_000\n")


@pytest.fixture
def flood(small: Worker) -> Iterator[zmq.Socket[bytes]]:
    """A listener that may ask for as much as it likes."""
    socket = small.socket(zmq.SUB)
    socket.sndhwm = 0
    socket.connect(small.tap)
    yield socket
    socket.close()


def test_topics_at_the_tap_cost_little_memory_and_the_tap_comes_back(
    small: Worker, flood: zmq.Socket[bytes]
) -> None:
    reader, sender = small.tap_reader("news"), small.session("sender")
    reader.wait_until_connected(sender, "news")
    before = mebibytes(small)
    for number in range(TOPICS):
        flood.subscribe(b"channel/%b%d\0" % (b"x" * 100, number))
    while "tap_closed" not in small.log_tail():
        assert is_served(small)
    for _ in range(10):
        assert is_served(small)
    assert mebibytes(small) - before < 60
    flood.close()
    reader.wait_until_connected(sender, "news")


def listen(worker: PureWorker, topic: bytes, *, wanted: bool = True) -> list[Effect]:
    return worker.core.tap_topic(topic, worker.moment, wanted=wanted)


def test_the_tap_is_emptied_when_all_its_topics_together_are_too_large() -> None:
    worker = PureWorker(Settings(limits=Limits(tap_topics_bytes_max=58)))
    topic = channel_topic("news")
    for _ in range(4):
        assert listen(worker, topic) == []
    listen(worker, topic, wanted=False)
    assert listen(worker, head_topic("n")) == []
    assert listen(worker, topic) == [EmptyTap("its listeners subscribed to too much")], (
        "with what left, it would fit no more"
    )
    for _ in range(4):
        assert listen(worker, topic) == [], "nothing is left of those before"
