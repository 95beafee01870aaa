"""Receiving on the wire: subscriptions, credit, settling, and what comes again."""

from __future__ import annotations

import time
from typing import Any

from .wire import MESSAGE_FIELDS, TIME, Message, bodies, seqs_of, to_bot, to_channel
from .wire_worker import Worker

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


def test_a_release_brings_the_message_again_without_a_failure(shared: Worker, name: str) -> None:
    session = shared.session()
    most = session.hello(name)["max_deliver"]
    [seq] = session.publish(to_bot(name, "not now"))
    first = session.take_one()
    session.settle("nak", seq, release=True)
    assert session.take_one() == {**first, "attempt": 2}
    attempt = 2
    for _ in range(most):
        session.settle("nak", seq, release=True, delay=0.01)
        attempt += 1
        assert session.take_one()["attempt"] == attempt
    for _ in range(most - 1):
        session.send(op="nak", seqs=[seq], delay=0, release=False)
        attempt += 1
        assert session.take_one()["attempt"] == attempt, "the releases count nothing"
    session.settle("nak", seq, delay=0)
    [dead] = session.value("dead_letters", bot=name)["dead_letters"]
    assert (dead["seq"], dead["attempts"]) == (seq, attempt)


def test_what_is_released_may_go_to_another_session(shared: Worker, name: str) -> None:
    giver = shared.session(name, max_in_flight=1)
    [seq, _] = giver.publish(to_bot(name, "for you"), to_bot(name, "mine"))
    assert giver.take_one()["seq"] == seq
    taker = shared.session(name, max_in_flight=2)
    mine = taker.take_one()
    giver.value("credit", max_in_flight=0)
    giver.settle("nak", seq, release=True)
    assert (mine["body"], mine["attempt"]) == ("mine", 1)
    assert [(each["seq"], each["attempt"]) for each in taker.take(1)] == [(seq, 2)]
    assert giver.waiting_deliveries() == []


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
