"""Workflow calls on the wire: the same methods as the repository's, and room to grow."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from bus.model.records import (
    BotOwner,
    CronTrigger,
    RetryPolicy,
    StepType,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStep,
)
from bus.model.repository import WorkflowRepository
from bus.runs.repository import RemoteWorkflows
from bus.wire.calls import CALLS, ListCall, decode_call, read_result
from bus.wire.frames import Workflow
from bus.wire.keyed_calls import KEYED_CALLS

METHODS = dict(inspect.getmembers(WorkflowRepository, inspect.iscoroutinefunction))


def parameters(method: Any) -> dict[str, Any]:
    """The parameters of a method by name, each with its default."""
    given = inspect.signature(method).parameters.values()
    return {each.name: (each.kind, each.default) for each in given if each.name != "self"}


def test_there_is_a_call_for_each_method() -> None:
    assert set(CALLS) == set(METHODS) | {kind.method for kind in KEYED_CALLS}


@pytest.mark.parametrize("name", METHODS)
def test_a_call_has_the_parameters_of_its_method(name: str) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(CALLS[name])}
    wanted = {each: default for each, (_, default) in parameters(METHODS[name]).items()}
    assert set(fields) == set(wanted)
    for each, default in wanted.items():
        if each == "holder":
            assert fields[each].default is None, "the session says who claims"
        else:
            assert fields[each].default is (msgspec.NODEFAULT if default is inspect.Parameter.empty else default)


@pytest.mark.parametrize("name", METHODS)
def test_a_connection_offers_the_methods_of_a_store(name: str) -> None:
    assert parameters(getattr(RemoteWorkflows, name)) == parameters(METHODS[name])


def test_what_changes_something_is_a_write() -> None:
    reads = {name for name, kind in CALLS.items() if not kind.writes}
    beginnings = ("count_", "get_", "list_", "page_", "watch_", "kv_get", "kv_list", "kv_changes", "kv_stores")
    assert reads == {"retained", *(name for name in CALLS if name.startswith(beginnings))}
    assert {name for name, kind in CALLS.items() if issubclass(kind, ListCall)} == {
        name for name in CALLS if name.startswith("list_")
    }


def test_fields_of_a_later_version_are_passed_over() -> None:
    run = WorkflowRun(
        id="r", workflow_id="w", workflow_name="w", trigger_type="manual", started_at="", context={"a": 1}
    )
    claim = {"run": {**msgspec.to_builtins(run), "colour": "red"}, "fence": 1, "expires_at": "", "by": "whom"}
    assert read_result("claim_run", msgspec.json.encode(claim)).run == run
    step = WorkflowStep(id="a", name="a", type=StepType.CODE, config={"colour": "red"}, retry=RetryPolicy())
    definition = WorkflowDefinition(
        id="w", name="w", owner=BotOwner(bot_id="b"), triggers=(CronTrigger(schedule="x"),), steps=(step,)
    )
    newer = msgspec.to_builtins(definition)
    for part in (newer, newer["owner"], newer["triggers"][0], newer["steps"][0], newer["steps"][0]["retry"]):
        part["colour"] = "red"
    assert read_result("get_definition", msgspec.json.encode(newer)) == definition
    assert read_result("list_definitions", msgspec.json.encode([newer, newer])) == [definition] * 2
    with pytest.raises(msgspec.ValidationError):
        read_result("get_run", b'{"id":"r"}')


def test_none_and_plain_values_are_read() -> None:
    assert read_result("get_run", b"null") is None
    assert read_result("save_definition", b"null") is None
    assert read_result("delete_definition", b"true") is True
    assert read_result("get_completed_step_ids", b'["a"]') == ["a"]


def test_arguments_may_be_left_out_where_there_are_none() -> None:
    call = decode_call(Workflow(request=1, call="list_all_runs"))
    assert isinstance(call, ListCall)
    assert (call.limit, call.offset) == (50, 0)
