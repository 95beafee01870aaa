"""Values as they are stored: a number that JSON has no word for is refused, wherever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.errors import InvalidValue
from bus.model.records import StepStatus, WorkflowStepLog
from bus.model.values import exact_value, json_text, json_value, normal_record
from bus.wire.calls import CreateStepLog, UpdateStepStatus

NAN = float("nan")


def step(**fields: Any) -> WorkflowStepLog:
    return WorkflowStepLog(
        id="s", run_id="r", step_id="step", step_name="null", status=StepStatus.COMPLETED, **fields
    )


@pytest.mark.parametrize(
    "output", [None, "null", {"null": "a null"}, [None, None], {"a": [None, {"b": None}]}, {"n": 1.5}]
)
def test_what_is_nothing_is_no_lost_number(output: Any) -> None:
    """Whatever nulls a record has by itself, and whatever text says so."""
    assert normal_record(step(output=output), "step") == step(output=output)
    assert normal_record(step(input=output, error="null"), "step") == step(input=output, error="null")


@pytest.mark.parametrize("output", [NAN, [None, NAN], {"null": NAN}, {"a": [None, {"b": float("-inf")}]}])
def test_a_lost_number_is_found_beside_fields_that_have_nothing(output: Any) -> None:
    for fields in ({"output": output}, {"output": output, "input": "null"}, {"input": output, "error": "e"}):
        with pytest.raises(InvalidValue, match="NaN"):
            normal_record(step(**fields), "step")


def test_a_lost_number_is_found_in_what_leaves_its_defaults_out() -> None:
    """Such a struct writes no null for a field that is None: its count says nothing of the others."""
    call = UpdateStepStatus(step_id="s", status=StepStatus.COMPLETED, output={"n": NAN})
    assert call.error is None
    assert msgspec.json.encode(call).count(b"null") == 1
    with pytest.raises(InvalidValue, match="NaN"):
        json_text(call, "call")


@pytest.mark.parametrize(
    "output", [{1: "a", "1": "b"}, [{"x": {2: 1, "2": None}}], msgspec.Raw(b"nul"), [msgspec.Raw(b"1,2")]]
)
def test_a_value_that_would_lose_something_is_refused(output: Any) -> None:
    with pytest.raises(InvalidValue, match="step"):
        normal_record(step(output=output), "step")
    with pytest.raises(InvalidValue, match="output"):
        json_text(output, "output")


def test_a_value_that_is_json_already_is_stored() -> None:
    assert json_text({"a": msgspec.Raw(b"null")}, "output") == '{"a":null}'
    assert normal_record(step(output=[msgspec.Raw(b'{"a":null}')]), "step").output == [{"a": None}]


def test_a_subclass_of_a_plain_type_is_stored_as_that() -> None:
    class Text(str):
        __slots__ = ()

    class Real(float):
        pass

    assert normal_record(step(output={"a": [Text("x"), Real(1.5)]}), "step").output == {"a": ["x", 1.5]}
    with pytest.raises(InvalidValue, match="NaN"):
        normal_record(step(output={"a": Real("nan")}), "step")


def test_a_record_within_a_call_is_checked_like_one_by_itself() -> None:
    for output in (NAN, {"a": [NAN]}, {1: "a", "1": "b"}, msgspec.Raw(b"nul")):
        for fields in ({"output": output}, {"input": output, "output": 1}):
            with pytest.raises(InvalidValue, match="call"):
                json_text(CreateStepLog(step=step(**fields)), "call")
    assert b"1.5" in msgspec.json.encode(normal_record(CreateStepLog(step=step(output=(1.5,))), "call"))


@pytest.mark.parametrize(
    ("value", "read"), [(None, None), ("a", "a"), (2**70, 2**70), ((1, [2]), [1, [2]]), ({1: 2.0}, {"1": 2.0})]
)
def test_an_exact_value_is_written_in_place_of_its_value(value: Any, read: Any) -> None:
    exact = exact_value(value, "output")
    assert (msgspec.json.decode(exact.json), exact.value) == (read, read)
    assert exact_value(exact, "output") is exact
    assert json_value(exact, "output") == read
    assert json_value({"a": exact}, "output") == {"a": read}
    assert normal_record(step(input=[exact], output=exact), "step") == step(input=[read], output=read)


def test_an_exact_value_stays_what_it_was() -> None:
    value: dict[str, Any] = {"a": [1]}
    exact = exact_value(value, "output")
    value["a"].append(NAN)
    assert json_text(step(output=exact), "step") == json_text(step(output={"a": [1]}), "step")
    assert exact.value == {"a": [1]}


LARGE = "ü" * 3000


@pytest.mark.parametrize("text", ["", LARGE], ids=["small", "with a large text"])
@pytest.mark.parametrize(
    "value",
    [
        [1, 1.0, True, None, -0.0, 2**64, {"a": {"b": []}}],
        {"a": (1, 2), "b": [("c",)]},
        {1: 2, "a": 3.5},
        {"a": [{"b": StepStatus.FAILED}]},
        [[[[]]], {}, ""],
    ],
    ids=repr,
)
def test_a_value_is_what_is_read_back_whatever_its_size(value: Any, text: str) -> None:
    exact = exact_value([value, text], "output")
    assert exact.json == msgspec.json.encode([value, text])
    assert repr(exact.value) == repr(msgspec.json.decode(exact.json)), "of the same types, too"


@pytest.mark.parametrize("value", [NAN, [1, float("inf")], {"a": [NAN]}, {1: "a", "1": "b"}, [msgspec.Raw(b"nul")]])
def test_what_json_would_lose_is_refused_beside_a_large_text(value: Any) -> None:
    with pytest.raises(InvalidValue, match="output"):
        exact_value([LARGE, {"a": value}], "output")


def test_a_large_value_stays_what_it_was() -> None:
    value: dict[str, Any] = {"a": [LARGE, [1]]}
    exact = exact_value(value, "output")
    value["a"][1].append(2)
    assert exact.value == {"a": [LARGE, [1]]}


def test_a_deep_value_beside_a_large_text_is_as_deep_as_without() -> None:
    value: Any = [LARGE * 1000]
    for _ in range(500):
        value = [value]
    assert exact_value(value, "output").value == value
