"""Bad input on the wire: each is refused with its code, and neither session nor neighbours are harmed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from .wire import (
    BODY_BYTES_MAX,
    FRAME_BYTES_MAX,
    TIMEOUT_SECONDS,
    Frame,
    Message,
    Session,
    bodies,
    new_id,
    publish_frame,
    seqs_of,
    to_channel,
)
from .wire_worker import Worker


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
    BadFrame("over the limit", [b'{"op":"ping"}'.ljust(FRAME_BYTES_MAX + 1)], ("too_large",), None),
    BadFrame(
        "a publish over the limit",
        lambda name: publish_frame(name, b'"good"', *[b'"%b"' % (b"x" * 210_000)] * 5),
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
    BadFrame("nak with a release as text", frame_of("nak", seqs=[1], release="yes"), mentions="release"),
    BadFrame("ack with a release", frame_of("ack", seqs=[1], release=True), mentions="release"),
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
    BadFrame("group that is no name", frame_of("subscribe", channel="@-x", group="a b"), mentions="group"),
    BadFrame("ttl of nothing", published(ttl=0), mentions="ttl"),
    BadFrame("ttl in words", published(ttl="soon"), mentions="ttl"),
    BadFrame("delay below zero", published(delay=-1), mentions="delay"),
    BadFrame("delay as text", published(delay="60"), mentions="delay"),
    BadFrame("expects_reply", published(expects_reply="yes"), mentions="expects_reply"),
    BadFrame("workflow without a call", frame_of("workflow", arguments={}), mentions="call"),
    BadFrame("workflow with a call too many", frame_of("workflow", call="x", calls=["y"]), mentions="calls"),
    BadFrame("commit of no id", frame_of("commit", id="x"), mentions="id"),
    BadFrame("commit of a step that is none", frame_of("commit", id=new_id(), steps=[{}]), mentions="steps"),
]


@pytest.mark.parametrize("bad", UNREADABLE + WRONG, ids=lambda bad: bad.name.replace(" ", "_"))
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
    assert [sign for sign in ("$", "`", "{0,127}") if sign in error["message"]] == []
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
    ({"recipient": {"type": "direct", "bot_id": "01a205e9-e70a-7e02-9857-a886f869a778"}}, ("unknown_bot",)),
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
    "a byte over the limit": (b'"' + b"x" * (BODY_BYTES_MAX - 1) + b'"', "too_large"),
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
    message = to_channel(name, "x" * BODY_BYTES_MAX)
    assert session.try_publish(message)["errors"][0]["code"] == "too_large"
    answer = session.try_publish({**message, "body": "short"})
    assert set(answer) == {"op", "request", "seqs"}
    assert bodies(session.history(channel=name)) == ["short"]


def test_a_frame_of_just_the_limit_is_served(shared: Worker, name: str) -> None:
    session = shared.session(name)
    session.send_raw(b'{"op":"ping"}'.ljust(FRAME_BYTES_MAX))
    assert session.receive()["op"] == "pong"


def test_a_frame_far_over_the_limit_costs_the_connection_and_nothing_else(shared: Worker, name: str) -> None:
    neighbour = shared.session(f"{name}-neighbour")
    session = shared.session(name)
    session.publish(to_channel(name, "before"))
    session.send_raw(b" " * (FRAME_BYTES_MAX + 16 * 1024))
    assert session.receive()["code"] == "too_large"
    session.send_raw(b" " * (FRAME_BYTES_MAX + 16 * 1024 + 1))
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


def test_what_is_wrong_deep_inside_is_refused_in_a_few_words(shared: Worker, name: str) -> None:
    step = b'{"id":"%s","run_id":"r","step_id":"s","step_name":"s","status":"completed","attempt":1,"output":%s}'
    deep = step % (new_id().encode(), b"[" * 60 + b"1e999" + b"]" * 60)
    with shared.session(name) as session:
        session.send_raw(b'{"op":"commit","request":77,"run_id":"r","fence":1,"steps":[%s]}' % deep)
        answer = session.receive_until("error", 77)
        assert "Number out of range" in answer["message"]
        assert len(answer["message"]) < 500
        assert session.ping()["op"] == "pong"
