"""What every WorkflowRepository does (docs/workflows.md): which definitions are saved, and which a run keeps."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import InvalidValue
from bus.model.records import RetryPolicy, RunStatus, StepType, WorkflowDefinition, WorkflowRun, WorkflowStep
from bus.model.repository import WorkflowRepository

from .samples import definition, run

pytestmark = pytest.mark.anyio


def a_step(id: str, *depends_on: str, **fields: Any) -> WorkflowStep:
    defaults: dict[str, Any] = {"name": id, "type": StepType.CODE, "config": {}, "depends_on": depends_on}
    return WorkflowStep(**{"id": id, **defaults, **fields})


CONTRADICTIONS = {
    "two steps with one id": ({"steps": (a_step("a"), a_step("b"), a_step("a"))}, "two steps 'a'"),
    "a step that is not there": ({"steps": (a_step("a"), a_step("b", "a", "c"))}, "'b' depends on 'c'"),
    "a step that waits for itself": ({"steps": (a_step("a", "a"),)}, "wait for each other: a -> a"),
    "a circle": (
        {"steps": (a_step("a", "b"), a_step("b", "c"), a_step("c", "a"), a_step("d", "a"))},
        "wait for each other: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)",
    ),
    "a config of another type": ({"steps": (a_step("a", config={"type": "http"}),)}, "'a' has type code"),
    "a config of no type": ({"steps": (a_step("a", config={"type": ["code"]}),)}, "'a' has type code"),
    "no run at once": ({"concurrency": 0}, "concurrency must be 1 or more, not 0"),
    "less than no run": ({"concurrency": -1}, "concurrency"),
    "more runs than there are": ({"concurrency": 2**64}, "concurrency"),
    "no attempt": ({"steps": (a_step("a", retry=RetryPolicy(max_attempts=0)),)}, "'a': retry.max_attempts"),
}


@pytest.mark.parametrize(("fields", "reason"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
async def test_a_definition_that_contradicts_itself_is_refused(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, fields: dict[str, Any], reason: str
) -> None:
    for id in ("w", "new"):
        with pytest.raises(InvalidValue, match=reason) as refusal:
            await workflows.save_definition(definition(id, **fields))
        assert refusal.value.what == f"workflow {id!r}"
    assert await workflows.list_definitions() == [workflow]


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": (a_step("d", "b", "c"), a_step("b", "a"), a_step("c", "a", "a"), a_step("a"))},
        {"steps": tuple(a_step(kind, type=kind, config={"type": kind, "x": 1}) for kind in StepType)},
        {"steps": tuple(a_step(kind, type=kind, config={"x": 1}) for kind in StepType)},
        {"concurrency": 1, "steps": (a_step("a", retry=RetryPolicy(max_attempts=1)),)},
        {"steps": tuple(a_step(f"{n}", *([f"{n - 1}"] if n else [])) for n in range(2000))},
    ],
    ids=["a diamond", "tagged configs", "bare configs", "the least", "a long chain"],
)
async def test_a_definition_that_could_be_executed_is_saved(
    workflows: WorkflowRepository, fields: dict[str, Any]
) -> None:
    given = definition("w", **fields)
    await workflows.save_definition(given)
    assert await workflows.get_definition("w") == given


async def test_a_run_keeps_the_definition_that_it_started_with(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, pending: WorkflowRun
) -> None:
    changed = definition("w", version="2.0.0")
    await workflows.save_definition(changed)
    await workflows.create_run(run("later"))
    assert await workflows.get_run_definition("r") == workflow
    assert await workflows.get_run_definition("later") == changed
    await workflows.update_run_status("r", RunStatus.CANCELLED)
    assert await workflows.create_run(run("later")) is not None
    assert await workflows.get_run_definition("r") == workflow
