"""The tap: who listens, and what they are told, with a clock by hand."""

from __future__ import annotations

import msgspec
import pytest

from bus.core.effects import Effect, Tap
from bus.settings import Delivery, Limits, Settings
from bus.wire.frames import ToChannel
from bus.wire.topics import channel_topic, head_channel, head_topic

from .test_core import publish
from .worker import Worker

TICK = 0.0625
"""A sixteenth of a second: many of them add up exactly."""


def started(settings: Settings | None = None) -> Worker:
    """Return a worker that has ticked before, with a bot."""
    worker = Worker(settings)
    worker.hello("a")
    assert told(worker) == []
    return worker


def listen(worker: Worker, topic: bytes) -> list[Effect]:
    return worker.core.tap_topic(topic, worker.moment, wanted=True)


def leave(worker: Worker, topic: bytes) -> None:
    assert worker.core.tap_topic(topic, worker.moment, wanted=False) == []


def told(worker: Worker, seconds: float = TICK) -> list[tuple[str, int]]:
    """Let time pass, tick by tick; give the heads that were told."""
    heads: list[tuple[str, int]] = []
    for _ in range(round(seconds / TICK)):
        worker.now += TICK
        for effect in worker.core.tick(worker.moment):
            assert isinstance(effect, Tap)
            head = msgspec.json.decode(effect.frame)
            assert effect.topic == f"head/{head['channel']}\0".encode()
            assert list(head) == ["channel", "seq"]
            heads.append((head["channel"], head["seq"]))
    return heads


def speak(worker: Worker, channel: str, number: int) -> list[bytes]:
    """Publish and commit; give the topics of the copies."""
    worker.say(b"a", publish(ToChannel(channel), number))
    batch = worker.next_batch()
    effects = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    return [effect.topic for effect in effects if isinstance(effect, Tap)]


def test_a_head_is_told_soon_and_then_again_and_again() -> None:
    worker = started(Settings(delivery=Delivery(tap_head_seconds=2.0)))
    speak(worker, "news", 1)
    assert told(worker, 10) == [], "nobody asked"
    assert listen(worker, head_topic("news")) == []
    assert listen(worker, head_topic("nothing")) == []
    assert told(worker) == [("news", 1), ("nothing", 0)]
    assert told(worker) == []
    speak(worker, "news", 2)
    assert told(worker, 2 - 2 * TICK) == []
    assert told(worker) == [("news", 2), ("nothing", 0)]
    assert told(worker, 1) == []
    listen(worker, head_topic("news"))
    listen(worker, head_topic("news"))
    assert told(worker) == [("news", 2)], "somebody further began to listen, and asking twice makes no two heads"
    leave(worker, head_topic("news"))
    leave(worker, head_topic("news"))
    assert told(worker, 2) == [("news", 2), ("nothing", 0)], "one of three still listens"
    leave(worker, head_topic("news"))
    assert told(worker, 2) == [("nothing", 0)]
    leave(worker, head_topic("nothing"))
    assert told(worker, 2) == []


def test_a_head_counts_what_is_on_disk() -> None:
    worker = started()
    listen(worker, head_topic("news"))
    worker.say(b"a", publish(ToChannel("news")))
    assert told(worker) == [("news", 0)]
    worker.commit()
    assert told(worker, 2) == [("news", 1)]


def test_copies_and_heads_go_to_those_who_asked_for_them() -> None:
    worker = started()
    assert speak(worker, "news", 1) == []
    listen(worker, head_topic("news"))
    assert speak(worker, "news", 2) == [], "a head is no wish for copies"
    leave(worker, head_topic("news"))
    listen(worker, channel_topic("news"))
    assert told(worker, 10) == [], "nor the other way round"
    assert speak(worker, "news", 3) == [channel_topic("news")]
    leave(worker, channel_topic("news"))
    assert speak(worker, "news", 4) == []


def test_heads_are_bounded() -> None:
    worker = started(Settings(limits=Limits(tap_heads_max=2)))
    for channel in ("a", "b", "c", "b"):
        listen(worker, head_topic(channel))
    assert told(worker) == [("a", 0), ("b", 0)]
    leave(worker, head_topic("c"))
    leave(worker, head_topic("a"))
    listen(worker, head_topic("c"))
    assert told(worker, 2) == [("c", 0), ("b", 0), ("c", 0)], "the new one soon, and both in their turn"


@pytest.mark.parametrize(
    "topic",
    [
        b"", b"head", b"head/", b"head/\0", b"head/news", b"head/news\0\0", b"head/new s\0", b"head/\xff\0",
        b"HEAD/news\0", b"xhead/news\0", b"channel/news\0",
    ],
)  # fmt: skip
def test_what_is_no_head(topic: bytes) -> None:
    assert head_channel(topic) is None
    worker = started()
    assert listen(worker, topic) == []
    assert told(worker, 10) == []
