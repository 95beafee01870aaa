"""What every WorkflowRepository does with texts that not every engine can store: those with U+0000."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bus.errors import InvalidValue
from bus.model.records import RunStatus, StepStatus, WorkflowRun
from bus.model.repository import WorkflowRepository

from .samples import ANN, definition, run, step

pytestmark = pytest.mark.anyio

_Write = Callable[[WorkflowRepository], Awaitable[Any]]

_REFUSED: dict[str, _Write] = {
    "name of a workflow": lambda workflows: workflows.save_definition(definition("x", name="a\0b")),
    "version": lambda workflows: workflows.save_definition(definition("x", version="1\0")),
    "name of a run's workflow": lambda workflows: workflows.create_run(run("a", workflow_name="\0")),
    "concurrency key": lambda workflows: workflows.create_run(run("a", concurrency_key="k\0")),
    "kind of trigger": lambda workflows: workflows.create_run(run("a", trigger_type="\0")),
    "name of a step": lambda workflows: workflows.create_step_log(step("a", step_name="a\0b")),
    "step of a log": lambda workflows: workflows.create_step_log(step("a", step_id="a\0b")),
    "idempotency key": lambda workflows: workflows.create_step_log(step("a", idempotency_key="\0")),
    "claim": lambda workflows: workflows.claim_run("r", ANN, claim_id="a\0b"),
    "name of a signal": lambda workflows: workflows.send_signal("r", "a\0b"),
}


@pytest.mark.parametrize("write", _REFUSED.values(), ids=_REFUSED)
async def test_a_name_or_a_key_with_it_is_refused(
    workflows: WorkflowRepository, pending: WorkflowRun, write: _Write
) -> None:
    with pytest.raises(InvalidValue, match="zero character"):
        await write(workflows)
    assert [each.id for each in await workflows.list_all_runs()] == ["r"]


async def test_values_and_errors_keep_it(workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    value = {"a\0": ["\0", "\\u0000"]}
    await workflows.create_step_log(step("a", input=value, status=StepStatus.FAILED, error="it\0broke"))
    await workflows.send_signal("r", "paid", payload=value)
    await workflows.update_run_status("r", RunStatus.FAILED, "it\0broke", context=value)
    [log] = await workflows.list_step_logs("r")
    [signal] = await workflows.list_signals("r")
    kept = await workflows.get_run("r")
    assert kept is not None
    assert (log.input, signal.payload, kept.context) == (value, value, value)
    assert (log.error, kept.error) == ("it\0broke", "it\0broke")
