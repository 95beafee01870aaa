"""Parked messages: in flight, with nobody at work on them (docs/protocol.md, "Receiving and settling")."""

from __future__ import annotations

import msgspec
import pytest

from bus.settings import Delivery, Limits, Settings
from bus.wire.frames import Ack, Extend, Goodbye, Nak, Park, Ping, ToBot

from .worker import TOKEN, Worker, delivered, published, returns, vanishes

DELIVERY = Delivery(ack_wait_seconds=10, max_deliver=2, session_timeout_seconds=1000, heartbeat_seconds=900)


@pytest.fixture
def worker() -> Worker:
    """A worker with bot `b`, whose credit is two, and a sender."""
    worker = Worker(Settings(delivery=DELIVERY))
    worker.hello("s", max_in_flight=0)
    worker.hello("b", max_in_flight=2, token=TOKEN)
    return worker


def sends(worker: Worker, count: int) -> list[int]:
    """Send messages to `b`, and return the seqs of those that are delivered."""
    said = worker.say(b"s", published(*[ToBot(bot="b")] * count)) + worker.commit()
    return [message["seq"] for message in delivered(said)]


def test_parked_messages_leave_their_credit_to_others(worker: Worker) -> None:
    assert sends(worker, 5) == [1, 2]
    said = worker.say(b"b", Park(seqs=[1, 2]))
    assert [message["seq"] for message in delivered(said)] == [3, 4]
    assert worker.in_flight(b"b") == [1, 2, 3, 4]
    session = worker.core.sessions.get(b"b")
    assert session is not None
    worker.say(b"b", Extend(seqs=[1]))
    assert (session.parked, session.free) == ({2}, -1)
    assert delivered(worker.say(b"b", Ack(seqs=[3, 2]))) == [], "what goes on has its credit again"
    assert [message["seq"] for message in delivered(worker.say(b"b", Ack(seqs=[4])))] == [5]


def test_a_parked_message_has_no_deadline_until_it_goes_on(worker: Worker) -> None:
    assert sends(worker, 2) == [1, 2]
    worker.say(b"b", Park(seqs=[1, 2]))
    assert delivered(worker.tick(900, step=9)) == []
    worker.say(b"b", Extend(seqs=[1]))
    assert delivered(worker.tick(9)) == []
    [again] = delivered(worker.tick(3))
    assert (again["seq"], again["attempt"]) == (1, 2)


def test_a_parked_message_has_not_failed_when_its_session_ends(worker: Worker) -> None:
    assert sends(worker, 1) == [1]
    for attempt in range(2, 8):
        worker.say(b"b", Park(seqs=[1]))
        vanishes(worker, b"b")
        worker.now += 2000
        [again] = delivered(worker.hello("b"))
        assert (again["seq"], again["attempt"]) == (1, attempt)
    vanishes(worker, b"b")
    worker.hello("b")
    vanishes(worker, b"b")
    worker.settle(20)
    assert [dead.seq for dead in worker.log.dead_letters.values()] == [1], "at work, it fails as ever"


def test_a_client_that_returns_keeps_its_messages_parked(worker: Worker) -> None:
    assert sends(worker, 3) == [1, 2]
    worker.say(b"b", Park(seqs=[1, 2]))
    vanishes(worker, b"b")
    [welcome, *said] = returns(worker, b"b2", "b", [3], parked=[1, 2, 9], max_in_flight=1)
    assert (welcome["op"], welcome["not_held"], delivered(said)) == ("welcome", [9], [])
    session = worker.core.sessions.get(b"b2")
    assert session is not None
    assert (session.parked, sorted(session.in_flight), session.free) == ({1, 2}, [1, 2, 3], 0)


def test_a_restart_of_the_worker_lets_a_client_keep_them_parked(worker: Worker) -> None:
    assert sends(worker, 2) == [1, 2]
    worker.say(b"b", Park(seqs=[1, 2]))
    worker.settle(1)
    worker.restart()
    said = returns(worker, b"b", "b", [], parked=[1, 2])
    assert (said[0].get("not_held"), delivered(said)) == (None, [])
    assert delivered(worker.tick(900, step=9)) == []


def test_parked_messages_are_settled_like_others(worker: Worker) -> None:
    assert sends(worker, 2) == [1, 2]
    worker.say(b"b", Park(seqs=[1, 2]))
    worker.say(b"b", Ack(seqs=[1]))
    worker.say(b"b", Nak(seqs=[2], release=True))
    [again] = delivered(worker.tick(1, step=0.5))
    assert (again["seq"], again["attempt"], worker.in_flight(b"b")) == (2, 2, [2])
    worker.say(b"b", Park(seqs=[2]))
    worker.say(b"b", Goodbye(request=9))
    [again] = delivered(worker.hello("b"))
    assert again["attempt"] == 3


def test_their_text_is_not_kept_in_memory(worker: Worker) -> None:
    assert sends(worker, 1) == [1]
    session = worker.core.sessions.get(b"b")
    assert session is not None
    assert session.in_flight_bytes > 0
    worker.say(b"b", Park(seqs=[1]))
    assert session.in_flight_bytes == 0
    mailbox = worker.core.directory.mailboxes[session.bot_id]
    assert mailbox.outstanding.identity(1) is not None, "its sender may still be replied to"
    worker.say(b"b", Extend(seqs=[1]))
    assert session.in_flight_bytes == 0
    worker.say(b"b", Ack(seqs=[1]))
    assert (session.in_flight_bytes, session.free) == (0, 2)


def test_a_session_parks_as_many_as_it_may() -> None:
    worker = Worker(Settings(delivery=DELIVERY, limits=Limits(parked_max=1)))
    worker.hello("s", max_in_flight=0)
    [welcome] = worker.hello("b", max_in_flight=2)
    assert welcome["max_parked"] == 1
    assert sends(worker, 4) == [1, 2]
    assert [message["seq"] for message in delivered(worker.say(b"b", Park(seqs=[1, 2])))] == [3]
    assert delivered(worker.tick(11))[0]["seq"] == 2, "the other one has its deadline"


def test_nothing_is_parked_twice_or_for_others(worker: Worker) -> None:
    assert sends(worker, 1) == [1]
    for _ in range(2):
        worker.say(b"b", Park(seqs=[1, 1, 7]))
    worker.say(b"s", Park(seqs=[1]))
    session = worker.core.sessions.get(b"b")
    assert session is not None
    assert (session.parked, session.free) == ({1}, 2)


def test_a_worker_that_stood_still_leaves_them_parked() -> None:
    worker = Worker(Settings(delivery=msgspec.structs.replace(DELIVERY, heartbeat_seconds=1)))
    worker.hello("s", max_in_flight=0)
    worker.hello("b")
    assert sends(worker, 1) == [1]
    worker.say(b"b", Park(seqs=[1]))
    worker.now += 500
    worker.do(worker.core.tick(worker.moment))
    worker.say(b"b", Ping())
    session = worker.core.sessions.get(b"b")
    assert session is not None
    assert session.parked == {1}
