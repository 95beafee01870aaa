"""A worker process, and clients that know nothing but docs/protocol.md.

Nothing of `bus` is imported here: what these tests send and expect is what the page says, frame by frame.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .wire import (
    REPOSITORY,
    TIMEOUT_SECONDS,
    Frame,
    Message,
    Session,
    Worker,
    check_echo_program,
    code_block,
    new_id,
    to_bot,
    to_channel,
)

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MESSAGE_FIELDS = {
    "seq", "id", "sender_bot_id", "sender_bot_name", "recipient", "message_type", "body", "reply_to",
    "headers", "timestamp",
}  # fmt: skip
MAX_FRAME_BYTES = 1024 * 1024
MAX_BODY_BYTES = 256 * 1024

_names = itertools.count(1)


@pytest.fixture(scope="module")
def shared_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tmp_path_factory.mktemp("shared")) as worker:
        yield worker


@pytest.fixture
def shared(shared_process: Worker) -> Iterator[Worker]:
    """A worker that many tests use, each with names of its own."""
    yield shared_process
    shared_process.close_clients()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker of this test alone, for what concerns all that is in it."""
    with Worker(tmp_path) as worker:
        yield worker


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"t{next(_names)}"


def bodies(messages: list[Message]) -> list[Any]:
    return [message["body"] for message in messages]


def seqs_of(messages: list[Message]) -> list[int]:
    return [message["seq"] for message in messages]


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────


def test_welcome_states_the_terms(worker: Worker) -> None:
    session = worker.session()
    session.send(op="hello", request=7, protocol=1, bot="researcher", max_in_flight=50, client="wire-test/0.1")
    welcome = session.receive()
    assert ID.fullmatch(welcome.pop("session"))
    assert ID.fullmatch(welcome.pop("epoch"))
    assert ID.fullmatch(welcome.pop("bot_id"))
    assert welcome.pop("worker").startswith("posthouse/")
    assert welcome == {
        "op": "welcome",
        "request": 7,
        "protocol": 1,
        "bot": "researcher",
        "max_in_flight": 50,
        "max_publish_in_flight": 4096,
        "heartbeat": 5.0,
        "session_timeout": 15.0,
        "ack_wait": 30.0,
        "max_deliver": 5,
        "max_frame_bytes": MAX_FRAME_BYTES,
        "max_body_bytes": MAX_BODY_BYTES,
        "last_seq": 0,
    }


def test_credit_is_chosen_by_the_worker_where_none_is_named(shared: Worker, name: str) -> None:
    session = shared.session()
    welcome = session.ask("hello", answer="welcome", protocol=1, bot=name)
    assert welcome["max_in_flight"] == 100


def test_a_bot_keeps_its_id(shared: Worker, name: str) -> None:
    session = shared.session()
    first = session.hello(name)
    session.goodbye()
    again = shared.session().hello(name)
    other = shared.session().hello(f"{name}-other")
    assert again["bot_id"] == first["bot_id"]
    assert again["session"] != first["session"]
    assert again["epoch"] == first["epoch"] == other["epoch"]
    assert other["bot_id"] != first["bot_id"]


def test_a_new_bot_may_bring_its_id(shared: Worker, name: str) -> None:
    bot_id = new_id()
    assert shared.session().hello(name, bot_id=bot_id)["bot_id"] == bot_id
    assert shared.session().hello(name, bot_id=bot_id)["bot_id"] == bot_id
    assert shared.session().hello(name)["bot_id"] == bot_id


def test_a_name_or_an_id_that_is_taken_is_a_bot_conflict(shared: Worker, name: str) -> None:
    bot_id = shared.session().hello(name)["bot_id"]
    hello = {"protocol": 1, "max_in_flight": 0}
    session = shared.session()
    assert session.code("hello", bot=name, bot_id=new_id(), **hello) == "bot_conflict"
    assert session.code("hello", bot=f"{name}-thief", bot_id=bot_id, **hello) == "bot_conflict"
    assert session.code("status") == "unknown_session"
    assert f"{name}-thief" not in [bot["name"] for bot in shared.session(name).value("bots")["bots"]]


def test_another_protocol_is_refused_and_ours_is_named(shared: Worker, name: str) -> None:
    session = shared.session()
    error = session.ask("hello", answer="welcome", protocol=2, bot=name, max_in_flight=0)
    assert error["op"] == "error"
    assert error["code"] == "unsupported_protocol"
    assert "1" in error["message"]
    assert session.hello(name)["protocol"] == 1


def test_a_refused_hello_leaves_the_session_that_is_there(shared: Worker, name: str) -> None:
    session = shared.session(name)
    assert session.code("hello", protocol=2, bot=name) == "unsupported_protocol"
    assert session.code("hello", protocol=1, bot=name, bot_id=new_id()) == "bot_conflict"
    assert session.ping()["op"] == "pong"


@pytest.mark.parametrize(
    "frame",
    [
        {"op": "ping"},
        {"op": "publish", "request": 5, "messages": [to_channel("early", 1)]},
        {"op": "subscribe", "request": 5, "channel": "early"},
        {"op": "unsubscribe", "request": 5, "channel": "early"},
        {"op": "history", "request": 5, "channel": "early"},
        {"op": "ack", "request": 5, "seqs": [1]},
        {"op": "credit", "max_in_flight": 5},
        {"op": "status", "request": 5},
        {"op": "goodbye", "request": 5},
    ],
    ids=lambda frame: str(frame["op"]),
)
def test_before_hello_there_is_no_session(shared: Worker, name: str, frame: Frame) -> None:
    session = shared.session()
    session.send(**frame)
    error = session.receive()
    assert error["op"] == "error"
    assert error["code"] == "unknown_session"
    assert error.get("request") == frame.get("request")
    session.hello(name)
    assert "early" not in [channel["name"] for channel in session.value("channels")["channels"]]


