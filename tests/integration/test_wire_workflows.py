"""Workflow calls on the wire: what each gives, how it is refused, and in which order calls are carried out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .wire import FRAME_BYTES_MAX, ID, TIME, Frame, Session, new_id
from .wire_worker import Worker

STARTED = "2026-01-01T00:00:00.000000Z"

DEFINITION_FIELDS = {
    "id", "name", "owner", "version", "description", "concurrency", "timeout_secs", "triggers", "steps", "metadata",
}  # fmt: skip
STEP_FIELDS = {
    "id", "name", "type", "config", "depends_on", "condition", "timeout_secs", "retry", "ui",
}  # fmt: skip
RUN_FIELDS = {
    "id", "workflow_id", "workflow_name", "status", "trigger_type", "trigger_payload", "context", "started_at",
    "completed_at", "error", "concurrency_key", "result", "parent_run_id", "not_before", "cancel_by", "attributes",
    "continued_as",
}  # fmt: skip
LOG_FIELDS = {
    "id", "run_id", "step_id", "step_name", "status", "attempt", "idempotency_key", "input", "output", "error",
    "started_at", "completed_at",
}  # fmt: skip
SUMMARY_FIELDS = RUN_FIELDS - {"trigger_payload", "context", "result"} | {
    "holder", "fence", "lease_expires_at", "recoveries", "queued_at", "stopped",
}  # fmt: skip


class Caller:
    """A session that makes workflow calls, on things whose names begin with the test's."""

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.name = name

    def ask(self, call: str, **arguments: Any) -> Frame:
        return self.session.ask("workflow", call=call, arguments=arguments)

    def value(self, call: str, **arguments: Any) -> Any:
        frame = self.ask(call, **arguments)
        assert frame["op"] == "ok", f"{call} {arguments} was answered {frame}"
        return frame["value"]

    def refusal(self, call: str, **arguments: Any) -> Frame:
        frame = self.ask(call, **arguments)
        assert frame["op"] == "error", f"{call} {arguments} was answered {frame}"
        return frame

    def definition(self, **fields: Any) -> dict[str, Any]:
        return {"id": self.name, "name": self.name, "owner": {"type": "global"}, **fields}

    def run(self, id: str = "r", **fields: Any) -> dict[str, Any]:
        names = {"id": f"{self.name}-{id}", "workflow_id": self.name, "workflow_name": self.name}
        return {**names, "trigger_type": "manual", "started_at": STARTED, **fields}

    def log(self, id: str = "s", **fields: Any) -> dict[str, Any]:
        log = {"id": f"{self.name}-{id}", "run_id": f"{self.name}-r", "step_id": id, "step_name": id}
        return {**log, **fields}

    def prepare(self, *runs: str, **fields: Any) -> str:
        """Save a definition with these runs; give the id of the first."""
        self.value("save_definition", definition=self.definition(**fields))
        for id in runs or ("r",):
            self.value("create_run", run=self.run(id))
        return f"{self.name}-{(runs or ('r',))[0]}"


@pytest.fixture
def caller(shared: Worker, name: str) -> Caller:
    return Caller(shared.session(name), name)


@pytest.fixture
def other(shared: Worker, name: str) -> Caller:
    return Caller(shared.session(f"{name}-other"), name)


# ── What each call gives ─────────────────────────────────────────────────────────────────────────────────


def test_a_call_names_its_arguments(caller: Caller) -> None:
    request = caller.session.request_number()
    caller.session.send_raw(
        b'{"op":"workflow","request":%d,"call":"get_run","arguments":{"run_id":"nowhere"}}' % request
    )
    assert caller.session.receive_until("ok", request) == {"op": "ok", "request": request, "value": None}
    caller.session.send(op="workflow", request=request + 1, call="list_crashed_runs")
    assert caller.session.receive_until("ok", request + 1)["op"] == "ok"


