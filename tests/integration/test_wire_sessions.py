"""Sessions on the wire: hello, credit, ids, goodbye."""

from __future__ import annotations

import pytest

from .wire import BODY_BYTES_MAX, FRAME_BYTES_MAX, ID, Frame, bodies, new_id, seqs_of, to_bot, to_channel
from .wire_worker import Worker


def test_welcome_states_the_terms(worker: Worker) -> None:
    session = worker.session()
    session.send(op="hello", request=7, protocol=1, bot="researcher", max_in_flight=50, client="wire-test/0.1")
    welcome = session.receive()
    assert ID.fullmatch(welcome.pop("session"))
    assert ID.fullmatch(welcome.pop("epoch"))
    assert ID.fullmatch(welcome.pop("bot_id"))
    assert welcome.pop("worker").startswith("posthouse/")
    assert welcome.pop("tap") == worker.tap
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
        "opens_runs": True,
        "joins_removals": True,
        "follows_subscriptions": True,
        "max_output_bytes": 16_777_216,
        "max_parked": 20_000,
        "max_parts_bytes": 36_700_160,
        "max_frame_bytes": FRAME_BYTES_MAX,
        "max_body_bytes": BODY_BYTES_MAX,
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


def test_a_new_name_cannot_be_a_uuid(shared: Worker, name: str) -> None:
    session = shared.session()
    error = session.ask("hello", answer="welcome", protocol=1, bot=new_id(), max_in_flight=0)
    assert (error["op"], error["code"]) == ("error", "bad_request")
    assert "add a prefix" in error["message"]
    assert session.hello(name)["bot"] == name


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
