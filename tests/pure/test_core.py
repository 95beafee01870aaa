"""Decisions of the core that the simulation meets too seldom to show: one at a time, with a clock by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.core.effects import FindStart, Send, unsent
from bus.settings import Limits, Settings
from bus.wire.frames import (
    Ack,
    Code,
    Extend,
    Goodbye,
    Hello,
    Nak,
    Ping,
    Publication,
    Publish,
    StartAt,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
)

from .worker import ID, Worker, delivered, frames, published


def live(worker: Worker, seconds: int) -> list[dict[str, Any]]:
    """Let time pass with a bot that pings; give what it was sent beside the pongs."""
    said: list[dict[str, Any]] = []
    for _ in range(seconds):
        worker.now += 1
        worker.say(b"a", Ping())
        said += worker.do(worker.core.tick(worker.moment))
    return said


def publish(to: ToBot | ToChannel, number: int = 1, body: bytes = b"1") -> Publish:
    return Publish(request=9, messages=[Publication(id=ID % (1000 + number), recipient=to, body=msgspec.Raw(body))])


def test_a_silent_session_ends_and_one_that_speaks_stays() -> None:
    worker = Worker()
    worker.hello("a")
    worker.hello("b")
    for _ in range(20):
        worker.tick(1)
        worker.say(b"a", Ping())
    assert [session.bot_name for session in worker.core.sessions] == ["a"]
    [refusal] = worker.say(b"b", Ping())
    assert (refusal["code"], refusal["retry"]) == ("unknown_session", True)


def test_nobody_was_silent_while_the_worker_stood_still() -> None:
    worker = Worker()
    worker.hello("a")
    worker.tick(60, step=60)
    assert len(worker.core.sessions) == 1
    worker.tick(14)
    assert len(worker.core.sessions) == 1
    worker.tick(3)
    assert len(worker.core.sessions) == 0


def test_nobody_was_silent_while_the_disk_held_the_worker_up() -> None:
    worker = Worker(Settings(limits=Limits(batch_messages_max=1)))
    worker.hello("a")
    worker.say(b"a", publish(ToBot(bot="a")))
    assert worker.core.full
    worker.tick(60)
    assert len(worker.core.sessions) == 1


def test_a_full_disk_refuses_and_nothing_stays() -> None:
    worker = Worker()
    worker.hello("a")
    assert worker.say(b"a", publish(ToChannel("news"))) == []
    assert worker.say(b"a", Subscribe(request=5, channel="news", start="all")) == []
    batch = worker.next_batch()
    refused = frames(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment))
    assert [(frame["request"], frame["code"], frame["retry"]) for frame in refused] == [
        (9, "storage_full", True),
        (5, "storage_full", True),
    ]
    assert "news" not in worker.core.directory.channels
    worker.say(b"a", publish(ToChannel("news")))
    [published] = worker.commit()
    assert published["seqs"] == [1]


def test_a_registration_that_the_disk_refused_can_be_tried_again() -> None:
    worker = Worker()
    hello = Hello(request=1, protocol=1, bot="a")
    assert worker.say(b"1", hello) == []
    assert worker.say(b"2", hello) == [], "a second one waits for the first"
    batch = worker.next_batch()
    refused = frames(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment))
    assert [frame["code"] for frame in refused] == ["storage_full", "storage_full"]
    assert [frame["op"] for frame in worker.hello("a")] == ["welcome"]


def test_what_follows_a_hello_at_once_is_carried_out_in_order() -> None:
    worker = Worker()
    worker.say(b"a", Hello(request=1, protocol=1, bot="a"))
    worker.say(b"a", publish(ToBot(bot="a")))
    worker.say(b"a", Goodbye(request=3))
    said = worker.commit()
    assert [frame["op"] for frame in said] == ["welcome", "ok"]
    [published] = worker.commit()
    assert published["seqs"] == [1]


def test_one_id_cannot_be_claimed_twice_at_once() -> None:
    worker = Worker()
    worker.say(b"1", Hello(request=1, protocol=1, bot="a", bot_id=ID % 77))
    [refusal] = worker.say(b"2", Hello(request=1, protocol=1, bot="b", bot_id=ID % 77))
    assert refusal["code"] == "bot_conflict"
    [welcome] = worker.commit()
    assert welcome["bot_id"] == ID % 77


def test_sessions_are_bounded() -> None:
    worker = Worker(Settings(limits=Limits(sessions_max=1)))
    worker.hello("a")
    [refusal] = worker.say(b"b", Hello(request=1, protocol=1, bot="b"))
    assert (refusal["code"], refusal["retry"]) == ("busy", True)
    assert worker.hello("a")[0]["op"] == "welcome", "a hello in the place of a session is no further one"


@pytest.mark.parametrize("count", [1, 3])
def test_deliveries_share_a_frame_up_to_its_limit(count: int) -> None:
    worker = Worker(Settings(limits=Limits(frame_bytes_max=4096, body_bytes_max=4096)))
    worker.hello("a")
    body = b'"%s"' % (b"x" * (3000 // count))
    for number in range(count * 2):
        worker.say(b"a", publish(ToBot(bot="a"), number, body))
    said = worker.commit()
    requests = [request for request in said if request["op"] == "published"]
    assert len(requests) == count * 2
    effects = [frame for frame in said if frame["op"] == "deliver"]
    assert sum(len(frame["messages"]) for frame in effects) == count * 2
    assert all(len(msgspec.json.encode(frame)) <= 4096 for frame in effects)


@pytest.mark.parametrize(
    ("count", "frame_counts"), [(499, [499]), (500, [500]), (501, [500, 1]), (1000, [500, 500])]
)
def test_a_frame_leaves_half_of_the_largest_credit_for_another(count: int, frame_counts: list[int]) -> None:
    worker = Worker()
    worker.hello("a", max_in_flight=1000)
    worker.say(b"a", published(*[ToBot(bot="a")] * count))
    sends = [frame["messages"] for frame in worker.commit() if frame["op"] == "deliver"]
    assert [len(messages) for messages in sends] == frame_counts
    assert [message["seq"] for messages in sends for message in messages] == list(range(1, count + 1))


def test_an_unreachable_connection_loses_its_session_and_not_its_messages() -> None:
    worker = Worker()
    worker.hello("a")
    worker.core.unreachable(b"a", worker.moment)
    assert len(worker.core.sessions) == 0
    assert worker.core.unreachable(b"a", worker.moment) == []
    assert worker.say(b"a", Ack(seqs=[1]))[0]["code"] == "unknown_session"


def test_what_could_not_be_sent_has_not_failed() -> None:
    """Ten connections that are gone, one after the other: none was sent the message, so none failed at it."""
    worker = Worker()
    worker.hello("a", max_in_flight=1)
    worker.say(b"a", publish(ToBot(bot="a"), 1))
    [_, held] = worker.commit()
    for number in range(10):
        worker.say(b"gone %d" % number, Hello(request=1, protocol=1, bot="a", max_in_flight=10))
    worker.say(b"a", publish(ToBot(bot="a"), 2))
    batch = worker.next_batch()
    queue = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    lost: list[bytes] = []
    while queue:
        effect = queue.pop(0)
        if isinstance(effect, Send) and effect.address != b"a":
            lost.append(effect.address)
            queue += worker.core.unreachable(effect.address, worker.moment, unsent(effect, queue))
        else:
            worker.do([effect])
    assert len(lost) == 10
    [mailbox] = worker.core.directory.mailboxes.values()
    assert [(item.seq, item.failures) for item in mailbox.state().unsettled] == [(1, 0), (2, 0)]
    assert held["messages"][0]["seq"] == 1
    [delivery] = worker.say(b"a", Ack(seqs=[1]))
    assert delivery["messages"][0]["seq"] == 2


def test_what_was_sent_before_failed_with_its_connection() -> None:
    """Of two messages one was sent, and then the connection was gone: that one may be what killed the bot."""
    worker = Worker()
    worker.hello("a", max_in_flight=10)
    for number in (1, 2):
        worker.say(b"a", publish(ToBot(bot="a"), number))
        batch = worker.next_batch()
        queue = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    answer, delivery = queue
    assert isinstance(answer, Send)
    assert isinstance(delivery, Send)
    assert (answer.seqs, delivery.seqs) == ((), (2,))
    lost = unsent(answer, [Send(b"other", b"", (1,)), delivery])
    assert lost == {2}, "the answer could not be sent, and neither could the delivery behind it"
    worker.core.unreachable(b"a", worker.moment, lost)
    [mailbox] = worker.core.directory.mailboxes.values()
    assert [(item.seq, item.attempt, item.failures) for item in mailbox.state().unsettled] == [(1, 1, 1), (2, 1, 0)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_send_says_what_it_delivers(count: int) -> None:
    worker = Worker(Settings(limits=Limits(frame_bytes_max=4096, body_bytes_max=4096)))
    worker.hello("a")
    for number in range(6):
        worker.say(b"a", publish(ToBot(bot="a"), number, b'"%s"' % (b"x" * (3000 // count))))
    batch = worker.next_batch()
    sends = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    told: list[int] = []
    for send in sends:
        assert isinstance(send, Send)
        frame = msgspec.json.decode(send.frame)
        assert list(send.seqs) == [message["seq"] for message in frame.get("messages", [])]
        told += send.seqs
    assert told == [1, 2, 3, 4, 5, 6]


def test_a_start_by_time_belongs_to_the_session_that_asked() -> None:
    worker = Worker()
    for bot in ("asker", "victim"):
        worker.hello(bot)
    subscribe = Subscribe(request=5, channel="news", start=StartAt(time="2026-01-01T00:00:00Z"))
    [found] = worker.core.receive(b"asker", subscribe, worker.moment)
    assert isinstance(found, FindStart)
    assert worker.say(b"asker", Hello(request=6, protocol=1, bot="victim"))[0]["op"] == "welcome"
    assert worker.do(worker.core.start_found(found, 0, worker.moment)) == []
    worker.say(b"asker", Hello(request=7, protocol=1, bot="brand-new"))
    assert worker.do(worker.core.start_found(found, 0, worker.moment)) == []
    assert worker.log.subscriptions == {}


def test_extending_without_end_costs_no_memory() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", publish(ToBot(bot="a")))
    worker.commit()
    mailbox = worker.core.directory.names["a"].id
    for _ in range(100):
        worker.say(b"a", Extend(seqs=[1] * 1000))
    assert len(worker.core.directory.mailboxes[mailbox].outstanding._deadlines) == 1
    assert live(worker, 29) == []
    worker.say(b"a", Extend(seqs=[1]))
    assert live(worker, 29) == [], "it was extended"
    assert len(worker.core.directory.mailboxes[mailbox].outstanding._deadlines) == 1
    [delivered] = live(worker, 2)
    assert delivered["messages"][0]["attempt"] == 2


@pytest.mark.parametrize("said", [Nak(seqs=[1, 99], release=True), Nak(seqs=[1]), Term(seqs=[1]), Extend(seqs=[1])])
def test_what_is_not_in_flight_here_is_changed_by_nothing(said: Nak | Term | Extend) -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", publish(ToBot(bot="a")))
    worker.commit()
    worker.say(b"other", Hello(request=1, protocol=1, bot="a"))
    worker.say(b"other", said)
    assert worker.in_flight(b"a") == [1]
    worker.say(b"a", Ack(seqs=[1]))
    worker.say(b"a", said)
    [mailbox] = worker.core.directory.mailboxes.values()
    assert mailbox.fate(1, None) == "settled"
    assert live(worker, 60) == []


def test_a_release_and_a_goodbye_at_once_are_one_return() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", publish(ToBot(bot="a")))
    worker.commit()
    assert worker.say(b"a", Nak(seqs=[1], release=True)) == []
    assert [frame["op"] for frame in worker.say(b"a", Goodbye(request=5))] == ["ok"]
    worker.now += 1
    welcome, delivered = worker.hello("a")
    assert welcome["op"] == "welcome"
    assert delivered["messages"][0]["attempt"] == 2


def test_a_release_is_confirmed_when_it_is_on_disk() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", publish(ToBot(bot="a")))
    worker.commit()
    assert worker.say(b"a", Nak(seqs=[1], release=True, request=5)) == []
    assert [(frame["op"], frame["request"]) for frame in worker.commit()] == [("ok", 5)]
    [state] = worker.log.mailboxes.values()
    assert [(item.seq, item.attempt, item.failures) for item in state.unsettled] == [(1, 1, 0)]


def test_what_waits_after_a_nak_is_not_kept_in_memory() -> None:
    worker = Worker()
    worker.hello("a")
    worker.say(b"a", publish(ToBot(bot="a")))
    worker.commit()
    worker.say(b"a", Nak(seqs=[1], delay=60))
    [mailbox] = worker.core.directory.mailboxes.values()
    assert mailbox.outstanding._items[1].envelope is None
    assert live(worker, 59) == []
    [delivered] = live(worker, 2)
    assert delivered["messages"][0]["attempt"] == 2


def test_a_bot_that_only_asks_keeps_no_memory_of_its_replies() -> None:
    worker = Worker()
    worker.hello("asker", max_in_flight=0)
    worker.hello("other")
    asker = worker.core.directory.mailboxes[worker.core.directory.names["asker"].id]
    for number in range(600):
        ask = published(ToBot(bot="other"), expects_reply=True)
        worker.say(b"asker", ask)
        worker.commit()
        reply = published(ToBot(bot="asker"))
        answer = msgspec.structs.replace(reply.messages[0], reply_to=ask.messages[0].id)
        worker.say(b"other", msgspec.structs.replace(reply, messages=[answer]))
        [message] = [m for m in delivered(worker.commit()) if m["reply_to"] is not None]
        worker.say(b"asker", Ack(seqs=[message["seq"]]))
        assert len(asker.sources.ahead) <= 300, number


def test_the_nil_id_is_the_workers_own() -> None:
    worker = Worker()
    [refused] = worker.say(
        b"a", Hello(request=1, protocol=1, bot="a", bot_id="00000000-0000-0000-0000-000000000000")
    )
    assert refused["code"] == "bad_request"