def test_definitions(caller: Caller) -> None:
    step = {"id": "a", "name": "A", "type": "http", "config": {"type": "http", "url": "x"}}
    assert caller.value("save_definition", definition=caller.definition(steps=[step])) is None
    found = caller.value("get_definition", definition_id=caller.name)
    assert set(found) == DEFINITION_FIELDS
    assert (found["version"], found["owner"], found["triggers"]) == ("1.0.0", {"type": "global"}, [])
    assert found["concurrency"] is None
    assert set(found["steps"][0]) == STEP_FIELDS
    assert found["steps"][0]["config"] == step["config"]
    by_name = {"name": caller.name, "owner": {"type": "global"}}
    assert caller.value("get_definition_by_name", **by_name) == found
    assert found in caller.value("list_definitions", owner={"type": "global"})
    assert found in caller.value("list_definitions")
    owner = {"type": "bot", "bot_id": caller.session.bot_id}
    assert caller.value("list_definitions", owner=owner) == []
    assert caller.value("delete_definition", definition_id=caller.name) is True
    assert caller.value("delete_definition", definition_id=caller.name, cascade=True) is False
    assert caller.value("get_definition", definition_id=caller.name) is None
    assert caller.value("get_definition_by_name", **by_name) is None


def test_runs(caller: Caller) -> None:
    id = caller.prepare()
    run = caller.value("get_run", run_id=id)
    assert set(run) == RUN_FIELDS
    assert (run["status"], run["context"], run["trigger_payload"], run["error"]) == ("pending", {}, None, None)
    assert caller.value("create_run", run=caller.run()) == run
    assert caller.value("create_run", run=run) == run, "what was given may be sent back"
    moved = caller.value("update_run_status", run_id=id, status="failed", error="x", context=[1])
    assert set(moved) == RUN_FIELDS
    assert (moved["status"], moved["error"], moved["context"]) == ("failed", "x", [1])
    assert TIME.fullmatch(moved["completed_at"])
    assert caller.value("list_runs", workflow_id=caller.name) == [moved]
    assert caller.value("list_runs", workflow_id=caller.name, limit=None, offset=1) == []
    [summary] = [each for each in caller.value("list_all_runs", status="failed") if each["id"] == id]
    assert set(summary) == SUMMARY_FIELDS
    assert caller.value("get_run_definition", run_id=id)["id"] == caller.name


def test_steps(caller: Caller) -> None:
    id = caller.prepare()
    log = caller.value("create_step_log", step=caller.log(input={"n": 1}))
    assert set(log) == LOG_FIELDS
    assert (log["status"], log["attempt"], log["output"]) == ("pending", 1, None)
    moved = caller.value("update_step_status", step_id=log["id"], status="completed", output=False, error=None)
    assert (moved["status"], moved["output"], moved["input"]) == ("completed", False, {"n": 1})
    assert caller.value("list_step_logs", run_id=id) == [moved]
    assert caller.value("get_completed_step_ids", run_id=id) == ["s"]
    waiting = caller.value("create_step_log", step=caller.log("w", status="waiting_approval"))
    assert caller.value("list_waiting_approvals", run_id=id) == [waiting]
    assert waiting in caller.value("list_waiting_approvals", limit=None)


def test_holding_a_run(caller: Caller, other: Caller) -> None:
    id = caller.prepare()
    claim = caller.value("claim_run", run_id=id, lease_seconds=60)
    assert set(claim) == {"run", "fence", "expires_at"}
    assert (claim["run"]["status"], claim["fence"]) == ("running", 1)
    assert TIME.fullmatch(claim["expires_at"])
    lease = {"run_id": id, "holder": caller.session.bot_id, "fence": 1, "expires_at": claim["expires_at"]}
    lease |= {"cancel_by": None}
    assert other.value("get_lease", run_id=id) == lease
    renewed = caller.value("renew_run", run_id=id, fence=1, lease_seconds=120)
    assert set(renewed) == set(lease)
    assert renewed["expires_at"] > lease["expires_at"]
    released = caller.value("release_run", run_id=id, fence=1, status="paused")
    assert (set(released), released["status"]) == (RUN_FIELDS, "paused")
    assert other.value("get_lease", run_id=id) is None
    assert other.value("claim_run", run_id=id)["fence"] == 2
    assert other.value("release_run", run_id=id, fence=2)["status"] == "pending"


