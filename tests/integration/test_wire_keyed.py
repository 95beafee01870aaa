"""Keyed stores on the wire: what is answered, what is refused, and who is told of changes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .wire import Frame, Session
from .wire_worker import Worker


class Store:
    """A session's calls about one store, whose name is the test's."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name

    def ask(self, call: str, **arguments: Any) -> Frame:
        return self.session.ask("workflow", call=f"kv_{call}", arguments={"kv": self.name, **arguments})

    def value(self, call: str, **arguments: Any) -> Any:
        frame = self.ask(call, **arguments)
        assert frame["op"] == "ok", frame
        return frame["value"]

    def refusal(self, call: str, **arguments: Any) -> Frame:
        frame = self.ask(call, **arguments)
        assert frame["op"] == "error", frame
        return frame


@pytest.fixture
def store(shared: Worker, name: str) -> Store:
    return Store(shared.session(name), name)


def test_a_value_is_answered_as_it_was_sent(store: Store) -> None:
    revision = store.value("put", key="a", value={"n": 1.0, "x": None}, id="1")["revision"]
    found = store.value("get", key="a")
    assert found.keys() == {"key", "revision", "state", "value", "written_at", "bot_id"}
    assert (found["key"], found["revision"], found["state"]) == ("a", revision, "json")
    assert found["value"] == {"n": 1.0, "x": None}
    assert store.value("get", key="b") is None
    later = store.value("put", key="a", value="AP8=", kind="bytes", id="2", ttl=60)["revision"]
    assert later > revision
    found = store.value("get", key="a")
    assert (found["state"], found["value"], found["expires_at"] > found["written_at"]) == ("bytes", "AP8=", True)
    assert store.value("delete", key="a", id="3")["revision"] > later
    assert store.value("delete", key="a", id="4") == {"revision": 0}


def test_repeating_and_expecting(store: Store) -> None:
    put = {"key": "a", "value": 1, "id": "1", "expected": 0}
    first = store.value("put", **put)["revision"]
    second = store.value("put", key="a", value=2, id="2", expected=first)["revision"]
    assert store.value("put", **put)["revision"] == first
    refused = store.refusal("put", key="a", value=3, id="3", expected=first)
    assert (refused["code"], refused["details"]["error"]) == ("conflict", "revision_conflict")
    assert (refused["details"]["revision"], refused["details"]["expected"]) == (second, first)
    assert store.refusal("put", key="b", value=1, id="1")["code"] == "conflict"
    assert store.value("get", key="a")["value"] == 2


def test_lists_and_changes(store: Store) -> None:
    revisions = [store.value("put", key=key, value=key, id=key)["revision"] for key in ("b", "a", "c")]
    page = store.value("list")
    assert [value["key"] for value in page["values"]] == ["a", "b", "c"]
    assert (page["more"], page["revision"] >= revisions[-1]) == (False, True)
    page = store.value("list", prefix="", after="a", limit=1)
    assert ([value["key"] for value in page["values"]], page["more"]) == (["b"], True)
    deleted = store.value("delete", key="a", id="d")["revision"]
    page = store.value("changes", after=revisions[0])
    assert [(value["key"], value["state"]) for value in page["changes"]] == [("c", "json"), ("a", "deleted")]
    assert page["revision"] >= deleted
    assert "value" not in page["changes"][1]
    refused = store.refusal("changes", after=2**40)
    assert (refused["code"], refused["details"]["error"]) == ("conflict", "changes_forgotten")


def test_who_asks_is_told_once_of_the_next_change(store: Store, shared: Worker) -> None:
    other = Store(shared.session(f"{store.name}-other"), store.name)
    page = other.value("changes", after=0, wake=True)
    revision = store.value("put", key="a", value=1, id="1")["revision"]
    told = other.session.receive()
    assert told == {"op": "kv_changed", "kv": [store.name]}
    store.value("put", key="a", value=2, id="2")
    page = other.value("changes", after=page["revision"])
    assert [value["value"] for value in page["changes"]] == [2], "the next frame was the answer"
    assert page["revision"] > revision


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("put", {"key": "a", "value": 1}),
        ("put", {"key": "", "value": 1, "id": "1"}),
        ("put", {"key": "x" * 513, "value": 1, "id": "1"}),
        ("put", {"key": "a\0b", "value": 1, "id": "1"}),
        ("put", {"key": "a", "value": 1, "id": "1", "expected": -1}),
        ("put", {"key": "a", "value": 1, "id": "1", "ttl": 0}),
        ("put", {"key": "a", "value": 1, "id": "1", "kind": "text"}),
        ("put", {"key": "a", "value": "no base64", "id": "1", "kind": "bytes"}),
        ("put", {"key": "a", "value": "AP8", "id": "1", "kind": "bytes"}),
        ("put", {"key": "a", "value": 1, "id": "1", "kind": "bytes"}),
        ("get", {"kv": "no name", "key": "a"}),
        ("list", {"limit": 0}),
        ("list", {"limit": 1001}),
        ("changes", {}),
        ("changes", {"after": 0, "prefix": "\0"}),
    ],
)
def test_what_is_wrong_is_refused(store: Store, call: str, arguments: dict[str, Any]) -> None:
    assert store.refusal(call, **arguments)["code"] == "bad_request"


