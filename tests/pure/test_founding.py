"""New channels: a message that is refused creates none, whatever refuses it."""

from __future__ import annotations

from typing import Any

import pytest

from bus.settings import Limits, Settings
from bus.wire.frames import Commit, Publication, Publish, Subscribe, ToBot, ToChannel, WillFrame
from bus.wire.removing_frames import ChannelOf

from .ruled import RuledWorker
from .test_matching import came, remove, subscriptions
from .worker import ID, Worker, delivered, published

RULES = """
[security.roles.careful]
deny = [{ action = "publish", object = "**", when = "tainted" }]

[security.roles.outside]
external = true
send = ["**"]
publish = ["**"]
"""

NEWS, OTHER = ToChannel("news"), ToChannel("other")


def house(settings: Settings | None = None) -> Worker:
    worker = Worker(settings)
    for bot in ("ann", "bob"):
        worker.hello(bot)
    return worker


def careful() -> RuledWorker:
    """A house in which nothing tainted may be published by ann."""
    worker = RuledWorker(RULES, {"ann": ("careful", "member"), "bob": ("member",), "eve": ("outside",)})
    for bot in ("ann", "bob", "eve"):
        worker.hello(bot)
    return worker


def channels(worker: Worker) -> set[str]:
    """Return the channels, which are the same on disk and in memory."""
    assert worker.log.channels.keys() == worker.core.directory.channels.keys()
    return set(worker.log.channels)


def question(worker: Worker, by: str, **fields: Any) -> str:
    """Let a bot send ann a message, and return its id."""
    worker.say(by.encode(), published(ToBot(bot="ann"), **fields))
    [message] = delivered(worker.commit())
    id: str = message["id"]
    return id


def codes(said: list[dict[str, Any]]) -> list[str]:
    [answer] = [frame for frame in said if frame["op"] in ("published", "error")]
    return [answer["code"]] if answer["op"] == "error" else [each["code"] for each in answer.get("errors", ())]


def publish(worker: Worker, *recipients: ToBot | ToChannel, **fields: Any) -> list[str]:
    worker.say(b"ann", published(*recipients, **fields))
    return codes(worker.commit())


def test_an_answer_without_hops_creates_no_channel() -> None:
    worker = house()
    spent = question(worker, "bob", hops=0)
    assert publish(worker, NEWS, reply_to=spent) == ["budget_spent"]
    assert channels(worker) == set()
    assert publish(worker, NEWS) == []
    assert channels(worker) == {"news"}


def test_a_tainted_answer_that_is_refused_creates_no_channel() -> None:
    worker = careful()
    outside, inside = question(worker, "eve"), question(worker, "bob")
    assert publish(worker, NEWS, reply_to=outside) == ["forbidden"]
    assert channels(worker) == set()
    assert publish(worker, NEWS, reply_to=inside) == []
    assert channels(worker) == {"news"}


def test_of_one_frame_only_the_channels_of_accepted_messages_are_created() -> None:
    worker = house()
    spent = question(worker, "bob", hops=0)
    messages = [
        *published(NEWS, reply_to=spent).messages,
        *published(OTHER, ToBot(bot="bob")).messages,
    ]
    worker.say(b"ann", Publish(request=9, messages=messages))
    said = worker.commit()
    assert codes(said) == ["budget_spent"]
    assert [frame["seqs"] for frame in said if frame["op"] == "published"] == [[None, 2, 3]]
    assert len(delivered(said)) == 1
    assert channels(worker) == {"other"}


def test_who_else_publishes_there_in_the_same_batch_creates_it() -> None:
    for first, second in ((b"ann", b"bob"), (b"bob", b"ann")):
        worker = house()
        spent = question(worker, "bob", hops=0)
        frames = {b"ann": published(NEWS, reply_to=spent), b"bob": published(NEWS)}
        for by in (first, second):
            worker.say(by, frames[by])
        worker.commit()
        assert channels(worker) == {"news"}
        created = worker.log.channels["news"].created_by_bot_id
        assert created == worker.core.directory.names["bob"].id


def test_a_repeat_creates_no_channel_again() -> None:
    worker = house()
    worker.hello("eve")
    again = published(NEWS)
    worker.say(b"ann", again)
    worker.commit()
    assert remove(worker, ChannelOf(channel="news"), force=True)["done"]
    assert channels(worker) == set()
    worker.say(b"ann", again)
    [answer] = [frame for frame in worker.commit() if frame["op"] == "published"]
    assert answer["duplicates"] == [0]
    assert channels(worker) == set()