def test_goodbye_ends_the_session(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.goodbye()
    assert session.code("status") == "unknown_session"
    session.send(op="ping")
    assert session.receive()["code"] == "unknown_session"
    session.hello(name)
    assert session.ping()["op"] == "pong"


def test_requests_may_follow_hello_at_once(shared: Worker, name: str) -> None:
    session = shared.session()
    session.send(op="hello", request=1, protocol=1, bot=name, max_in_flight=10)
    session.send(op="subscribe", request=2, channel=name, echo=True)
    session.send(op="publish", request=3, messages=[to_channel(name, "first"), to_bot(name, "second")])
    session.send(op="publish", request=4, messages=[to_channel(name, "third")])
    welcome = session.receive()
    assert (welcome["op"], welcome["request"]) == ("welcome", 1)
    assert session.receive_until("ok", 2)["value"]["created"] is True
    first = session.receive_until("published", 3)["seqs"]
    second = session.receive_until("published", 4)["seqs"]
    assert [*first, *second] == sorted([*first, *second])
    assert bodies(session.take(3)) == ["first", "second", "third"]


def test_ping_tells_the_end_of_the_log(shared: Worker, name: str) -> None:
    session = shared.session(name)
    [seq] = session.publish(to_channel(name, None))
    session.send(op="ping")
    assert session.receive() == {"op": "pong", "last_seq": seq}
    assert session.hello(name)["last_seq"] == seq


def test_two_sessions_of_a_bot_share_its_mailbox(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    sessions = [shared.session(name, max_in_flight=3) for _ in range(2)]
    published = sender.publish(*(to_bot(name, number) for number in range(6)))
    taken = [session.take(3) for session in sessions]
    assert sorted(seqs_of(taken[0] + taken[1])) == published
    assert [seqs_of(each) for each in taken] == [sorted(seqs_of(each)) for each in taken]


def test_a_second_hello_replaces_the_session(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(to_bot(name, "mine"))
    first = session.take_one()
    session.hello(name)
    again = session.take_one()
    assert (again["seq"], first["attempt"], again["attempt"]) == (first["seq"], 1, 2)


# ── Publishing and receiving ─────────────────────────────────────────────────────────────────────────────


def test_a_direct_message_arrives_with_every_field(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receiver = shared.session(name)
    plain = to_bot(name, {"text": "grüße"})
    question = new_id()
    full: Message = {
        "id": new_id(),
        "recipient": {"type": "direct", "bot_id": receiver.bot_id},
        "message_type": "answer",
        "body": [1, None, True],
        "reply_to": question,
        "headers": {"traceparent": "00-ab-cd-01", "lang": "日本語"},
    }
    answer = sender.try_publish(plain, full)
    assert set(answer) == {"op", "request", "seqs"}
    first_seq, second_seq = answer["seqs"]
    assert second_seq == first_seq + 1
    first, second = receiver.take(2)
    for delivery in (first, second):
        assert TIME.fullmatch(delivery["timestamp"])
    assert first["timestamp"] <= second["timestamp"]
    assert first == {
        "seq": first_seq,
        "id": plain["id"],
        "sender_bot_id": sender.bot_id,
        "sender_bot_name": f"{name}-sender",
        "recipient": {"type": "direct", "bot_id": receiver.bot_id},
        "message_type": "message",
        "body": {"text": "grüße"},
        "reply_to": None,
        "headers": {},
        "timestamp": first["timestamp"],
        "attempt": 1,
    }
    assert second == {
        "seq": second_seq,
        "id": full["id"],
        "sender_bot_id": sender.bot_id,
        "sender_bot_name": f"{name}-sender",
        "recipient": {"type": "direct", "bot_id": receiver.bot_id},
        "message_type": "answer",
        "body": [1, None, True],
        "reply_to": question,
        "headers": {"traceparent": "00-ab-cd-01", "lang": "日本語"},
        "timestamp": second["timestamp"],
        "attempt": 1,
    }


def test_a_channel_message_reaches_every_subscriber_but_its_sender(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receivers = [shared.session(f"{name}-{number}") for number in range(3)]
    for session in (sender, *receivers):
        session.subscribe(name)
    stranger = shared.session(f"{name}-stranger")
    message = to_channel(name, "to all", message_type="event")
    [seq] = sender.publish(message)
    for receiver in receivers:
        delivery = receiver.take_one()
        assert set(delivery) == MESSAGE_FIELDS | {"attempt"}
        assert delivery["seq"] == seq
        assert delivery["id"] == message["id"]
        assert delivery["sender_bot_id"] == sender.bot_id
        assert delivery["recipient"] == {"type": "channel", "name": name}
        assert delivery["message_type"] == "event"
        assert delivery["body"] == "to all"
    assert sender.waiting_deliveries() == []
    assert stranger.waiting_deliveries() == []


def test_echo_brings_ones_own_channel_messages(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.subscribe(name, echo=True)
    session.publish(to_channel(name, "hello, me"))
    assert session.take_one()["body"] == "hello, me"


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b'{"a" : 1.0e1,  "b":"\\u00e9", "a":2}',
        b"12345678901234567890.12345678901234567890",
        b"1.7976931348623157e308",
        b"-0.0",
        b"9" * 300,
        b'"\\u0000 \\ud83d\\ude00"',
        '"😀 é"'.encode(),
        b"[" * 100 + b"]" * 100,
        b'{"a":[' * 50 + b"]}" * 50,
        b'["' + b"[" * 500 + b'"]',
        b'"' + b"x" * (MAX_BODY_BYTES - 2) + b'"',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_is_delivered_as_the_bytes_that_were_sent(shared: Worker, name: str, body: bytes) -> None:
    session = shared.session(name)
    session.subscribe(name, echo=True)
    session.send_raw(publish_frame(name, body))
    answer = session.receive_until("published", 77)
    assert answer["op"] == "published"
    assert "errors" not in answer
    session.take_one()
    assert b'"body":' + body + b"," in session.raw
    session.history(channel=name)
    assert b'"body":' + body + b"," in session.raw


def test_an_id_may_be_a_uuid_of_any_version(shared: Worker, name: str) -> None:
    session = shared.session(name)
    ids = [
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "9b2d8a52-6c4f-4b7b-8d8e-2f6f0f6f3a11",
    ]
    session.publish(*({**to_channel(name, None), "id": each} for each in ids))
    assert [message["id"] for message in session.history(channel=name)] == ids[::-1]


def test_the_same_id_again_is_a_duplicate(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receiver = shared.session(name)
    message, other = to_bot(name, "once"), to_bot(name, "other")
    [seq] = sender.publish(message)
    again = sender.try_publish(message)
    assert (again["seqs"], again["duplicates"]) == ([seq], [0])
    mixed = sender.try_publish(other, message, other, {**message, "body": "changed"})
    new = mixed["seqs"][0]
    assert new > seq
    assert (mixed["seqs"], mixed["duplicates"]) == ([new, seq, new, seq], [1, 2, 3])
    assert "errors" not in mixed
    assert bodies(receiver.take(2)) == ["once", "other"]
    assert receiver.waiting_deliveries() == []
    assert bodies(sender.history(between=[name, f"{name}-sender"])) == ["other", "once"]


def test_the_id_of_another_bots_message_is_an_id_conflict(shared: Worker, name: str) -> None:
    message = to_channel(name, "mine")
    shared.session(f"{name}-first").publish(message)
    thief = shared.session(name)
    answer = thief.try_publish(to_channel(name, "before"), message, to_channel(name, "after"))
    assert answer["seqs"][1] is None
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [(1, "id_conflict")]
    assert "duplicates" not in answer
    assert bodies(thief.history(channel=name)) == ["after", "before", "mine"]


def test_a_thousand_messages_are_one_frame(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receiver = shared.session(name, max_in_flight=1000)
    seqs = sender.publish(*(to_bot(name, number) for number in range(1000)))
    assert seqs == list(range(seqs[0], seqs[0] + 1000))
    taken = receiver.take(1000)
    assert seqs_of(taken) == seqs
    assert bodies(taken) == list(range(1000))


# ── Subscribing ──────────────────────────────────────────────────────────────────────────────────────────


def test_subscribing_and_leaving(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receiver = shared.session(name)
    sender.publish(to_channel(name, "too early"))
    end = receiver.ping()["last_seq"]
    assert receiver.ask("subscribe", channel=name) == {
        "op": "ok",
        "request": 2,
        "value": {"channel": name, "start_seq": end, "created": True},
    }
    sender.publish(to_channel(name, "in time"))
    assert receiver.subscribe(name, start="all", echo=True) == {
        "channel": name,
        "start_seq": end,
        "created": False,
    }
    assert receiver.take_one()["body"] == "in time"
    assert receiver.value("unsubscribe", channel=name) == {"removed": True}
    assert receiver.value("unsubscribe", channel=name) == {"removed": False}
    sender.publish(to_channel(name, "too late"))
    assert receiver.waiting_deliveries() == []


def test_a_subscription_starts_where_it_is_told(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    seqs = [sender.publish(to_channel(name, number))[0] for number in range(5)]
    history = sender.history(channel=name)[::-1]
    since = history[3]["timestamp"]
    at_or_after = [message["body"] for message in history if message["timestamp"] >= since]
    starts: list[tuple[Any, list[int]]] = [
        ("new", []),
        ("all", [0, 1, 2, 3, 4]),
        ({"seq": seqs[2]}, [2, 3, 4]),
        ({"seq": 0}, [0, 1, 2, 3, 4]),
        ({"time": since}, at_or_after),
        ({"time": "2001-01-01T02:00:00+02:00"}, [0, 1, 2, 3, 4]),
    ]
    receivers = []
    for number, (start, expected) in enumerate(starts):
        receiver = shared.session(f"{name}-{number}")
        answer = receiver.subscribe(name, start=start)
        assert answer["created"] is True
        if expected:
            assert answer["start_seq"] < seqs[expected[0]]
        receivers.append((receiver, expected))
    sender.publish(to_channel(name, "new"))
    for receiver, expected in receivers:
        assert bodies(receiver.take(len(expected) + 1)) == [*expected, "new"]
        assert receiver.waiting_deliveries() == []


# ── Credit, settling, coming again ───────────────────────────────────────────────────────────────────────


def test_credit_is_never_exceeded(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receiver = shared.session(name, max_in_flight=2)
    seqs = sender.publish(*(to_bot(name, number) for number in range(6)))
    in_flight = receiver.take(2)
    received = seqs_of(in_flight)
    while in_flight:
        assert receiver.waiting_deliveries() == [], "more was in flight than the credit allows"
        receiver.settle("ack", in_flight.pop(0)["seq"])
        if len(received) < len(seqs):
            in_flight.append(receiver.take_one())
            received.append(in_flight[-1]["seq"])
    assert received == seqs


def test_no_credit_only_sends_and_credit_may_change(shared: Worker, name: str) -> None:
    session = shared.session(name, max_in_flight=0)
    session.publish(*(to_bot(name, number) for number in range(5)))
    assert session.waiting_deliveries() == []
    session.send(op="credit", max_in_flight=2)
    first = session.take(2)
    assert session.waiting_deliveries() == []
    session.value("credit", max_in_flight=0)
    session.settle("ack", *seqs_of(first))
    assert session.waiting_deliveries() == []
    session.send(op="credit", max_in_flight=10)
    assert bodies(first + session.take(3)) == [0, 1, 2, 3, 4]


def test_settling_is_answered_only_where_it_is_a_request(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(*(to_bot(name, number) for number in range(3)))
    first, second, third = seqs_of(session.take(3))
    session.send(op="ack", seqs=[first])
    session.send(op="extend", seqs=[second, third])
    session.send(op="ack", request=900, seqs=[second])
    answer = session.receive()
    assert (answer["op"], answer["request"]) == ("ok", 900)
    # What is not in flight here is passed over: settled before, never seen, another session's.
    session.settle("ack", first, 2**40)
    session.settle("nak", second)
    session.settle("term", 2**40)
    other = shared.session(name)
    other.settle("ack", third)
    other.settle("term", third)
    session.goodbye()
    assert [(each["seq"], each["attempt"]) for each in other.take(1)] == [(third, 2)]
    assert other.value("dead_letters", bot=name)["dead_letters"] == []


def test_an_absent_bot_finds_everything_in_order(shared: Worker, name: str) -> None:
    away = shared.session(name)
    away.subscribe(name)
    away.goodbye()
    senders = [shared.session(f"{name}-{number}") for number in range(2)]
    seqs: list[int] = []
    for number in range(30):
        sender = senders[number % 2]
        seqs += sender.publish(*(to_bot(name, number), to_channel(name, number)) * (1 + number % 3))
    back = shared.session(name, max_in_flight=7)
    taken: list[Message] = []
    while len(taken) < len(set(seqs)):
        [delivery] = back.take(1)
        taken.append(delivery)
        back.send(op="ack", seqs=[delivery["seq"]])
    assert seqs_of(taken) == sorted(set(seqs))
    assert {delivery["attempt"] for delivery in taken} == {1}
    assert back.waiting_deliveries() == []


def test_what_was_in_flight_at_goodbye_comes_again(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(to_bot(name, "done"), to_bot(name, "open"))
    done, left = session.take(2)
    session.settle("ack", done["seq"])
    session.goodbye()
    session.hello(name)
    again = session.take_one()
    assert again == {**left, "attempt": 2}
    session.settle("ack", again["seq"])
    session.goodbye()
    session.hello(name)
    assert session.waiting_deliveries() == []


def test_a_nak_brings_the_message_again(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(to_bot(name, "hard"))
    first = session.take_one()
    nak_at = time.monotonic()
    session.settle("nak", first["seq"])
    second = session.take_one()
    assert time.monotonic() - nak_at > 0.9, "without a delay the first failure waits for a second"
    session.send(op="nak", seqs=[second["seq"]], delay=0)
    third = session.take_one()
    assert second == {**first, "attempt": 2}
    assert third == {**first, "attempt": 3}
    session.settle("ack", third["seq"])


def test_what_fails_too_often_is_a_dead_letter(shared: Worker, name: str) -> None:
    session = shared.session()
    most = session.hello(name)["max_deliver"]
    [seq] = session.publish(to_bot(name, "poison"))
    for attempt in range(1, most + 1):
        delivery = session.take_one()
        assert (delivery["seq"], delivery["attempt"]) == (seq, attempt)
        session.settle("nak", seq, delay=0)
    assert session.waiting_deliveries() == []
    [dead] = session.value("dead_letters", bot=name)["dead_letters"]
    assert (dead["seq"], dead["attempts"], dead["message"]["body"]) == (seq, most, "poison")


def test_a_term_makes_a_dead_letter_that_can_be_retried(shared: Worker, name: str) -> None:
    session = shared.session(name)
    seqs = session.publish(to_bot(name, "bad"), to_bot(name, "worse"), to_bot(name, "fine"))
    taken = session.take(3)
    session.settle("term", seqs[0], reason="cannot be read")
    session.settle("term", seqs[1])
    session.settle("ack", seqs[2])
    dead = session.value("dead_letters", bot=name)["dead_letters"]
    assert seqs_of(dead) == [seqs[1], seqs[0]]
    assert dead[1]["reason"] == "cannot be read"
    for letter, delivery in zip(dead, (taken[1], taken[0]), strict=True):
        assert set(letter) >= {"seq", "reason", "attempts", "at", "message"}
        assert letter["attempts"] == 1
        assert TIME.fullmatch(letter["at"])
        assert {field: letter["message"][field] for field in MESSAGE_FIELDS} == {
            field: delivery[field] for field in MESSAGE_FIELDS
        }
    assert seqs_of(session.value("dead_letters", bot=name, limit=1)["dead_letters"]) == [seqs[1]]
    session.goodbye()
    session.hello(name)
    assert session.waiting_deliveries() == []
    assert session.value("retry_dead_letters", bot=name, seqs=[seqs[0], seqs[2], 2**40]) == {"retried": 1}
    assert session.take_one() == {**taken[0], "attempt": 1}
    session.settle("ack", seqs[0])
    assert seqs_of(session.value("dead_letters", bot=name)["dead_letters"]) == [seqs[1]]


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────────────


def publish_frame(channel: str, *raw_bodies: bytes, request: int = 77) -> bytes:
    """A publish frame with bodies byte for byte."""
    messages = b",".join(
        b'{"id":"%b","recipient":{"type":"channel","name":"%b"},"body":%b}'
        % (new_id().encode(), channel.encode(), raw)
        for raw in raw_bodies
    )
    return b'{"op":"publish","request":%d,"messages":[%b]}' % (request, messages)


def frame_of(op: str, **fields: Any) -> Callable[[str], bytes]:
    """A frame with request 77; `@` in a text stands for the test's name."""
    return lambda name: json.dumps({"op": op, "request": 77, **fields}).replace("@", name).encode()


def published(**changes: Any) -> Callable[[str], bytes]:
    """A publish frame with a good message, and one with some fields changed, or taken out where None."""

    def frame(name: str) -> bytes:
        changed = {**to_channel(name, "bad"), **changes}
        messages = [
            to_channel(name, "good"),
            {key: value for key, value in changed.items() if value is not None},
        ]
        return json.dumps({"op": "publish", "request": 77, "messages": messages}).encode()

    return frame


class BadFrame(NamedTuple):
    """A message that is refused as a whole: what is sent, and how it is refused."""

    name: str
    frames: Callable[[str], bytes] | list[bytes]
    codes: tuple[str, ...] = ("bad_request",)
    request: int | None = 77
    mentions: str = ""


NO_FRAME = ("bad_frame", "bad_request")
UNREADABLE = [
    BadFrame("not JSON", [b"hello"], NO_FRAME, None),
    BadFrame("an empty frame", [b""], NO_FRAME, None),
    BadFrame("half an object", [b'{"op":"ping"'], NO_FRAME, None),
    BadFrame("an object and more", [b'{"op":"ping"} ping'], NO_FRAME, None),
    BadFrame("an array", [b'[{"op":"ping"}]'], NO_FRAME, None),
    BadFrame("null", [b"null"], NO_FRAME, None),
    BadFrame("UTF-16", ['{"op":"ping"}'.encode("utf-16")], NO_FRAME, None),
    BadFrame("bytes", [bytes(range(256))], NO_FRAME, None),
    BadFrame("single quotes", [b"{'op':'ping'}"], NO_FRAME, None),
    BadFrame("deep nesting", [b"[" * 100_000], NO_FRAME, None),
    BadFrame("deep and closed nesting", [b'{"op":' + b"[" * 5000 + b"]" * 5000 + b"}"], NO_FRAME, None),
    BadFrame("a body that is no JSON", lambda name: publish_frame(name, b'"good"', b"nonsense"), NO_FRAME, None),
    BadFrame("a body of NaN", lambda name: publish_frame(name, b'"good"', b"NaN"), NO_FRAME, None),
    BadFrame("no body", lambda name: publish_frame(name, b'"good"', b""), NO_FRAME, None),
    BadFrame("two frames", [b'{"op":"ping"}', b'{"op":"ping"}'], ("bad_frame",), None),
    BadFrame("an empty frame in front", [b"", b'{"op":"ping"}'], ("bad_frame",), None),
    BadFrame("three frames", [b'{"op":"ping"}', b"", b""], ("bad_frame",), None),
    BadFrame("over the limit", [b'{"op":"ping"}'.ljust(MAX_FRAME_BYTES + 1)], ("too_large",), None),
    BadFrame(
        "a publish over the limit",
        lambda name: publish_frame(name, b'"good"', *[b'"%b"' % (b"x" * 200_000)] * 6),
        ("too_large",),
        None,
    ),
]
WRONG = [
    BadFrame("unknown op", frame_of("shout"), mentions="shout"),
    BadFrame("no op", [b'{"request":77}'], mentions="op"),
    BadFrame("op of a wrong type", [b'{"op":5,"request":77}']),
    BadFrame("unknown field", frame_of("publish", messages=[to_channel("@", 1)], urgent=True), mentions="urgent"),
    BadFrame("unknown field of a message", published(mesage_type="event"), mentions="mesage_type"),
    BadFrame("sender in a message", published(sender_bot_id=new_id()), mentions="sender_bot_id"),
    BadFrame("unknown field of a recipient", published(recipient={"type": "channel", "name": "x", "bot": "y"})),
    BadFrame("unknown recipient type", published(recipient={"type": "group", "name": "x"})),
    BadFrame("recipient of a wrong type", published(recipient="x")),
    BadFrame("channel without name", published(recipient={"type": "channel"}), mentions="name"),
    BadFrame("no recipient", published(recipient=None), mentions="recipient"),
    BadFrame("no id", published(id=None), mentions="id"),
    BadFrame("no body field", published(body=None), mentions="body"),
    BadFrame("id of a wrong type", published(id=5), mentions="id"),
    BadFrame("message_type of a wrong type", published(message_type=["a"]), mentions="message_type"),
    BadFrame("reply_to of a wrong type", published(reply_to=5), mentions="reply_to"),
    BadFrame("headers of a wrong type", published(headers=["a"]), mentions="headers"),
    BadFrame("header of a wrong type", published(headers={"a": 1}), mentions="headers"),
    BadFrame("no messages field", frame_of("publish"), mentions="messages"),
    BadFrame("messages of a wrong type", frame_of("publish", messages={"id": "x"}), mentions="messages"),
    BadFrame("a message of a wrong type", frame_of("publish", messages=[5])),
    BadFrame("zero messages", frame_of("publish", messages=[])),
    BadFrame("1001 messages", lambda name: publish_frame(name, *[b"1"] * 1001)),
    BadFrame("no request", [b'{"op":"status"}'], request=None, mentions="request"),
    BadFrame("request of a wrong type", [b'{"op":"status","request":"77"}'], request=None),
    BadFrame("request true", [b'{"op":"status","request":true}'], request=None),
    BadFrame("request with a fraction", [b'{"op":"status","request":1.5}'], request=None),
    BadFrame("negative request", [b'{"op":"status","request":-1}'], request=None),
    BadFrame("request out of range", [b'{"op":"status","request":9007199254740992}'], request=None),
    BadFrame("hello without a bot", frame_of("hello", protocol=1), mentions="bot"),
    BadFrame("hello with a bad name", frame_of("hello", protocol=1, bot="bad name")),
    BadFrame("hello with an empty name", frame_of("hello", protocol=1, bot="")),
    BadFrame("hello with a long name", frame_of("hello", protocol=1, bot="x" * 129)),
    BadFrame("hello with a line end in the name", frame_of("hello", protocol=1, bot="x\n")),
    BadFrame("hello with a bad bot_id", frame_of("hello", protocol=1, bot="x", bot_id="5")),
    BadFrame("hello with too much credit", frame_of("hello", protocol=1, bot="x", max_in_flight=1001)),
    BadFrame("hello with negative credit", frame_of("hello", protocol=1, bot="x", max_in_flight=-1)),
    BadFrame("hello with protocol as text", frame_of("hello", protocol="1", bot="x")),
    BadFrame("ping with an unknown field", [b'{"op":"ping","request":77}']),
    BadFrame("credit over the limit", frame_of("credit", max_in_flight=1001)),
    BadFrame("ack of texts", frame_of("ack", seqs=["1"])),
    BadFrame("ack of one number", frame_of("ack", seqs=1)),
    BadFrame("ack without seqs", frame_of("ack"), mentions="seqs"),
    BadFrame("nak with a negative delay", frame_of("nak", seqs=[1], delay=-1)),
    BadFrame("nak with a delay as text", frame_of("nak", seqs=[1], delay="1")),
    BadFrame("subscribe to a bad name", frame_of("subscribe", channel="bad name")),
    BadFrame("subscribe to an empty name", frame_of("subscribe", channel="")),
    BadFrame("subscribe to nothing", frame_of("subscribe"), mentions="channel"),
    BadFrame("subscribe from nowhere", frame_of("subscribe", channel="@-x", start="yesterday")),
    BadFrame("subscribe from an empty start", frame_of("subscribe", channel="@-x", start={})),
    BadFrame("subscribe from two places", frame_of("subscribe", channel="@-x", start={"seq": 1, "time": "x"})),
    BadFrame("subscribe from no time", frame_of("subscribe", channel="@-x", start={"time": "noon"})),
    BadFrame("subscribe with echo as text", frame_of("subscribe", channel="@-x", echo="yes")),
    BadFrame("unsubscribe from a bad name", frame_of("unsubscribe", channel="-x")),
    BadFrame("history of nothing", frame_of("history")),
    BadFrame("history of two things", frame_of("history", channel="@", between=["@", "@"])),
    BadFrame("history between three", frame_of("history", between=["@", "@", "@"])),
    BadFrame("history of no thread", frame_of("history", thread="x")),
    BadFrame("history with limit 0", frame_of("history", channel="@", limit=0)),
    BadFrame("history with limit 1001", frame_of("history", channel="@", limit=1001)),
    BadFrame("message of no id", frame_of("message", id="x")),
]
NOT_IN_THIS_VERSION = [
    BadFrame("group", frame_of("subscribe", channel="@-x", group="workers"), mentions="group"),
    BadFrame("ttl", published(ttl=60), mentions="ttl"),
    BadFrame("delay", published(delay=60), mentions="delay"),
    BadFrame("expects_reply", published(expects_reply=True), mentions="expects_reply"),
    BadFrame("workflow", frame_of("workflow", call="list_runs", arguments={}), mentions="workflow"),
    BadFrame("commit", frame_of("commit", id=new_id()), mentions="commit"),
]


@pytest.mark.parametrize(
    "bad", UNREADABLE + WRONG + NOT_IN_THIS_VERSION, ids=lambda bad: bad.name.replace(" ", "_")
)
def test_a_bad_frame_is_refused_and_changes_nothing(shared: Worker, name: str, bad: BadFrame) -> None:
    session = shared.session(name)
    session.subscribe(name, echo=True)
    session.publish(to_channel(name, "before"))
    session.settle("ack", session.take_one()["seq"])
    end = session.ping()["last_seq"]

    session.send_raw(*(bad.frames if isinstance(bad.frames, list) else [bad.frames(name)]))
    error = session.receive()

    assert error["op"] == "error"
    assert error["code"] in bad.codes
    assert bad.mentions in error["message"]
    assert error["retry"] is False
    if bad.request is None:
        assert "request" not in error
    else:
        assert error["request"] == bad.request
    assert session.ping()["last_seq"] == end
    check_unharmed(session, name, ["before"])


def check_unharmed(session: Session, name: str, stored: list[Any]) -> None:
    """The session goes on, its channel has the good messages alone, and nothing else came into being."""
    session.publish(to_channel(name, "after"))
    delivery = session.take_one()
    assert delivery["body"] == "after"
    session.settle("ack", delivery["seq"])
    assert bodies(session.history(channel=name)) == ["after", *stored[::-1]]
    assert [each["channel_name"] for each in session.value("subscriptions")["subscriptions"]] == [name]
    assert f"{name}-x" not in [channel["name"] for channel in session.value("channels")["channels"]]
    assert session.waiting_deliveries() == []
    assert session.others == []


NO_NAMES = ["", "bad name", "-x", ".x", "_x", "x" * 129, "ünicode", "a/b", "x\n", "x\0"]
NO_IDS = ["", "x", "019AB6D0-5C1E-7F3A-9D54-0D1F6B2A7C11", "019ab6d05c1e7f3a9d540d1f6b2a7c11", "0" * 36,
          "{019ab6d0-5c1e-7f3a-9d54-0d1f6b2a7c11}", "019ab6d0-5c1e-7f3a-9d54-0d1f6b2a7c11\n"]  # fmt: skip
BAD_MESSAGES: list[tuple[Message, tuple[str, ...]]] = [
    *(({"recipient": {"type": "channel", "name": each}}, ("bad_request",)) for each in NO_NAMES),
    *(({"id": each}, ("bad_request",)) for each in NO_IDS),
    ({"recipient": {"type": "direct", "bot": "nobody"}}, ("unknown_bot",)),
    ({"recipient": {"type": "direct", "bot": "no name!"}}, ("unknown_bot", "bad_request")),
    ({"recipient": {"type": "direct", "bot_id": new_id()}}, ("unknown_bot",)),
    ({"recipient": {"type": "direct", "bot_id": "x"}}, ("unknown_bot", "bad_request")),
]


@pytest.mark.parametrize(("changes", "codes"), BAD_MESSAGES, ids=repr)
def test_a_bad_message_is_refused_alone(
    shared: Worker, name: str, changes: Message, codes: tuple[str, ...]
) -> None:
    session = shared.session(name)
    session.subscribe(name, echo=True)
    answer = session.try_publish(to_channel(name, 1), {**to_channel(name, "bad"), **changes}, to_channel(name, 2))
    check_one_refused(session, answer, codes)
    check_unharmed(session, name, [1, 2])


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "a byte that is not UTF-8": (b'"\xff"', "invalid_body"),
    "a sequence cut short": (b'"\xe2\x82"', "invalid_body"),
    "an overlong sequence": (b'"\xc0\xaf"', "invalid_body"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "invalid_body"),
    "bad UTF-8 in a key": (b'{"\xff":1}', "invalid_body"),
    "1e999": (b"1e999", "invalid_body"),
    "-1e999 inside": (b'{"a":[-1e999]}', "invalid_body"),
    "an integer of 5000 digits": (b"9" * 5000, "invalid_body"),
    "a negative integer of 5000 digits": (b'{"a":-' + b"9" * 5000 + b"}", "invalid_body"),
    "an integer of 310 digits": (b"[" + b"9" * 310 + b"]", "invalid_body"),
    "arrays 5000 deep": (b"[" * 5000 + b"]" * 5000, "invalid_body"),
    "objects 5000 deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "invalid_body"),
    "arrays 101 deep": (b"[" * 101 + b"]" * 101, "invalid_body"),
    "objects 101 deep": (b'{"a":' * 101 + b"1" + b"}" * 101, "invalid_body"),
    "both, 101 deep": (b'{"a":[' * 50 + b"[1]" + b"]}" * 50, "invalid_body"),
    "a lone surrogate": (b'"\\ud800"', "invalid_body"),
    "a lone low surrogate": (b'"x\\udc00"', "invalid_body"),
    "a pair the wrong way round": (b'"\\udc00\\ud800"', "invalid_body"),
    "a lone surrogate in a key": (b'{"\\ud800":1}', "invalid_body"),
    "a lone surrogate after an escape": (b'"\\\\\\ud800"', "invalid_body"),
    "a byte over the limit": (b'"' + b"x" * (MAX_BODY_BYTES - 1) + b'"', "too_large"),
    "far over the limit": (b'"' + b"x" * 700_000 + b'"', "too_large"),
}


@pytest.mark.parametrize("bad", BAD_BODIES)
def test_a_body_that_nobody_could_read_is_refused_alone(shared: Worker, name: str, bad: str) -> None:
    body, code = BAD_BODIES[bad]
    session = shared.session(name)
    session.subscribe(name, echo=True)
    session.send_raw(publish_frame(name, b"1", body, b"2"))
    check_one_refused(session, session.receive_until("published", 77), (code,))
    check_unharmed(session, name, [1, 2])


def check_one_refused(session: Session, answer: Frame, codes: tuple[str, ...]) -> None:
    """The message in the middle was refused, and its neighbours are stored and delivered."""
    assert answer["op"] == "published"
    first, refused, second = answer["seqs"]
    assert refused is None
    assert second == first + 1
    [error] = answer["errors"]
    assert set(error) >= {"index", "code", "message"}
    assert error["index"] == 1
    assert error["code"] in codes
    assert "duplicates" not in answer
    delivered = session.take(2)
    assert seqs_of(delivered) == [first, second]
    session.settle("ack", first, second)


def test_a_refused_message_may_be_mended_and_sent_with_its_id(shared: Worker, name: str) -> None:
    session = shared.session(name)
    message = to_channel(name, "x" * MAX_BODY_BYTES)
    assert session.try_publish(message)["errors"][0]["code"] == "too_large"
    answer = session.try_publish({**message, "body": "short"})
    assert set(answer) == {"op", "request", "seqs"}
    assert bodies(session.history(channel=name)) == ["short"]


def test_a_frame_of_just_the_limit_is_served(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.send_raw(b'{"op":"ping"}'.ljust(MAX_FRAME_BYTES))
    assert session.receive()["op"] == "pong"


def test_a_frame_far_over_the_limit_costs_the_connection_and_nothing_else(shared: Worker, name: str) -> None:
    neighbour = shared.session(f"{name}-neighbour")
    session = shared.session(name)
    session.publish(to_channel(name, "before"))
    session.send_raw(b" " * (4 * MAX_FRAME_BYTES + 1))
    # What is sent into the dying connection is lost with it, so the hello is repeated until one is answered.
    deadline = time.monotonic() + TIMEOUT_SECONDS
    welcome: Frame | None = None
    while welcome is None or welcome["op"] != "welcome":
        assert time.monotonic() < deadline, "the socket did not connect again"
        session.send(op="hello", request=session.request_number(), protocol=1, bot=name)
        welcome = session.poll(1)
    session.publish(to_channel(name, "after"))
    assert bodies(session.history(channel=name)) == ["after", "before"]
    assert neighbour.ping()["op"] == "pong"


def test_a_connection_that_speaks_no_zeromq_harms_nobody(shared: Worker, name: str) -> None:
    session = shared.session(name)
    with shared.plain_connection() as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        assert session.ping()["op"] == "pong"
    session.publish(to_channel(name, "fine"))
    assert bodies(session.history(channel=name)) == ["fine"]


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────


def test_history_between_two_bots(shared: Worker, name: str) -> None:
    alice, bob, carol = (shared.session(f"{name}-{each}") for each in ("alice", "bob", "carol"))
    alice.publish(to_bot(f"{name}-bob", "a1"))
    bob.publish(to_bot(f"{name}-alice", "b1"))
    carol.publish(to_bot(f"{name}-alice", "not theirs"), to_channel(name, "nor this"))
    alice.publish(to_bot(f"{name}-bob", "a2"), to_bot(f"{name}-carol", "nor that"))
    for pair in ([f"{name}-alice", f"{name}-bob"], [bob.bot_id, alice.bot_id], [f"{name}-bob", alice.bot_id]):
        value = carol.value("history", between=pair)
        assert bodies(value["messages"]) == ["a2", "b1", "a1"]
        assert value["more"] is False
    assert all(set(message) >= MESSAGE_FIELDS for message in value["messages"])
    assert bodies(alice.history(between=[f"{name}-bob", f"{name}-carol"])) == []
    assert alice.code("history", between=[f"{name}-alice", "nobody"]) == "unknown_bot"
    assert alice.code("history", between=[f"{name}-alice", new_id()]) == "unknown_bot"


def test_history_is_read_page_by_page(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(*(to_channel(name, number) for number in range(7)), to_channel(f"{name}-other", "x"))
    found: list[Any] = []
    page = session.value("history", channel=name, limit=3)
    assert bodies(page["messages"]) == [6, 5, 4]
    while page["more"]:
        found += bodies(page["messages"])
        page = session.value("history", channel=name, limit=3, before_seq=page["messages"][-1]["seq"])
    assert [*found, *bodies(page["messages"])] == [6, 5, 4, 3, 2, 1, 0]
    assert session.value("history", channel=name, limit=7)["more"] is False
    assert session.value("history", channel=name, limit=6)["more"] is True
    last = session.history(channel=name, limit=1)[0]["seq"]
    assert bodies(session.history(channel=name, before_seq=last, limit=2)) == [5, 4]
    assert session.history(channel=name, before_seq=1) == []
    assert session.code("history", channel=f"{name}-nothing") == "unknown_channel"


def test_history_gives_fifty_unless_asked_for_more(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.publish(*(to_channel(name, number) for number in range(60)))
    value = session.value("history", channel=name)
    assert bodies(value["messages"]) == list(range(59, 9, -1))
    assert value["more"] is True
    assert len(session.history(channel=name, limit=1000)) == 60


def test_history_of_a_thread(shared: Worker, name: str) -> None:
    session = shared.session(name)
    question = to_channel(name, "question")
    answer = to_bot(name, "answer", reply_to=question["id"])
    thanks = to_bot(name, "thanks", reply_to=answer["id"])
    aside = to_channel(name, "aside", reply_to=question["id"])
    session.publish(question, to_channel(name, "noise"), answer, thanks, aside)
    for message in (question, answer, thanks):
        value = session.value("history", thread=message["id"])
        assert bodies(value["messages"]) == ["aside", "thanks", "answer", "question"]
        assert value["more"] is False
    page = session.value("history", thread=question["id"], limit=2)
    assert (bodies(page["messages"]), page["more"]) == (["aside", "thanks"], True)
    rest = session.history(thread=question["id"], before_seq=page["messages"][-1]["seq"])
    assert bodies(rest) == ["answer", "question"]


def test_a_message_tells_what_became_of_it(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    present, absent = shared.session(f"{name}-present"), shared.session(f"{name}-absent")
    present.subscribe(name)
    absent.subscribe(name)
    absent.goodbye()
    message = to_channel(name, "well?")
    [seq] = sender.publish(message)
    present.settle("ack", present.take_one()["seq"])
    value = sender.value("message", id=message["id"])
    assert set(value["message"]) >= MESSAGE_FIELDS
    assert (value["message"]["seq"], value["message"]["body"]) == (seq, "well?")
    states = {mailbox["bot_id"]: mailbox["state"] for mailbox in value["mailboxes"]}
    assert states == {present.bot_id: "settled", absent.bot_id: "waiting"}
    assert sender.code("message", id=new_id()) == "not_found"


def test_bots_are_listed(shared: Worker, name: str) -> None:
    here, gone = shared.session(name), shared.session(f"{name}-gone")
    gone.goodbye()
    here.publish(*(to_bot(f"{name}-gone", number) for number in range(3)))
    bots = {bot["name"]: bot for bot in here.value("bots")["bots"]}
    for bot in (bots[name], bots[f"{name}-gone"]):
        assert set(bot) >= {"id", "name", "online", "created_at", "last_seen_at", "backlog"}
        assert TIME.fullmatch(bot["created_at"])
        assert TIME.fullmatch(bot["last_seen_at"])
        assert bot["created_at"] <= bot["last_seen_at"]
    assert (bots[name]["id"], bots[name]["online"], bots[name]["backlog"]) == (here.bot_id, True, 0)
    assert bots[f"{name}-gone"]["id"] == gone.bot_id
    assert (bots[f"{name}-gone"]["online"], bots[f"{name}-gone"]["backlog"]) == (False, 3)


def test_channels_are_listed(shared: Worker, name: str) -> None:
    first, second = shared.session(name), shared.session(f"{name}-second")
    first.publish(to_channel(name, 1), to_channel(name, 2))
    first.subscribe(name)
    second.subscribe(name)
    second.subscribe(f"{name}-quiet")
    channels = {channel["name"]: channel for channel in first.value("channels")["channels"]}
    loud, quiet = channels[name], channels[f"{name}-quiet"]
    assert (loud["created_by_bot_id"], loud["subscribers"], loud["messages"]) == (first.bot_id, 2, 2)
    assert (quiet["created_by_bot_id"], quiet["subscribers"], quiet["messages"]) == (second.bot_id, 1, 0)
    assert TIME.fullmatch(loud["created_at"])


def test_subscriptions_are_listed(shared: Worker, name: str) -> None:
    first, second = shared.session(name), shared.session(f"{name}-second")
    start_seq = first.subscribe(f"{name}-a")["start_seq"]
    first.subscribe(f"{name}-b", start="all", echo=True)
    second.subscribe(f"{name}-b")
    own = {each["channel_name"]: each for each in first.value("subscriptions")["subscriptions"]}
    assert set(own) == {f"{name}-a", f"{name}-b"}
    for each in own.values():
        assert each["bot_id"] == first.bot_id
        assert TIME.fullmatch(each["subscribed_at"])
    assert (own[f"{name}-a"]["start_seq"], own[f"{name}-a"]["echo"]) == (start_seq, False)
    assert (own[f"{name}-b"]["start_seq"], own[f"{name}-b"]["echo"]) == (0, True)
    others = first.value("subscriptions", bot=f"{name}-second")["subscriptions"]
    assert [(each["bot_id"], each["channel_name"]) for each in others] == [(second.bot_id, f"{name}-b")]
    everybody = first.value("subscriptions", channel=f"{name}-b")["subscriptions"]
    assert {each["bot_id"] for each in everybody} == {first.bot_id, second.bot_id}
    assert first.code("subscriptions", bot="nobody") == "unknown_bot"
    assert first.code("subscriptions", channel=f"{name}-nothing") == "unknown_channel"


def test_dead_letters_of_nobody_are_refused(shared: Worker, name: str) -> None:
    session = shared.session(name)
    assert session.code("dead_letters", bot="nobody") == "unknown_bot"
    assert session.code("retry_dead_letters", bot="nobody", seqs=[1]) == "unknown_bot"
    assert session.value("retry_dead_letters", bot=name, seqs=[1]) == {"retried": 0}


def test_status_tells_how_the_worker_is(shared: Worker, name: str) -> None:
    status = shared.session(name).value("status")
    for part in ("counters", "rates", "sizes", "versions"):
        assert status[part], f"{part} is empty"


# ── Stopping and coming back ─────────────────────────────────────────────────────────────────────────────


def test_a_killed_worker_forgets_nothing_that_it_confirmed(worker: Worker) -> None:
    sender, receiver, absent = (worker.session(each) for each in ("sender", "receiver", "absent"))
    receiver.subscribe("news")
    absent.subscribe("news")
    absent.goodbye()
    terms = receiver.hello("receiver")
    messages = [to_bot("receiver", 0), to_channel("news", 1), to_bot("receiver", 2), to_channel("news", 3)]
    seqs = sender.publish(*messages)
    first = receiver.take(4)
    receiver.settle("ack", seqs[1])

    worker.kill()
    worker.start()

    # The sockets connect again by themselves; their sessions are gone.
    assert receiver.code("status") == "unknown_session"
    again = receiver.hello("receiver")
    assert (again["bot_id"], again["epoch"]) == (terms["bot_id"], terms["epoch"])
    assert again["last_seq"] == seqs[-1]
    assert receiver.take(3) == [{**first[index], "attempt": 2} for index in (0, 2, 3)]
    sender.hello("sender")
    repeated = sender.try_publish(*messages)
    assert (repeated["seqs"], repeated["duplicates"]) == (seqs, [0, 1, 2, 3])
    [last] = sender.publish(to_channel("news", 4))
    assert last == seqs[-1] + 1
    assert receiver.take_one()["seq"] == last
    assert receiver.subscribe("news")["created"] is False
    absent.hello("absent")
    assert [(each["seq"], each["attempt"]) for each in absent.take(3)] == [
        (seqs[1], 1),
        (seqs[3], 1),
        (last, 1),
    ]
    assert bodies(sender.history(channel="news")) == [4, 3, 1]
    assert receiver.waiting_deliveries() == []


def test_a_killed_worker_keeps_dead_letters(worker: Worker) -> None:
    session = worker.session("bot")
    [seq] = session.publish(to_bot("bot", "bad"))
    session.settle("term", session.take_one()["seq"], reason="no")
    worker.kill()
    worker.start()
    session.hello("bot")
    assert session.waiting_deliveries() == []
    assert seqs_of(session.value("dead_letters", bot="bot")["dead_letters"]) == [seq]
    assert session.value("retry_dead_letters", bot="bot", seqs=[seq]) == {"retried": 1}
    assert session.take_one()["seq"] == seq


def test_a_stopped_worker_says_so_and_goes_on_where_it_was(worker: Worker) -> None:
    sender, receiver = worker.session("sender"), worker.session("receiver")
    seqs = sender.publish(*(to_bot("receiver", number) for number in range(3)))
    first = receiver.take(3)
    receiver.send(op="ack", seqs=[seqs[0]])
    receiver.ping()

    worker.signal_termination()
    assert receiver.receive_until("closing") == {"op": "closing"}
    assert sender.receive_until("closing") == {"op": "closing"}
    assert worker.exit_code() == 0
    worker.start()

    receiver.hello("receiver")
    # Settled without confirmation, but the stop was in order: it stays settled.
    assert receiver.take(2) == [{**delivery, "attempt": 2} for delivery in first[1:]]
    assert receiver.waiting_deliveries() == []


# ── The tap ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_tap_shows_channel_messages_as_a_chain(shared: Worker, name: str) -> None:
    sender, receiver = shared.session(f"{name}-sender"), shared.session(name)
    tap = shared.tap_reader(name, f"{name}-connected")
    tap.wait_until_connected(sender, f"{name}-connected")
    message = to_channel(name, {"n": 0}, headers={"a": "b"}, message_type="event")
    [first] = sender.publish(message)
    [second, _, third] = sender.publish(
        to_channel(name, 1), to_channel(f"{name}2", "another channel"), to_channel(name, 2)
    )
    sender.publish(to_bot(name, "not for the tap"))
    receiver.take_one()
    [fourth] = sender.publish(to_channel(name, 3))
    topic, shown = tap.receive()
    assert topic == b"channel/" + name.encode() + b"\0"
    assert TIME.fullmatch(shown["timestamp"])
    assert shown == {
        "seq": first,
        "id": message["id"],
        "sender_bot_id": sender.bot_id,
        "sender_bot_name": f"{name}-sender",
        "recipient": {"type": "channel", "name": name},
        "message_type": "event",
        "body": {"n": 0},
        "reply_to": None,
        "headers": {"a": "b"},
        "timestamp": shown["timestamp"],
        "prev_seq": 0,
    }
    chain = [tap.receive() for _ in range(3)]
    assert {each for each, _ in chain} == {topic}
    assert [(each["seq"], each["prev_seq"]) for _, each in chain] == [
        (second, first), (third, second), (fourth, third)
    ]  # fmt: skip
    assert seqs_of(sender.history(channel=name)) == [fourth, third, second, first]


def test_the_tap_goes_on_after_a_restart(worker: Worker) -> None:
    sender = worker.session("sender")
    [first] = sender.publish(to_channel("news", 1))
    worker.kill()
    worker.start()
    sender.hello("sender")
    tap = worker.tap_reader("news", "connected")
    tap.wait_until_connected(sender, "connected")
    [second] = sender.publish(to_channel("news", 2))
    _, shown = tap.receive()
    assert (shown["seq"], shown["prev_seq"]) == (second, first)


# ── The page's own program ───────────────────────────────────────────────────────────────────────────────


def test_the_python_program_of_the_page_answers_and_survives_a_restart(worker: Worker, tmp_path: Path) -> None:
    program = tmp_path / "echo_bot.py"
    program.write_text(code_block(REPOSITORY / "docs" / "protocol.md", "python"), encoding="utf-8")
    check_echo_program(worker, [sys.executable, str(program), worker.command], tmp_path)
