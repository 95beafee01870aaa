"""Values as they are stored: a number that JSON has no word for is refused, wherever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.workflow_calls import UpdateStepStatus
from store.errors import InvalidValue
from store.records import StepStatus, WorkflowStepLog
from store.values import json_text, normal_record

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
