"""Frames and answers in parts on the wire."""

from __future__ import annotations

import base64
import json

from .test_wire_workflows import Caller
from .wire import FRAME_BYTES_MAX, Frame, Session, new_id
from .wire_worker import Worker


def send_in_parts(session: Session, frame: Frame, part_bytes: int = 700_000) -> Frame:
    """Send a frame in parts, and give the answer to it."""
    data, upload = json.dumps(frame).encode(), new_id()
    for offset in range(0, len(data), part_bytes):
        part = data[offset : offset + part_bytes]
        value = session.value(
            "part", upload=upload, offset=offset, total=len(data), data=base64.b64encode(part).decode()
        )
        assert value == {"received": offset + len(part)}
    request = session.request_number()
    session.send(op="whole", request=request, upload=upload)
    while (answer := session.receive())["op"] not in ("ok", "error", "in_parts"):
        pass
    assert answer["request"] == request
    return answer


def read_in_parts(session: Session, answer: Frame) -> Frame:
    """Read an answer in parts."""
    data = b""
    while len(data) < answer["total"]:
        value = session.value("read_part", of=answer["request"], offset=len(data))
        data += base64.b64decode(value["data"])
    frame: Frame = json.loads(data)
    assert session.code("read_part", of=answer["request"], offset=0) == "not_found"
    return frame


def test_what_is_larger_than_a_frame_is_written_and_read_in_parts(shared: Worker, name: str) -> None:
    session, old = shared.session(name, parts=True), shared.session(f"{name}-old")
    caller, other = Caller(session, name), Caller(old, name)
    id = caller.prepare()
    log = caller.log(status="completed", output="ü" * FRAME_BYTES_MAX)
    frame = {"op": "workflow", "request": 0, "call": "create_step_log", "arguments": {"step": log}}
    answer = send_in_parts(session, frame)
    assert answer["op"] == "in_parts"
    written = read_in_parts(session, answer)
    assert (written["op"], written["value"]["output"]) == ("ok", log["output"])
    answer = session.ask("workflow", answer="in_parts", call="page_step_logs", arguments={"run_id": id})
    assert read_in_parts(session, answer)["value"] == {"steps": [written["value"]], "more": False}
    error = other.refusal("page_step_logs", run_id=id)
    assert error["code"] == "too_large"
    assert "this client does not read answers in parts" in error["message"]

    commit = {"op": "commit", "request": 0, "id": new_id(), "messages": [], "context": "x" * FRAME_BYTES_MAX}
    fence = caller.value("claim_run", run_id=id)["fence"]
    assert send_in_parts(session, {**commit, "run_id": id, "fence": fence})["op"] == "ok"
    session.ask("workflow", answer="in_parts", call="release_run", arguments={"run_id": id, "fence": fence})
    error = other.refusal("claim_run", run_id=id)
    assert (error["code"], caller.value("get_lease", run_id=id)) == ("too_large", None)


def test_parts_that_fit_nowhere_are_refused(shared: Worker, name: str) -> None:
    session = shared.session(name, parts=True)
    upload = new_id()
    assert session.code("part", upload=upload, offset=5, total=9, data="e30=") == "not_found"
    assert session.code("whole", upload=upload) == "not_found"
    assert session.code("part", upload=upload, offset=0, total=10**9, data="e30=") == "too_large"
    assert session.value("part", upload=upload, offset=0, total=4, data="e30=") == {"received": 2}
    assert session.code("whole", upload=upload) == "bad_request"
    error = send_in_parts(session, {"op": "ping"})
    assert (error["code"], "workflow and commit" in error["message"]) == ("bad_request", True)
    assert send_in_parts(session, {"op": "workflow"})["code"] == "bad_request"


def test_a_run_whose_history_is_larger_than_a_frame_is_opened_without_it(shared: Worker, name: str) -> None:
    session, old = shared.session(name, parts=True), shared.session(f"{name}-old")
    caller, other = Caller(session, name), Caller(old, name)
    id = caller.prepare()
    log = caller.log(status="completed", output="ü" * FRAME_BYTES_MAX)
    send_in_parts(session, {"op": "workflow", "request": 0, "call": "create_step_log", "arguments": {"step": log}})
    opened = other.value("open_run", opening={"run_id": id, "workflow": name})
    assert (opened["claim"]["run"]["id"], opened["claim"]["fence"]) == (id, 1)
    assert (opened["created"], opened["definition"], opened["steps"]) == (False, None, None)
    other.value("release_run", run_id=id, fence=1)
    frame = {"opening": {"run_id": id, "workflow": name}}
    answer = session.ask("workflow", answer="in_parts", call="open_run", arguments=frame)
    whole = read_in_parts(session, answer)["value"]
    assert (whole["claim"]["fence"], whole["definition"]["name"]) == (2, name)
    assert [step["output"] for step in whole["steps"]["steps"]] == [log["output"]]
