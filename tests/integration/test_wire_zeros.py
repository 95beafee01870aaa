"""The character U+0000 on the wire, which not every engine can store: where it may be, and where it is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from ..fuzz.mutations import CLIENT_FRAMES
from .wire import Frame, Session, new_id, to_bot
from .wire_worker import Worker

_MORE_FRAMES = [
    {"op": "workflow", "request": 1, "call": call, "arguments": arguments}
    for call, arguments in {
        "list_all_runs": {
            "where": {"workflow": "w", "concurrency_key": "k", "id_prefix": "p", "attributes": {"a": "b"}},
            "after": "run-1",
        },
        "claim_run": {"run_id": "run-1", "holder": "a", "claim_id": "c"},
        "list_waiting_approvals": {"run_id": "run-1"},
        "update_step_status": {"step_id": "step-1", "status": "failed", "error": "e"},
        "create_step_log": {
            "step": {
                "id": "s", "run_id": "run-1", "step_id": "fetch", "step_name": "F", "status": "failed",
                "attempt": 1, "idempotency_key": "k", "input": "i", "error": "e",
            }
        },
        "emit_run": {"run_id": "run-1", "value": "x", "id": "e"},
    }.items()
]  # fmt: skip

_MAY_HAVE_IT = frozenset(
    {"body", "headers", "header", "text", "value", "input", "output", "context", "payload", "trigger_payload",
     "metadata", "config", "error", "reason", "result", "message_type"}
)  # fmt: skip

_UNUSUAL = frozenset({"hello", "goodbye", "scrub", "part", "whole", "read_part"})
"""Frames that end the session, take long, or belong together."""


def _texts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each text of a frame."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(item, (*path, key))


def _frames() -> Iterator[tuple[str, bool, Frame]]:
    """Yield frames with a zero character in one text: what has it, whether it may, and the frame."""
    for frame in [*CLIENT_FRAMES, *_MORE_FRAMES]:
        if frame["op"] in _UNUSUAL or "request" not in frame:
            continue
        for path in _texts(frame):
            if path[0] in ("op", "call"):
                continue
            changed = copy.deepcopy(frame)
            within = changed
            for key in path[:-1]:
                within = within[key]
            within[path[-1]] += "\0"
            what = f"{frame['op']} {frame.get('call', '')} {'.'.join(map(str, path))}"
            yield what, not _MAY_HAVE_IT.isdisjoint(path), changed


def _code(session: Session, frame: Frame) -> str | None:
    """Return why a frame, or a message of it, was refused."""
    fields = {name: value for name, value in frame.items() if name not in ("op", "request")}
    answer = session.ask(frame["op"], answer="published" if frame["op"] == "publish" else "ok", **fields)
    return answer.get("code") or next((error["code"] for error in answer.get("errors", ())), None)


def test_no_text_with_it_is_stored_or_looked_for(shared: Worker, name: str) -> None:
    session = shared.session(name)
    codes = {what: (may, _code(session, frame)) for what, may, frame in _frames()}
    assert len(codes) > 150
    refusals = {"bad_request", "unknown_bot", "not_found"}
    assert {what: code for what, (may, code) in codes.items() if not may and code not in refusals} == {}
    assert {what: code for what, (may, code) in codes.items() if code == "internal"} == {}
    assert session.publish(to_bot(name, "still served"))


def test_bodies_and_headers_keep_it(shared: Worker, name: str) -> None:
    session = shared.session(name)
    body, headers = {"a\0b": ["\0", f"{name}\0x"]}, {"k\0": "v\0"}
    [seq] = session.publish(to_bot(name, body, headers=headers))
    [message] = session.take(1)
    assert (message["body"], message["headers"]) == (body, headers)
    found = [
        session.value("search", **what)["messages"]
        for what in (
            {"text": f"{name}\0X"},
            {"header": ["k\0", "v\0"]},
            {"body": {"path": ["a\0b"], "value": "\0"}},
        )
    ]
    assert [[pair[0] for pair in pairs if pair[0] == seq] for pairs in found] == [[seq]] * 3


def test_a_type_and_a_reason_keep_it(shared: Worker, name: str) -> None:
    session = shared.session(name)
    [seq] = session.publish(to_bot(name, 1, message_type="\0"))
    assert session.take_one()["message_type"] == "\0"
    assert session.ask("term", seqs=[seq], reason="it\0broke")["op"] == "ok"
    [dead] = session.value("dead_letters")["dead_letters"]
    assert dead["reason"] == "it\0broke"


@pytest.mark.parametrize("value", ["\0", {"a\0": "\0"}])
def test_values_and_the_error_of_a_run_keep_it(shared: Worker, name: str, value: Any) -> None:
    session = shared.session(name)
    run_id = new_id()

    def call(call: str, **arguments: Any) -> Any:
        return session.value("workflow", call=call, arguments=arguments)

    owner = {"type": "bot", "bot_id": session.bot_id, "slug": name}
    definition = {"id": new_id(), "name": name, "version": "1", "owner": owner, "triggers": [{"type": "manual"}]}
    call("save_definition", definition={**definition, "steps": [], "metadata": {"m": value}})
    run = {
        "id": run_id, "workflow_id": definition["id"], "workflow_name": name, "trigger_type": "manual",
        "started_at": "2026-01-01T00:00:00.000000Z", "context": {"c": value},
    }  # fmt: skip
    assert call("create_run", run=run)["context"] == {"c": value}
    call("update_run_status", run_id=run_id, status="failed", error="it\0broke")
    kept = call("get_run", run_id=run_id)
    assert (kept["context"], kept["error"]) == ({"c": value}, "it\0broke")
    assert call("get_definition", definition_id=definition["id"])["metadata"] == {"m": value}