def test_a_run_is_claimed_for_oneself(caller: Caller, other: Caller) -> None:
    caller.prepare("a", "b")
    for id, holder in (("a", caller.session.bot_id), ("b", caller.name)):
        caller.value("claim_run", run_id=f"{caller.name}-{id}", holder=holder)
        lease = caller.value("get_lease", run_id=f"{caller.name}-{id}")
        assert lease["holder"] == caller.session.bot_id
    for holder in (other.session.bot_id, f"{caller.name}-other", "nobody", ""):
        error = caller.refusal("claim_run", run_id=f"{caller.name}-a", holder=holder)
        assert (error["code"], error["retry"]) == ("forbidden", False)


def test_a_repeated_claim_gives_the_same_fence(caller: Caller, shared: Worker) -> None:
    id = caller.prepare()
    claim = {"run_id": id, "claim_id": new_id(), "lease_seconds": 60}
    assert caller.value("claim_run", **claim)["fence"] == 1
    later = Caller(shared.session(caller.name), caller.name)
    assert later.value("claim_run", **claim)["fence"] == 1
    assert later.refusal("claim_run", **{**claim, "claim_id": new_id()})["code"] == "conflict"


# ── How calls are refused ────────────────────────────────────────────────────────────────────────────────


def test_errors_say_what_they_are(caller: Caller, other: Caller) -> None:
    """The code tells a program what to do; `details` are for one that wants to make the store's error again."""
    name = caller.name
    id = caller.prepare("r", "waits", concurrency=1)
    expires_at = caller.value("claim_run", run_id=id, lease_seconds=60)["expires_at"]
    caller.value("create_step_log", step=caller.log(status="skipped"))
    holder = caller.session.bot_id
    refusals: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
        (
            "update_run_status",
            {"run_id": "nowhere", "status": "paused"},
            "not_found",
            {"error": "not_found", "what": "run", "key": "nowhere"},
        ),
        (
            "update_step_status",
            {"step_id": f"{name}-s", "status": "running"},
            "invalid_transition",
            {"error": "invalid_transition", "what": "step", "key": f"{name}-s", "current": "skipped"}
            | {"wanted": "running"},
        ),
        (
            "delete_definition",
            {"definition_id": name},
            "conflict",
            {"error": "definition_in_use", "definition_id": name, "runs": 2},
        ),
        (
            "claim_run",
            {"run_id": id},
            "conflict",
            {"error": "run_held", "run_id": id, "holder": holder, "expires_at": expires_at},
        ),
        ("create_run", {"run": caller.run(error="x")}, "conflict", {"error": "conflict"}),
        (
            "renew_run",
            {"run_id": id, "fence": 7},
            "fenced",
            {"error": "fenced", "run_id": id, "fence": 7, "status": "running"},
        ),
        (
            "claim_run",
            {"run_id": f"{name}-waits"},
            "busy",
            {"error": "slots_taken", "run_id": f"{name}-waits", "concurrency": 1, "ahead": 0},
        ),
        (
            "claim_run",
            {"run_id": id, "lease_seconds": 0},
            "bad_request",
            {
                "error": "invalid_value",
                "what": "lease_seconds",
                "reason": "must be above 0 and at most 3600, not 0",
            },
        ),
    ]
    for call, arguments, code, details in refusals:
        error = other.refusal(call, **arguments)
        assert (error["code"], error["details"]) == (code, details)
        assert error["retry"] is (code == "busy")
        assert error["message"]


