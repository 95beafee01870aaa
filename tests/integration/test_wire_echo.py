"""Workflow calls whose answers do not repeat what was sent."""

from __future__ import annotations

from typing import Any

from .test_wire_workflows import LOG_FIELDS, RUN_FIELDS, Caller
from .wire_worker import Worker


def test_an_answer_does_not_repeat_what_was_sent_if_that_is_not_wanted(shared: Worker, name: str) -> None:
    caller = Caller(shared.session(name), name)
    id = caller.prepare()

    def value(call: str, **arguments: Any) -> Any:
        return caller.session.ask("workflow", call=call, arguments=arguments, echo=False)["value"]

    fence = value("claim_run", run_id=id)["fence"]
    begun = value("create_step_log", step=caller.log(input={"n": 1}, status="running"), fence=fence)
    assert set(begun) == LOG_FIELDS
    assert (begun["status"], begun["input"], begun["output"]) == ("running", None, None)
    move = {"step_id": begun["id"], "status": "completed", "fence": fence}
    moved = value("update_step_status", output=[1], **move)
    assert (moved["status"], moved["input"], moved["output"]) == ("completed", {"n": 1}, None)
    assert value("update_step_status", **move)["output"] == [1], "the arguments do not have it"
    [stored] = caller.value("list_step_logs", run_id=id)
    assert stored == {**moved, "output": [1]}
    fields = {"run_id": id, "fence": fence, "status": "completed"}
    done = value("update_run_status", context={"a": 1}, result="x", **fields)
    assert set(done) == RUN_FIELDS
    assert (done["status"], done["context"], done["result"]) == ("completed", None, None)
    done = value("update_run_status", **fields)
    assert (done["context"], done["result"]) == ({"a": 1}, "x")


def test_an_answer_to_a_refused_call_is_the_same_without_an_echo(shared: Worker, name: str) -> None:
    arguments = {"step_id": "nowhere", "status": "completed", "output": 1, "fence": 1}
    refused = shared.session(name).ask(
        "workflow", answer="error", call="update_step_status", arguments=arguments, echo=False
    )
    assert refused["code"] == "not_found"