def test_a_delayed_message_creates_its_channel_at_once() -> None:
    worker = house()
    assert publish(worker, NEWS, delay=60.0) == []
    assert channels(worker) == {"news"}


def test_a_pattern_gets_no_channel_that_was_not_created() -> None:
    worker = house()
    worker.say(b"bob", Subscribe(request=2, channel="ne*", group="team"))
    worker.commit()
    spent = question(worker, "bob", hops=0)
    publish(worker, NEWS, reply_to=spent)
    assert subscriptions(worker, "bob") == {}
    assert worker.log.groups == {}
    worker.say(b"ann", published(NEWS))
    assert came(worker.commit()) == [("news", 2)]
    assert subscriptions(worker, "bob") == {"news": "ne*"}
    worker.restart()
    assert subscriptions(worker, "bob") == {"news": "ne*"}


def test_what_is_not_created_counts_to_no_limit() -> None:
    worker = house(Settings(limits=Limits(channels_max=2)))
    spent = question(worker, "bob", hops=0)
    for _ in range(3):
        assert publish(worker, NEWS, OTHER, reply_to=spent) == ["budget_spent"] * 2
    assert publish(worker, NEWS, OTHER) == []
    assert publish(worker, ToChannel("third")) == ["busy"]
    assert channels(worker) == {"news", "other"}


def test_whoever_creates_what_another_bot_was_refused_has_created_it() -> None:
    worker = house(Settings(limits=Limits(channels_per_bot_max=1)))
    worker.hello("eve")
    spent = question(worker, "bob", hops=0)
    worker.say(b"ann", published(NEWS, reply_to=spent))
    worker.say(b"bob", published(NEWS))
    worker.commit()
    assert worker.log.channels["news"].created_by_bot_id == worker.core.directory.names["bob"].id
    worker.say(b"bob", published(OTHER))
    assert codes(worker.commit()) == ["busy"]
    assert publish(worker, OTHER) == []
    assert remove(worker, ChannelOf(channel="news"), force=True)["done"]
    worker.say(b"bob", published(ToChannel("third")))
    assert codes(worker.commit()) == []


def test_what_cannot_be_stored_counts_to_no_limit() -> None:
    worker = house(Settings(limits=Limits(channels_max=1)))
    worker.say(b"ann", published(NEWS))
    said = worker.refuse()
    assert codes(said) == ["storage_full"]
    assert publish(worker, OTHER) == []
    assert channels(worker) == {"other"}


def test_a_full_batch_counts_the_messages_that_name_new_channels() -> None:
    worker = house(Settings(limits=Limits(batch_messages_max=2)))
    worker.say(b"ann", published(NEWS))
    assert not worker.core.full
    worker.say(b"ann", published(OTHER))
    assert worker.core.full


@pytest.mark.parametrize("reason", ["budget", "taint", "not in flight", "forbidden"])
def test_a_refused_commit_creates_no_channel(reason: str) -> None:
    worker = careful()
    parent = question(worker, "eve" if reason == "taint" else "bob", hops=0 if reason == "budget" else None)
    by = b"ann"
    fields: dict[str, Any] = {"reply_to": parent}
    acks = [99] if reason == "not in flight" else []
    if reason == "forbidden":
        worker.rules(RULES + '[[security.roles.member.deny]]\naction = "publish"\nobject = "news"\n')
    worker.say(by, Commit(request=9, id=ID % 1, messages=published(NEWS, **fields).messages, acks=acks))
    assert len(codes(worker.commit())) == 1
    assert channels(worker) == set()


def test_a_last_will_that_may_not_be_sent_creates_no_channel() -> None:
    worker = house()
    spent = question(worker, "bob", hops=0)
    [will] = published(NEWS, reply_to=spent).messages
    assert isinstance(will, Publication)
    worker.say(b"ann", WillFrame(request=9, message=will))
    worker.commit()
    assert channels(worker) == set()
    worker.do(worker.core.unreachable(b"ann", worker.moment))
    worker.settle(120)
    assert worker.log.keyed.wills() == []
    assert channels(worker) == set()