BAD_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("shout", {}, "shout"),
    ("recover_runs", {}, "recover_runs"),
    ("__init__", {}, "__init__"),
    ("", {}, "unknown call"),
    ("get_run", {}, "run_id"),
    ("get_run", {"run_id": 1}, "'run_id'"),
    ("get_run", {"run_id": None}, "'run_id'"),
    ("get_run", {"run_id": "x", "limit": 1}, "limit"),
    ("get_run", {"id": "x"}, "id"),
    ("list_runs", {"workflow_id": "x", "limit": "1"}, "'limit'"),
    ("list_runs", {"workflow_id": "x", "limit": 1.5}, "'limit'"),
    ("list_runs", {"workflow_id": "x", "limit": -1}, "limit"),
    ("list_runs", {"workflow_id": "x", "limit": 2**63}, "limit"),
    ("list_all_runs", {"status": "asleep"}, "'status'"),
    ("list_definitions", {"owner": {"type": "nobody"}}, "'owner'"),
    ("list_definitions", {"owner": {"type": "bot"}}, "bot_id"),
    ("delete_definition", {"definition_id": "x", "cascade": "yes"}, "'cascade'"),
    ("update_run_status", {"run_id": "x", "status": "asleep"}, "'status'"),
    ("update_run_status", {"run_id": "x", "status": "failed", "error": 1}, "'error'"),
    ("update_run_status", {"run_id": "x", "status": "failed", "fence": "1"}, "'fence'"),
    ("update_step_status", {"step_id": "x", "status": "crashed"}, "'status'"),
    ("release_run", {"run_id": "x"}, "fence"),
    ("release_run", {"run_id": "x", "fence": 1.5}, "'fence'"),
    ("claim_run", {"run_id": "x", "lease_seconds": "long"}, "'lease_seconds'"),
    ("claim_run", {"run_id": "x", "claim_id": 1}, "'claim_id'"),
    ("create_run", {"run": {}}, "'run'"),
    ("create_run", {"run": "x"}, "'run'"),
    ("create_run", {"run": {"id": "x", "colour": "red"}}, "colour"),
    ("create_step_log", {"step": {"id": "x", "run_id": "x", "step_id": "x", "step_name": "x", "attempt": "1"}},
     "'attempt' of 'step'"),
    ("save_definition", {"definition": {"id": "x", "name": "x", "owner": {"type": "global"}, "step": []}}, "step"),
    ("save_definition", {"definition": {"id": "x", "name": "x", "owner": {"type": "global"},
                                        "steps": [{"id": "a", "name": "a", "type": "magic", "config": {}}]}},
     "'type' of member 0 of 'steps' of 'definition'"),
    ("save_definition", {"definition": {"id": "x", "name": "x", "owner": {"type": "global"},
                                        "steps": [{"id": "a", "name": "a", "type": "code", "config": {},
                                                   "depends_on": ["b"]}]}},
     "'a' depends on 'b'"),
    ("save_definition", {"definition": {"id": "x", "name": "x", "owner": {"type": "global"},
                                        "triggers": [{"type": "cron"}]}},
     "schedule"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "arguments", "mentions"), BAD_ARGUMENTS, ids=repr)
def test_arguments_are_those_of_the_method(
    caller: Caller, call: str, arguments: dict[str, Any], mentions: str
) -> None:
    error = caller.refusal(call, **arguments)
    assert (error["code"], error["retry"]) == ("bad_request", False)
    assert mentions in error["message"]
    assert "$." not in error["message"]
    assert "`" not in error["message"]
    assert error["details"]["error"] == "invalid_value"
    assert caller.value("get_run", run_id="nowhere") is None, "the session goes on"


