"""Answers: the worker writes what docs/protocol.md says, and a client reads what a newer worker adds to it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.wire import answers
from bus.wire.codec import ok_frame

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")

STRUCTS = [
    kind
    for name, kind in vars(answers).items()
    if name in answers.__all__ and inspect.isclass(kind) and issubclass(kind, msgspec.Struct)
]

MESSAGE = {
    "seq": 7,
    "id": "01900000-0000-7000-8000-000000000001",
    "sender_bot_id": "01900000-0000-7000-8000-000000000002",
    "sender_bot_name": "ann",
    "recipient": {"type": "channel", "name": "news"},
    "message_type": "message",
    "body": {"n": 1},
    "reply_to": None,
    "headers": {"k": "v"},
    "timestamp": "2026-01-01T00:00:00.000000Z",
}

TAINTED = MESSAGE | {"tainted": True, "priority": "high"}

BOT = {
    "id": "01900000-0000-7000-8000-000000000002",
    "name": "ann",
    "online": True,
    "sessions": 1,
    "created_at": "2026-01-01T00:00:00.000000Z",
    "last_seen_at": "2026-01-02T00:00:00.000000Z",
    "backlog": 3,
    "in_flight": 2,
    "dead": 0,
    "will": {
        "id": "01900000-0000-7000-8000-000000000003",
        "recipient": {"type": "channel", "name": "alarms"},
        "delay": 5.0,
        "due_at": None,
    },
}

HELD = {
    "state": "in_flight",
    "attempts": 2,
    "failures": 1,
    "session": "01900000-0000-7000-8000-000000000009",
    "held_by": "ann",
    "since": "2026-01-01T00:00:00.000000Z",
    "deadline": "2026-01-01T00:00:30.000000Z",
}
OF_BOT = HELD | {"bot_id": BOT["id"], "bot": "ann"}
OF_GROUP = {
    "state": "dead",
    "attempts": 5,
    "bot_id": None,
    "bot": None,
    "group": "team",
    "channel": "news",
    "reason": "max_deliver",
    "given_up_at": "2026-01-01T00:00:00.000000Z",
}
MAILBOX = {
    "name": "ann",
    "bot_id": BOT["id"],
    "channel": None,
    "group": None,
    "position": 7,
    "sessions": 1,
    "free": 3,
    "paused": ["secret"],
    "counts": {"waiting": 1, "in_flight": 2, "parked": 1, "returned": 1, "delayed": 1, "dead": 0},
    "oldest_at": "2026-01-01T00:00:00.000000Z",
    "messages": [
        HELD | {"message": MESSAGE, "expires_at": "2026-01-02T00:00:00.000000Z"},
        {"state": "in_flight", "attempts": 1, "session": "s", "held_by": "ann", "since": "t", "parked": True}
        | {"message": MESSAGE},
        {"state": "returned", "attempts": 1, "due_at": "2026-01-02T00:00:00.000000Z", "message": MESSAGE},
    ],
    "more": True,
}
SESSION = {
    "id": "01900000-0000-7000-8000-000000000009",
    "bot_id": BOT["id"],
    "bot": "ann",
    "since": "2026-01-01T00:00:00.000000Z",
    "last_heard_at": "2026-01-01T00:00:01.000000Z",
    "client": "posthouse-python/0.1",
    "credit": 100,
    "in_flight": 2,
    "parked": 1,
    "in_flight_bytes": 300,
    "key": "php_old",
    "address": "127.0.0.1",
    "read_only": True,
}
DEAD = {"seq": 7, "reason": "max_deliver", "attempts": 5, "at": "2026-01-01T00:00:00.000000Z", "message": MESSAGE}

KEY = {
    "public_key": "php_old",
    "bot_id": BOT["id"],
    "bot_name": "ann",
    "purpose": "bot",
    "roles": ["ops"],
    "label": "laptop",
    "created_at": "2026-01-01T00:00:00.000000Z",
    "created_by": None,
    "expires_at": "2026-01-01T00:00:00.000000Z",
    "revoked_at": None,
    "replaced_by": "php_new",
    "last_used_at": None,
    "sessions": 1,
}

EVENT = {
    "id": 3,
    "at": "2026-01-01T00:00:00.000000Z",
    "event": "limit_reached",
    "bot_id": BOT["id"],
    "bot": "ann",
    "key": None,
    "address": None,
    "object": None,
    "detail": "busy",
    "times": 4,
    "damaged": False,
}

VALUES: list[tuple[Any, dict[str, Any]]] = [
    (answers.BotList, {"bots": [BOT]}),
    (
        answers.ChannelList,
        {
            "channels": [
                {
                    "name": "news",
                    "created_at": "2026-01-01T00:00:00.000000Z",
                    "created_by_bot_id": BOT["id"],
                    "subscribers": 1,
                    "messages": 7,
                    "groups": [
                        {"group": "team", "members": 2, "backlog": 0, "in_flight": 0, "dead": 1, "sessions": 3}
                    ],
                }
            ]
        },
    ),
    (
        answers.SubscriptionList,
        {
            "subscriptions": [
                {
                    "bot_id": BOT["id"],
                    "bot": "ann",
                    "channel_name": "news",
                    "subscribed_at": "2026-01-01T00:00:00.000000Z",
                    "start_seq": 4,
                    "echo": False,
                    "group": None,
                    "pattern": None,
                }
            ]
        },
    ),
    (answers.HistoryPage[answers.KeptMessage], {"messages": [MESSAGE], "more": False}),
    (answers.FoundMessage, {"message": MESSAGE, "mailboxes": [OF_BOT, OF_GROUP]}),
    (
        answers.FoundMessage,
        {
            "message": MESSAGE | {"seq": None, "timestamp": None},
            "mailboxes": [],
            "due_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2026-01-01T00:00:00.000000Z",
        },
    ),
    (answers.MailboxContents, MAILBOX),
    (answers.SessionList, {"sessions": [SESSION], "more": True}),
    (
        answers.DeadLetterList[answers.ListedDeadLetter],
        {"dead_letters": [DEAD, DEAD | {"message": None}, DEAD | {"message": TAINTED}]},
    ),
    (
        answers.DelayedList[answers.ListedDelayed],
        {
            "messages": [
                {
                    "message": MESSAGE | {"seq": None, "timestamp": None},
                    "due_at": "2026-01-01T00:00:00.000000Z",
                }
            ],
            "more": True,
        },
    ),
    (answers.Retried, {"retried": 2}),
    (answers.SecurityEventList, {"events": [EVENT, EVENT | {"bot_id": None, "bot": None, "damaged": True}]}),
    (
        answers.RemovalList,
        {
            "removals": [
                {
                    "number": 1,
                    "id": "e",
                    "at": "2026-01-01T00:00:00.000000Z",
                    "bot_id": "b",
                    "bot_name": "ops",
                    "reference": None,
                    "erased": {
                        "seqs": [1],
                        "delayed": [{"id": "d", "sender_bot_id": "b"}],
                        "runs": ["r"],
                        "runs_left": ["s"],
                        "again": True,
                        "values": [{"kv": "settings", "revision": 3}],
                    },
                    "scrubbed_at": None,
                    "damaged": False,
                    "removed": None,
                    "part_of": None,
                }
            ],
            "more": True,
        },
    ),
    (answers.SubscriptionStart, {"channel": "news", "start_seq": 4, "created": True}),
    (answers.SubscriptionStart, {"channel": "news", "start_seq": 4, "created": False, "group": "team"}),
    (answers.SubscriptionStart, {"channel": "orders.*", "start_seq": 4, "created": True, "channels": 2}),
    (
        answers.SubscriptionList,
        {
            "subscriptions": [],
            "patterns": [
                {
                    "bot_id": BOT["id"],
                    "bot": "ann",
                    "pattern": "orders.*",
                    "subscribed_at": "2026-01-01T00:00:00.000000Z",
                    "start_seq": 4,
                    "echo": False,
                    "group": "team",
                    "channels": 2,
                }
            ],
        },
    ),
    (answers.SubscriptionStart, {"channel": "news", "start_seq": 4, "created": True, "retained": MESSAGE}),
    (answers.SubscriptionEnd, {"removed": True}),
    (answers.CommitAnswer, {"seqs": [57, None]}),
    (answers.KeyList, {"keys": [KEY], "more": True}),
    (
        answers.KeyAdded,
        {
            "public_key": "php_new",
            "bot_id": BOT["id"],
            "bot_name": "ann",
            "expires_at": None,
            "replaced_until": "2026-01-01T00:00:00.000000Z",
        },
    ),
    (answers.KeysRevoked, {"revoked": 2, "sessions": 1}),
    (answers.MayAnswer, {"allowed": True, "rule": 'security.roles.member.publish "**"'}),
    (answers.Reloaded, {"changed": ["security.roles"], "restart": ["limits.sessions_max"]}),
    (answers.Enrolled, {"bot_id": BOT["id"], "bot_name": "ann"}),
    (
        answers.WorkerStatus,
        {
            "started_at": "2026-01-01T00:00:00.000000Z",
            "uptime_seconds": 12.5,
            "epoch": "e",
            "last_seq": 7,
            "log_ahead_seconds": 0.0,
            "sessions": 1,
            "bots": 1,
            "channels": 1,
            "counters": {"published": 7},
            "rates": {"published": 0.7},
            "rate_limited": [{"sender": "ann", "recipient": None, "times": 2, "last_at": "t"}],
            "sizes": {"database_bytes": 4096},
            "versions": {"posthouse": "0.1.0"},
        },
    ),
    (
        answers.WorkerStatus,
        {
            "started_at": "2026-01-01T00:00:00.000000Z",
            "uptime_seconds": 12.5,
            "epoch": "e",
            "last_seq": 7,
            "log_ahead_seconds": 0.0,
            "sessions": 1,
            "bots": 1,
            "channels": 1,
            "counters": {"published": 7},
            "rates": {"published": 0.7},
            "rate_limited": [{"sender": "ann", "recipient": None, "times": 2, "last_at": "t"}],
            "sizes": {"database_bytes": 4096},
            "versions": {"posthouse": "0.1.0"},
            "leads": {"worker_id": "w", "fence": 3, "since": "t", "standing_by": 2, "url": "tcp://a:7710"},
            "fault": "storage_full",
            "backlog_messages_max": 100_000,
            "earlier": [{"epoch": "d", "through_seq": 5}],
            "storage": "low",
            "undefined_roles": ["billing"],
        },
    ),
]


NOT_STRUCTS = {"published", "database_bytes", "posthouse", "k", "type", "n"}
"""Keys of the objects above that have values of one kind by name: counters, headers, a body."""


def name_of(value: Any) -> str:
    return "" if isinstance(value, dict) else str(getattr(value, "__name__", value)).rpartition(".")[2]


def grown(value: Any) -> Any:
    """Return a value in which every object has a field that nobody knows here."""
    if isinstance(value, list):
        return [grown(each) for each in value]
    if isinstance(value, dict) and not value.keys() & NOT_STRUCTS:
        return {"of_a_later_version": [1]} | {name: grown(each) for name, each in value.items()}
    return value


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=name_of)
def test_an_answer_is_the_same_json_on_both_ends(kind: Any, value: dict[str, Any]) -> None:
    answer = msgspec.convert(value, kind)
    assert ok_frame(3, answer) == msgspec.json.encode({"op": "ok", "request": 3, "value": value})


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=name_of)
def test_what_a_newer_worker_adds_is_ignored(kind: Any, value: dict[str, Any]) -> None:
    written = msgspec.json.encode(grown(value))
    assert b"of_a_later_version" in written
    assert msgspec.json.decode(written, type=kind) == msgspec.convert(value, kind)


def test_messages_that_are_json_already_are_written_as_they_are() -> None:
    raw = msgspec.Raw(msgspec.json.encode(MESSAGE))
    page = ok_frame(1, answers.HistoryPage([raw], more=True))
    dead = ok_frame(1, answers.DeadLetterList([answers.DeadLetterAnswer(7, "r", 5, "t", raw)]))
    assert msgspec.json.decode(page)["value"] == {"messages": [MESSAGE], "more": True}
    assert msgspec.json.decode(dead)["value"]["dead_letters"][0]["message"] == MESSAGE


def test_fields_are_read_by_name_as_well() -> None:
    [dead] = msgspec.convert(
        {"dead_letters": [DEAD]}, answers.DeadLetterList[answers.ListedDeadLetter]
    ).dead_letters
    assert (dead["seq"], dead["message"]["body"]) == (dead.seq, {"n": 1})
    assert (dead.get("reason"), dead.get("nothing"), dead.get("keys", 3)) == ("max_deliver", None, 3)
    assert dict(dead) == {name: getattr(dead, name) for name in dead} == {**dead}
    assert list(dead.keys()) == ["seq", "reason", "attempts", "at", "message"]
    for name in ("nothing", "keys", "__class__"):
        with pytest.raises(KeyError, match=name):
            dead[name]


@pytest.mark.parametrize("kind", STRUCTS, ids=name_of)
def test_the_page_of_the_wire_names_every_field(kind: type[msgspec.Struct]) -> None:
    assert {name for name in kind.__struct_encode_fields__ if not re.search(rf'[`"]{name}[`"]', PAGE)} == set()


def test_every_answer_is_tried() -> None:
    tried = {field for _, value in VALUES for field in re.findall(r'"(\w+)":', msgspec.json.encode(value).decode())}
    assert {name for kind in STRUCTS for name in kind.__struct_encode_fields__} <= tried