@pytest.mark.parametrize(
    "text",
    [
        b'"op":"workflow","call":"kv_put","arguments":{"kv":"k","key":"a","id":"1","value":"\xff"}',
        b'"op":"commit","id":"00000000-0000-4000-8000-000000000001","values":[{"kv":"k","key":"a","value":"\xff"}]',
    ],
    ids=["put", "commit"],
)
def test_a_value_that_is_not_utf_8_is_refused(store: Store, text: bytes) -> None:
    number = store.session.request_number()
    store.session.send_raw(b'{"request":%d,%b}' % (number, text))
    refused = store.session.receive_until("error", number)
    assert (refused["code"], "UTF-8" in refused["message"]) == ("bad_request", True)


def test_the_worker_counts_keys(store: Store) -> None:
    before = store.session.value("status")["sizes"]["kv_keys"]
    store.value("put", key="a", value=1, id="1")
    assert store.session.value("status")["sizes"]["kv_keys"] == before + 1


# ── Last values of channels ──────────────────────────────────────────────────────────────────────────────


def publish(session: Session, channel: str, body: Any, **fields: Any) -> Frame:
    message = {"id": str(uuid.uuid4()), "recipient": {"type": "channel", "name": channel}, "body": body, **fields}
    return session.try_publish(message)


def retained(session: Session, channel: str) -> Any:
    frame = session.ask("workflow", call="retained", arguments={"channel": channel})
    assert frame["op"] == "ok", frame
    return frame["value"]


def test_the_last_value_of_a_channel_is_answered(shared: Worker, name: str) -> None:
    session, other = shared.session(name), shared.session(f"{name}-other")
    assert retained(session, name) is None
    [seq] = publish(session, name, {"n": 1.0}, retain=True, headers={"a": "b"})["seqs"]
    publish(session, name, 2)
    found = retained(other, name)
    assert found.keys() == {
        "seq", "id", "sender_bot_id", "sender_bot_name", "recipient", "message_type", "body", "reply_to", "headers",
        "timestamp",
    }  # fmt: skip
    assert (found["seq"], found["body"], found["headers"]) == (seq, {"n": 1.0}, {"a": "b"})
    assert found["recipient"] == {"type": "channel", "name": name}
    start = other.value("subscribe", channel=name, retained=True)
    assert (start["retained"], start["created"], start["start_seq"] > seq) == (found, True, True)
    assert "retained" not in other.value("subscribe", channel=name)
    publish(session, name, None, retain=True)
    assert retained(other, name) is None
    assert "retained" not in session.value("subscribe", channel=name, retained=True)


def test_what_cannot_be_retained_is_refused(shared: Worker, name: str) -> None:
    session = shared.session(name)
    direct = {"id": str(uuid.uuid4()), "recipient": {"type": "direct", "bot": name}, "body": 1, "retain": True}
    assert session.try_publish(direct)["errors"][0]["code"] == "bad_request"
    assert publish(session, name, 1, retain=True, delay=5)["errors"][0]["code"] == "bad_request"
    assert publish(session, name, 1, retain=True, delay=0)["seqs"] != [None]
    assert session.ask("workflow", call="retained", arguments={"channel": "no name"})["code"] == "bad_request"


def test_messages_of_one_frame_are_retained_each_as_it_says(shared: Worker, name: str) -> None:
    session = shared.session(name)
    recipient = {"type": "channel", "name": name}
    messages = [
        {"id": str(uuid.uuid4()), "recipient": recipient, "body": number, "retain": number % 2 == 0}
        for number in range(6)
    ]
    session.publish(*messages)
    assert retained(session, name)["body"] == 4


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_in_pages_has_no_gap_and_nothing_twice_while_others_write(store: Store, shared: Worker) -> None:
    writer = Store(shared.session(f"{store.name}-writer"), store.name)
    there = [f"k/{number:03}" for number in range(60)]
    for key in there:
        store.value("put", key=key, value="x" * 100, id=key)
    seen: list[str] = []
    after, number = None, 0
    while True:
        page = store.value("list", prefix="k/", limit=7, **({} if after is None else {"after": after}))
        seen += [value["key"] for value in page["values"]]
        for key in (f"k/{number:03}-new", f"k/{59 - number:03}", "j", "l", f"gone/{number}"):
            number += 1
            writer.value("put", key=key, value=number, id=f"w{number}")
        writer.value("delete", key=f"k/{number % 60:03}-new", id=f"d{number}")
        if not page["more"]:
            break
        after = page["values"][-1]["key"]
    assert seen == sorted({*seen}), "each key once, in order"
    assert [key for key in seen if not key.endswith("-new")] == there, "what was there all the time"