NO_ARGUMENTS = {
    "an array": b"[]",
    "null": b"null",
    "a text": b'"run_id"',
    "a byte that is not UTF-8": b'{"run_id":"\xff"}',
    "half a surrogate pair": b'{"run_id":"\\ud800"}',
    "a number out of range": b'{"run_id":"x","status":"running","context":1e999}',
    "a number of 400 digits": b'{"run_id":"x","status":"running","context":' + b"9" * 400 + b"}",
    "101 levels": b'{"run_id":"x","status":"running","context":' + b"[" * 100 + b"]" * 100 + b"}",
    "5000 levels": b'{"run_id":"x","status":"running","context":' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("arguments", NO_ARGUMENTS.values(), ids=NO_ARGUMENTS)
def test_arguments_that_nobody_could_read_back_are_refused(caller: Caller, arguments: bytes) -> None:
    caller.session.send_raw(b'{"op":"workflow","request":77,"call":"update_run_status","arguments":%b}' % arguments)
    error = caller.session.receive_until("ok", 77)
    assert (error["op"], error["code"], error["request"]) == ("error", "bad_request", 77)
    assert caller.value("get_run", run_id="nowhere") is None


def test_values_of_a_hundred_levels_come_back(caller: Caller) -> None:
    id = caller.prepare()
    context = json.loads("[" * 99 + "]" * 99)
    assert caller.value("update_run_status", run_id=id, status="running", context=context)["context"] == context


def test_without_a_session_nothing_is_carried_out(shared: Worker, caller: Caller) -> None:
    id = caller.prepare()
    stranger = Caller(shared.session(), caller.name)
    error = stranger.refusal("update_run_status", run_id=id, status="cancelled")
    assert (error["code"], error["retry"]) == ("unknown_session", True)
    assert caller.value("get_run", run_id=id)["status"] == "pending"


# ── Sizes ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_that_does_not_fit_into_a_frame_is_asked_for_in_parts(caller: Caller) -> None:
    id = caller.prepare()
    for number in range(5):
        caller.value("create_step_log", step=caller.log(f"{number}", output="x" * (FRAME_BYTES_MAX // 4)))
    error = caller.refusal("list_step_logs", run_id=id)
    assert (error["code"], error["retry"]) == ("too_large", False)
    assert "smaller limit" in error["message"]
    assert error["details"]["bytes_max"] == FRAME_BYTES_MAX
    found: list[str] = []
    for offset in (0, 3):
        page = caller.value("list_step_logs", run_id=id, limit=3, offset=offset)
        assert len(caller.session.raw) <= FRAME_BYTES_MAX
        found += [log["step_id"] for log in page]
    assert found == ["0", "1", "2", "3", "4"]


def test_a_record_that_could_not_be_read_back_is_not_written(caller: Caller) -> None:
    id = caller.prepare()
    half = "x" * (FRAME_BYTES_MAX * 6 // 10)
    log = caller.value("create_step_log", step=caller.log(status="running", input=half))
    error = caller.refusal("update_step_status", step_id=log["id"], status="completed", output=half)
    assert (error["code"], error["details"]["error"]) == ("too_large", "too_large")
    assert "step 's'" in error["message"]
    assert caller.value("list_step_logs", run_id=id) == [log]
    caller.value("update_run_status", run_id=id, status="running", context=half)
    rest = "x" * (FRAME_BYTES_MAX - len(half))
    error = caller.refusal("create_run", run=caller.run("r2", context=half, trigger_payload=half[:10], error=rest))
    assert error["code"] == "too_large"


def test_the_largest_record_comes_back(caller: Caller) -> None:
    """The frame that takes it is larger than the one that gives it, unless its defaults were left out."""
    id = caller.prepare()
    most = FRAME_BYTES_MAX - 1024 - len(json.dumps(caller.value("get_run", run_id=id))) + 100
    refused = 0
    while True:
        answer = caller.ask("update_run_status", run_id=id, status="running", context="x" * most)
        if answer["op"] == "ok":
            break
        assert answer["code"] == "too_large"
        refused += 1
        most -= 50
    assert refused, "there is a limit"
    assert caller.value("get_run", run_id=id) == answer["value"]
    assert len(caller.session.raw) <= FRAME_BYTES_MAX
    claim = caller.value("claim_run", run_id=id)
    assert claim["run"] == answer["value"]


# ── Order ────────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_of_a_session_are_carried_out_in_their_order(caller: Caller) -> None:
    """A read that comes after a write sees it, and no later one, although nobody waited for an answer."""
    id = caller.prepare()
    session, expected = caller.session, {}
    for number in range(100):
        write, read = session.request_number(), session.request_number()
        session.send(
            op="workflow",
            request=write,
            call="update_run_status",
            arguments={"run_id": id, "status": "running", "context": number},
        )
        session.send(op="workflow", request=read, call="get_run", arguments={"run_id": id})
        expected[read] = number
    found: dict[int, Any] = {}
    while len(found) < len(expected):
        frame = session.receive()
        assert frame["op"] == "ok", frame
        if frame["request"] in expected:
            found[frame["request"]] = frame["value"]["context"]
    assert found == expected


def test_writes_of_a_session_are_carried_out_in_their_order(caller: Caller) -> None:
    id = caller.prepare()
    session = caller.session
    statuses = ["running", "paused", "pending"] * 40 + ["completed"]
    first = session.request_number()
    for number, status in enumerate(statuses):
        arguments = {"run_id": id, "status": status, "context": number}
        session.send(op="workflow", request=first + number, call="update_run_status", arguments=arguments)
    for number, status in enumerate(statuses):
        value = session.receive_until("ok", first + number)["value"]
        assert (value["status"], value["context"]) == (status, number)


def test_steps_keep_their_order_among_other_calls(caller: Caller) -> None:
    """Steps are carried out together where they come together, and yet after the claim that they need."""
    id = caller.prepare()
    session = caller.session
    first = session.request_number()
    asked = 0
    for fence in range(1, 31):
        step = {"id": f"{id}-{fence}", "run_id": id, "step_id": f"{fence}", "step_name": "s", "status": "running"}
        for call, arguments in (
            ("claim_run", {"run_id": id, "claim_id": new_id()}),
            ("create_step_log", {"step": step, "fence": fence}),
            ("update_step_status", {"step_id": step["id"], "status": "completed", "output": 1, "fence": fence}),
            ("release_run", {"run_id": id, "fence": fence}),
            ("update_step_status", {"step_id": step["id"], "status": "completed", "output": 1}),
            ("get_completed_step_ids", {"run_id": id}),
        ):
            session.send(op="workflow", request=first + asked, call=call, arguments=arguments)
            asked += 1
    answers = {frame["request"]: frame for frame in (session.receive() for _ in range(asked))}
    assert {frame["op"] for frame in answers.values()} == {"ok"}, answers
    for fence in range(1, 31):
        assert len(answers[first + 6 * fence - 1]["value"]) == fence


def test_what_was_answered_is_there_after_a_kill(worker: Worker, name: str) -> None:
    caller = Caller(worker.session(name), name)
    id = caller.prepare()
    claim = caller.value("claim_run", run_id=id, lease_seconds=600)
    caller.value("create_step_log", step=caller.log(status="running"), fence=1)
    done = caller.value("update_step_status", step_id=f"{name}-s", status="completed", output=[1], fence=1)
    moved = caller.value("update_run_status", run_id=id, status="running", context={"n": 1}, fence=1)
    worker.kill()
    worker.start()
    again = Caller(worker.session(name), name)
    assert again.value("get_run", run_id=id) == moved
    assert again.value("list_step_logs", run_id=id) == [done]
    lease = again.value("get_lease", run_id=id)
    assert (lease["fence"], lease["expires_at"]) == (1, claim["expires_at"])
    assert ID.fullmatch(lease["holder"])
    assert again.value("update_run_status", run_id=id, status="completed", fence=1)["status"] == "completed"
