"""Publishing on the wire, and what arrives of it: fields, bodies, ids, duplicates."""

from __future__ import annotations

import pytest

from .wire import (
    BODY_BYTES_MAX,
    MESSAGE_FIELDS,
    TIME,
    Message,
    bodies,
    new_id,
    publish_frame,
    seqs_of,
    to_bot,
    to_channel,
)
from .wire_worker import Worker


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
        b'"' + b"x" * (BODY_BYTES_MAX - 2) + b'"',
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


def test_the_id_of_another_bots_message_is_free(shared: Worker, name: str) -> None:
    message = to_channel(name, "mine")
    first, other = shared.session(f"{name}-first"), shared.session(name)
    [seq] = first.publish(message)
    answer = other.try_publish(to_channel(name, "before"), {**message, "body": "theirs"}, to_channel(name, "after"))
    assert answer["seqs"] == [seq + 1, seq + 2, seq + 3]
    assert "duplicates" not in answer
    assert "errors" not in answer
    assert first.try_publish(message)["duplicates"] == [0]
    assert bodies(other.history(channel=name)) == ["after", "theirs", "before", "mine"]


def test_a_thousand_messages_are_one_frame(shared: Worker, name: str) -> None:
    sender = shared.session(f"{name}-sender")
    receiver = shared.session(name, max_in_flight=1000)
    seqs = sender.publish(*(to_bot(name, number) for number in range(1000)))
    assert seqs == list(range(seqs[0], seqs[0] + 1000))
    taken = receiver.take(1000)
    assert seqs_of(taken) == seqs
    assert bodies(taken) == list(range(1000))
