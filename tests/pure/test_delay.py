"""Delayed messages, one decision at a time: when they enter the log, and what their sender is told."""

from __future__ import annotations

import msgspec

from bus.settings import Limits, Settings
from bus.wire.frames import Code, Subscribe, ToBot, ToChannel

from .worker import Worker, delivered, frames, published


def test_a_delayed_message_is_acknowledged_without_a_seq_and_delivered_when_due() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), delay=5.0))
    [answer] = worker.commit()
    assert (answer["seqs"], answer["scheduled"]) == ([None], [0])
    assert delivered(worker.settle(4)) == []
    [message] = delivered(worker.settle(1))
    assert (message["seq"], message["timestamp"]) == (1, worker.moment.wall)


def test_no_delay_is_none() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), delay=0.0))
    answer = worker.commit()[0]
    assert answer["seqs"] == [1]
    assert "scheduled" not in answer


def test_a_repeat_of_what_waits_waits_and_one_of_what_came_has_its_seq() -> None:
    worker = Worker()
    worker.hello("a")
    publish = published(ToBot(bot="a"), delay=5.0)
    worker.say(b"a", publish)
    worker.commit()
    worker.say(b"a", publish)
    [again] = worker.commit()
    assert (again["seqs"], again["scheduled"], again["duplicates"]) == ([None], [0], [0])
    worker.settle(5)
    worker.say(b"a", publish)
    [later] = worker.commit()
    assert (later["seqs"], later["duplicates"]) == ([1], [0])
    assert "scheduled" not in later


def test_what_became_due_while_the_worker_was_down_is_delivered_after() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), ToBot(bot="a"), delay=5.0))
    worker.commit()
    worker.now += 3600
    worker.restart()
    worker.hello("a")
    assert [message["seq"] for message in delivered(worker.settle(1))] == [1, 2]


def test_it_goes_to_who_is_subscribed_when_it_is_due() -> None:
    worker = Worker()
    for bot in ("a", "b"):
        worker.hello(bot)
    worker.say(b"a", published(ToChannel("news"), delay=5.0))
    worker.commit()
    assert "news" in worker.core.directory.channels, "it comes into being at once"
    worker.say(b"b", Subscribe(request=2, channel="news"))
    worker.commit()
    assert [message["seq"] for message in delivered(worker.settle(5))] == [1]


def test_its_ttl_begins_when_it_is_due() -> None:
    worker = Worker()
    worker.hello("a", max_in_flight=0)
    worker.say(b"a", published(ToBot(bot="a"), delay=10.0, ttl=5.0))
    worker.commit()
    worker.settle(10)
    [message] = worker.log.messages.values()
    assert message.expires_at == "2026-01-01T00:00:15.000000Z"


def test_a_clock_that_goes_back_keeps_the_order_of_times() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), delay=5.0))
    worker.commit()
    worker.settle(5)
    worker.now -= 3600
    worker.say(b"a", published(ToBot(bot="a")))
    worker.commit()
    assert worker.log.messages[1].timestamp == worker.log.messages[2].timestamp


def test_more_than_a_batch_may_be_due_at_once() -> None:
    worker = Worker(Settings(limits=Limits(messages_per_publish_max=3)))
    worker.hello("a")
    for _ in range(4):
        worker.say(b"a", published(*[ToBot(bot="a")] * 2, delay=1.0))
    worker.commit()
    assert [message["seq"] for message in delivered(worker.settle(3))] == list(range(1, 9))


def test_a_full_disk_leaves_them_waiting() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", published(ToBot(bot="a"), delay=1.0))
    worker.commit()
    worker.tick(1)
    batch = worker.next_batch()
    assert frames(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment)) == []
    assert [message["seq"] for message in delivered(worker.settle(1))] == [1]


def test_those_that_wait_are_bounded() -> None:
    worker = Worker(Settings(limits=Limits(scheduled_messages_max=2)))
    worker.hello("a")
    publish = published(*[ToBot(bot="a")] * 3, delay=5.0)
    worker.say(b"a", publish)
    [answer] = worker.commit()
    assert (answer["scheduled"], [error["code"] for error in answer["errors"]]) == ([0, 1], ["busy"])
    worker.say(b"a", publish)
    [again] = worker.commit()
    assert (again["duplicates"], again["errors"][0]["index"]) == ([0, 1], 2), "what is stored is known all the same"
    worker.settle(5)
    worker.say(b"a", msgspec.structs.replace(publish, messages=publish.messages[2:]))
    [room] = worker.commit()
    assert room["scheduled"] == [0]
