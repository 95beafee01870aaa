"""Frames as nobody should send them: valid ones of every op, and what chance makes of them.

Owns the valid frames, the mutations, and a writer of JSON that can also write what is none: a name twice, NaN,
half a surrogate pair, numbers that no machine has. All of it comes from one source of chance, so that a seed, a
property test and a fuzzer can each drive it.

Pure.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from bus.wire.calls import CALLS
from bus.wire.keys import public_text

__all__ = ["CLIENT_FRAMES", "WORKER_FRAMES", "Token", "mutated", "nonsense", "write"]

ID = "00000000-0000-7000-8000-%012x"
TIME = "2026-01-01T00:00:00.000000Z"

_KEY = public_text(bytes(range(32)))

Chance = random.Random


class Token(bytes):
    """Bytes that stand in a frame as they are, where a value would."""


class Pairs(list[tuple[Any, Any]]):
    """An object that may have a name twice."""


# ── Valid frames ─────────────────────────────────────────────────────────────────────────────────────────


def _message(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": ID % number, "recipient": {"type": "channel", "name": "news"}, "body": {"n": number}, **fields}


def _stored(seq: int, **fields: Any) -> dict[str, Any]:
    return {
        "seq": seq, "id": ID % seq, "sender_bot_id": ID % 1, "sender_bot_name": "a",
        "recipient": {"type": "direct", "bot_id": ID % 2}, "message_type": "message", "body": [1, {"a": None}],
        "reply_to": None, "headers": {"trace": "1"}, "timestamp": TIME, **fields,
    }  # fmt: skip


_DIRECT = {"type": "direct", "bot": "b"}
_STEP = {
    "id": ID % 50, "run_id": "run-1", "step_id": "fetch", "step_name": "Fetch", "status": "completed",
    "attempt": 1, "input": {"url": "x"}, "output": [1, 2], "started_at": TIME, "completed_at": TIME,
}  # fmt: skip
_DEFINITION = {
    "id": "def-1", "name": "digest", "version": "1.0.0", "owner": {"type": "global"}, "concurrency": 2,
    "triggers": [{"type": "cron", "schedule": "* * * * *"}, {"type": "manual"}],
    "steps": [{"id": "s", "name": "S", "type": "code", "depends_on": [], "config": {"type": "code", "code": "1"}}],
    "metadata": {"a": 1},
}  # fmt: skip
_RUN = {
    "id": "run-1", "workflow_id": "def-1", "workflow_name": "digest", "trigger_type": "manual",
    "started_at": TIME, "context": {"v": 1}, "trigger_payload": {"x": [1]}, "concurrency_key": "k",
}  # fmt: skip
_SCHEDULE = {
    "id": "sched-1", "workflow_id": "def-1", "times": {"type": "cron", "line": "30 2 * * *", "timezone": "UTC"},
    "input": {"x": 1}, "attributes": {"team": "a"}, "overlap": "queue",
}  # fmt: skip
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "save_definition": {"definition": _DEFINITION},
    "offer_definition": {"definition": _DEFINITION},
    "create_run": {"run": _RUN},
    "create_step_log": {"step": {**_STEP, "status": "running"}, "fence": 1},
    "update_run_status": {"run_id": "run-1", "status": "running", "context": {"v": 2}, "fence": 1},
    "update_step_status": {"step_id": ID % 50, "status": "completed", "output": {"x": 1}},
    "claim_run": {"run_id": "run-1", "lease_seconds": 5.0, "claim_id": ID % 60},
    "open_run": {"opening": {"run_id": "run-1", "workflow": "digest", "input": {"x": 1}, "claim_id": ID % 61}},
    "renew_run": {"run_id": "run-1", "fence": 1, "lease_seconds": 5.0},
    "release_run": {"run_id": "run-1", "fence": 1},
    "get_definition_by_name": {"name": "digest", "owner": {"type": "global"}},
    "get_definition": {"definition_id": "def-1"},
    "delete_definition": {"definition_id": "def-1", "cascade": True},
    "list_definitions": {"owner": {"type": "bot", "bot_id": ID % 1, "slug": "a"}, "limit": 10, "offset": 1},
    "list_runs": {"workflow_id": "def-1", "limit": 10},
    "list_crashed_runs": {"limit": 5},
    "retry_run": {"run_id": "run-1", "from_step": "fetch"},
    "fork_run": {"run_id": "run-1", "new_id": "run-2", "before_step": "fetch"},
    "get_step_log": {"step_id": ID % 50},
    "page_step_logs": {"run_id": "run-1", "after": ID % 50},
    "send_signal": {"run_id": "run-1", "name": "paid", "payload": {"x": [1]}, "id": ID % 80},
    "cancel_run": {"run_id": "run-1", "reason": "later", "grace_seconds": 5.0},
    "list_signals": {"run_id": "run-1", "names": ["paid"], "limit": 5},
    "take_signal": {"step": {**_STEP, "status": "pending"}, "names": ["paid"], "until": TIME, "fence": 1},
    "kv_put": {"kv": "settings", "key": "a/b", "value": {"x": [1]}, "id": ID % 81, "expected": 3, "ttl": 60.0},
    "kv_delete": {"kv": "settings", "key": "a/b", "id": ID % 82, "expected": 4},
    "kv_get": {"kv": "settings", "key": "a/b"},
    "kv_list": {"kv": "settings", "prefix": "a/", "after": "a/a", "limit": 10},
    "kv_changes": {"kv": "settings", "prefix": "a/", "after": 5, "limit": 10, "wake": True},
    "kv_stores": {"after": "a", "limit": 10},
    "retained": {"channel": "news"},
    "save_schedule": {"schedule": _SCHEDULE},
    "get_schedule": {"schedule_id": "sched-1"},
    "list_schedules": {"workflow_id": "def-1", "limit": 5},
    "get_schedule_times": {"schedule_id": "sched-1", "count": 3},
    "pause_schedule": {"schedule_id": "sched-1", "paused": False},
    "delete_schedule": {"schedule_id": "sched-1"},
    "list_open_runs": {"workflow": "digest", "resting": True, "run_ids": ["run-1"], "limit": 5},
    "emit_run": {"run_id": "run-1", "value": {"x": 1}},
    "count_runs": {"where": {"status": "failed"}},
    "list_all_runs": {"limit": 10, "offset": 0, "status": "running"},
}


def _calls() -> list[dict[str, Any]]:
    frames = []
    for number, method in enumerate(CALLS):
        arguments = _ARGUMENTS.get(method, {"run_id": "run-1"})
        frames.append({"op": "workflow", "request": number, "call": method, "arguments": arguments})
    return frames


CLIENT_FRAMES: list[dict[str, Any]] = [
    {"op": "hello", "request": 1, "protocol": 1, "bot": "a", "max_in_flight": 10, "client": "fuzz/1"},
    {"op": "hello", "request": 1, "protocol": 1, "bot": "c", "bot_id": ID % 9},
    {"op": "ping"},
    {"op": "goodbye", "request": 2},
    {"op": "will", "request": 2, "message": _message(9), "delay": 2.5},
    {"op": "will", "request": 2, "message": None},
    {"op": "publish", "request": 3, "messages": [_message(1), _message(2, recipient=_DIRECT, body="x")]},
    {"op": "publish", "request": 4, "messages": [_message(3, ttl=5, expects_reply=True, headers={"h": "v"})]},
    {"op": "publish", "request": 5, "messages": [_message(4, delay=2, reply_to=ID % 3, message_type="answer")]},
    {"op": "publish", "request": 5, "messages": [_message(6, hops=1, deadline=9.5), _message(7, reply_to=ID % 6)]},
    {"op": "publish", "request": 5, "messages": [_message(5, recipient={"type": "direct", "bot_id": ID % 2})]},
    {"op": "commit", "request": 6, "id": ID % 70, "messages": [_message(6)], "acks": [1]},
    {"op": "commit", "request": 7, "id": ID % 71, "run_id": "run-1", "fence": 1, "steps": [_STEP],
     "context": {"v": 3}, "status": "completed", "error": None},
    {"op": "commit", "request": 7, "id": ID % 72, "run_id": "run-1", "fence": 1, "status": "completed",
     "result": {"v": 3}, "signals": [{"id": ID % 81, "run_id": "run-2", "name": "paid", "payload": 1}]},
    {"op": "commit", "request": 7, "id": ID % 73,
     "values": [{"kv": "s", "key": "a", "value": 1, "expected": 2}, {"kv": "s", "key": "b", "kind": "deleted"}]},
    {"op": "subscribe", "request": 8, "channel": "news", "echo": True},
    {"op": "subscribe", "request": 9, "channel": "work", "group": "team", "start": "all"},
    {"op": "subscribe", "request": 9, "channel": "news", "start": {"seq": 2}},
    {"op": "subscribe", "request": 9, "channel": "news", "start": {"time": TIME}},
    {"op": "part", "request": 9, "upload": ID % 80, "offset": 0, "total": 2, "data": "e30="},
    {"op": "whole", "request": 9, "upload": ID % 80},
    {"op": "read_part", "request": 9, "of": 8, "offset": 0},
    {"op": "unsubscribe", "request": 10, "channel": "news"},
    {"op": "ack", "seqs": [1, 2], "request": 11},
    {"op": "ack", "seqs": [1]},
    {"op": "nak", "seqs": [1], "delay": 1, "release": True, "request": 12},
    {"op": "term", "seqs": [1], "reason": "no", "request": 13},
    {"op": "extend", "seqs": [1], "request": 14},
    {"op": "extend", "seqs": [1], "progress": True},
    {"op": "park", "seqs": [1, 2]},
    {"op": "credit", "max_in_flight": 3, "request": 15},
    {"op": "history", "request": 16, "between": ["a", "b"], "limit": 10, "before_seq": 4},
    {"op": "history", "request": 16, "channel": "news"},
    {"op": "history", "request": 16, "thread": ID % 3},
    {"op": "message", "request": 17, "id": ID % 1},
    {"op": "bots", "request": 18},
    {"op": "channels", "request": 19},
    {"op": "subscriptions", "request": 20, "bot": "a"},
    {"op": "subscriptions", "request": 20, "channel": "news"},
    {"op": "dead_letters", "request": 21, "bot": "a", "limit": 5},
    {"op": "events", "request": 21, "after": 3, "limit": 10},
    {"op": "audit", "request": 21, "bot": "a", "event": "refused", "since": "2026-01-01T00:00:00Z", "after": 3},
    {"op": "retry_dead_letters", "request": 22, "bot": "a", "seqs": [1]},
    {"op": "message", "request": 22, "seq": 3},
    {"op": "mailbox", "request": 22, "bot": "a", "after_seq": 1, "limit": 5},
    {"op": "sessions", "request": 22, "bot": "a", "after": ID % 4, "limit": 5},
    {"op": "status", "request": 23},
    {"op": "search", "request": 23, "text": "a", "after": "messages:0"},
    {"op": "search", "request": 23, "body": {"path": ["a", "b"], "value": "c"}},
    {"op": "search", "request": 23, "header": ["a", "b"]},
    {"op": "search", "request": 23, "id": ID % 1, "sender": "a"},
    {"op": "erase", "request": 23, "id": ID % 4, "seqs": [1], "runs": ["r"], "reference": "x",
     "delayed": [{"id": ID % 5, "sender_bot_id": ID % 6}]},
    {"op": "remove", "request": 23, "id": ID % 4, "what": {"kind": "dead_letters", "mailbox": "a", "seqs": [1]}},
    {"op": "remove", "request": 23, "id": ID % 5, "what": {"kind": "backlog", "mailbox": "news/team"},
     "reference": "x", "dry_run": True},
    {"op": "remove", "request": 23, "id": ID % 6, "what": {"kind": "delayed", "ids": [ID % 5], "bot": "a"}},
    {"op": "remove", "request": 23, "id": ID % 7, "what": {"kind": "subscription", "bot": "a", "channel": "news"}},
    {"op": "remove", "request": 23, "id": ID % 8, "what": {"kind": "group", "channel": "news", "group": "team"},
     "force": True},
    {"op": "remove", "request": 23, "id": ID % 9, "what": {"kind": "bot", "bot": "b"}},
    {"op": "remove", "request": 23, "id": ID % 10, "what": {"kind": "channel", "channel": "news"}, "force": True},
    {"op": "delayed", "request": 23, "sender": "a", "after": ["2026-01-01T00:00:00Z", ID % 1, ID % 2], "limit": 5},
    {"op": "removals", "request": 23, "after": 1, "limit": 5},
    {"op": "scrub", "request": 23},
    {"op": "compact", "request": 23, "dry_run": False},
    {"op": "keys", "request": 24, "bot": "a", "limit": 5},
    {"op": "add_key", "request": 25, "bot": "a", "public_key": _KEY, "purpose": "bot", "roles": ["ops"],
     "label": "l", "expires_seconds": 9, "replaces": _KEY, "grace_seconds": 1},
    {"op": "revoke_key", "request": 26, "bot": "a", "public_key": _KEY},
    {"op": "enrol", "request": 27, "public_key": _KEY},
    {"op": "may", "request": 28, "bot": "a", "action": "publish", "object": "news"},
    {"op": "reload", "request": 29},
    *_calls(),
]  # fmt: skip
"""Frames of every op that a client may send, and every workflow call."""

WORKER_FRAMES: list[dict[str, Any]] = [
    {"op": "welcome", "request": 1, "protocol": 1, "worker": "posthouse/1", "session": ID % 80, "epoch": ID % 81,
     "bot": "a", "bot_id": ID % 1, "max_in_flight": 100, "max_publish_in_flight": 4096, "heartbeat": 5.0,
     "session_timeout": 15.0, "ack_wait": 30.0, "max_deliver": 5, "max_frame_bytes": 1048576,
     "max_body_bytes": 262144, "last_seq": 0},
    {"op": "pong", "last_seq": 3},
    {"op": "published", "request": 3, "seqs": [1, None, None], "duplicates": [0], "scheduled": [1],
     "errors": [{"index": 2, "code": "rate_limited", "message": "slow", "retry_after": 1.5}]},
    {"op": "deliver", "messages": [_stored(1, attempt=1), _stored(2, attempt=2, group="team")]},
    {"op": "ok", "request": 4, "value": {"channel": "news", "start_seq": 1, "created": True}},
    {"op": "ok", "request": 4},
    {"op": "error", "request": 5, "code": "bad_request", "message": "no", "retry": False, "details": {"a": [1]}},
    {"op": "closing"},
    {"op": "gap", "from_seq": 1, "to_seq": 4, "reason": "retention"},
    {"op": "wake", "runs": ["run-1"]},
    {"op": "kv_changed", "kv": ["settings"]},
    {"op": "subscription_ended"},
    {"op": "in_parts", "request": 4, "total": 2000000},
]  # fmt: skip
"""Frames of every op that a worker may send."""


# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────


def write(value: Any) -> bytes:
    """Write a value as JSON, and tokens as they are."""
    match value:
        case Token():
            return bytes(value)
        case Pairs():
            return b"{" + b",".join(write(name) + b":" + write(item) for name, item in value) + b"}"
        case dict():
            return write(Pairs(value.items()))
        case list() | tuple():
            return b"[" + b",".join(map(write, value)) + b"]"
        case _:
            return json.dumps(value).encode()


# ── Mutations ────────────────────────────────────────────────────────────────────────────────────────────

_ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 2**31, 2**53, 2**53 - 1, 2**63, 2**64, 10**30, 0.5, -0.0, 1e300, 5e-324,
    "", "a", "b", "news", "x" * 129, "\x00", "\ud800", "\U0001f600", "1", TIME, "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z", "2026-01-01T00:00:00", ID % 1, ID % 3, "team", "run-1", "new", "all",
    [], {}, [[]], [None], {"": None}, {"type": "direct"}, {"type": "channel", "name": "work"}, [1, 1], [0],
    Token(b"NaN"), Token(b"Infinity"), Token(b"-Infinity"), Token(b"1e999"), Token(b"-1e999"), Token(b"01"),
    Token(b"9" * 400), Token(b"-" + b"9" * 5000), Token(b'"\xff"'), Token(b'"\xed\xa0\x80"'), Token(b'"\\udc00"'),
    Token(b'{"\\ud800":1}'), Token(b'"\\u12"'), Token(b""), Token(b"[" * 90 + b"]" * 90),
    Token(b"[" * 3000 + b"]" * 3000), Token(b'{"a":' * 3000 + b"1" + b"}" * 3000), Token(b"[" * 3000),
    Token(b"1.0"), Token(b"1E2"), Token(b"86400000000"), Token(b"3.2e8"), Token(b"\xef\xbb\xbf1"),
]  # fmt: skip

_BYTES = [b"", b"\x00", b"\xff", b'"', b"\\", b"\\u", b"\\ud800", b"[", b"]", b"{", b"}", b",", b":", b"e", b"-"]


def _containers(value: Any) -> list[Any]:
    found = [value] if isinstance(value, dict | list) else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        found += _containers(item)
    return found


def _odd(chance: Chance) -> Any:
    return copy.deepcopy(chance.choice(_ODD))  # it may be changed in its turn


def _nested(value: Any, chance: Chance) -> Token:
    depth = chance.choice([1, 2, 50, 98, 99, 100, 101, 200, 1000, 5000])
    if chance.random() < 0.5:
        return Token(b"[" * depth + write(value) + b"]" * depth)
    return Token(b'{"a":' * depth + write(value) + b"}" * depth)


def _replace(place: Any, key: Any, chance: Chance) -> None:
    place[key] = _odd(chance)


def _remove(place: Any, key: Any, chance: Chance) -> None:
    del place[key]


def _wrap(place: Any, key: Any, chance: Chance) -> None:
    place[key] = _nested(place[key], chance)


def _add(place: Any, key: Any, chance: Chance) -> None:
    if isinstance(place, dict):
        place[chance.choice(["op", "request", "extra", "", "type", "\ud800", "bot", "seqs", "id"])] = _odd(chance)
    else:
        place.insert(key, _odd(chance))


def _repeat(place: Any, key: Any, chance: Chance) -> None:
    if isinstance(place, list):
        place.extend([place[key]] * chance.choice([1, 2, 40]))


_STRUCTURAL: list[Callable[[Any, Any, Chance], None]] = [
    _replace,
    _replace,
    _replace,
    _remove,
    _wrap,
    _add,
    _repeat,
]


def _with_a_name_twice(frame: Any, chance: Chance) -> Any:
    if not isinstance(frame, dict) or not frame:
        return frame
    pairs = Pairs(frame.items())
    name, value = chance.choice(pairs)
    pairs.insert(chance.randrange(len(pairs) + 1), (name, chance.choice([value, _odd(chance)])))
    return pairs


def _damaged(raw: bytes, chance: Chance) -> bytes:
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(raw) + 1)
        end = min(len(raw), start + chance.choice([0, 0, 1, 1, 2, 8]))
        raw = raw[:start] + chance.choice(_BYTES) + raw[end:]
    return raw


def mutated(frame: dict[str, Any], chance: Chance) -> bytes:
    """Give a frame with some of it changed: values, names, nesting, and now and then the bytes themselves."""
    value: Any = json.loads(json.dumps(frame))
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        place = chance.choice(_containers(value))
        if place:
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
            chance.choice(_STRUCTURAL)(place, key, chance)
    if chance.random() < 0.1:
        value = _with_a_name_twice(value, chance)
    raw = write(value)
    return _damaged(raw, chance) if chance.random() < 0.15 else raw


def nonsense(frame: dict[str, Any], chance: Chance) -> bytes:
    """Give a frame with the right names and anything at all as their values."""
    return write({name: item if name == "op" else _odd(chance) for name, item in frame.items()})
