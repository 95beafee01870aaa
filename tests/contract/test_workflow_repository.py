"""What every WorkflowRepository does (docs/design.md): definitions, runs, values, restarts.

Steps are in test_workflow_steps, and how statuses move is in test_workflow_transitions.
"""

from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from bus.errors import Conflict, DefinitionInUse, InvalidTransition, InvalidValue, NotFound, Refused, TooLarge
from bus.model.records import (
    BotOwner,
    CronTrigger,
    FileWatchTrigger,
    ManualTrigger,
    RetryPolicy,
    RunStatus,
    StepStatus,
    StepType,
    WebhookTrigger,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStep,
)
from bus.model.repository import WorkflowRepository

from .conftest import Place, WorkflowBackend
from .samples import GLOBAL, at, definition, owned, run, step

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


def rich_definition(id: str) -> WorkflowDefinition:
    """A definition that says everything: it is kept as given."""
    return definition(
        id,
        name="Täglicher Überblick",
        owner=BotOwner(bot_id="ann", slug="ann-the-bot"),
        version="2.0.1",
        description="what happened",
        concurrency=2,
        timeout_secs=60,
        triggers=(
            ManualTrigger(),
            CronTrigger(schedule="0 7 * * *", timezone="Europe/Berlin"),
            WebhookTrigger(path="/hook", auth={"type": "bearer"}),
            FileWatchTrigger(paths=("/in",), patterns=("*.csv",), when="size > 0"),
        ),
        steps=(
            WorkflowStep(id="a", name="A", type=StepType.HTTP, config={"type": "http", "url": "x"}),
            WorkflowStep(
                id="b",
                name="B",
                type=StepType.SUB_WORKFLOW,
                config={},
                depends_on=("a",),
                retry=RetryPolicy(max_attempts=5),
                ui={"x": 1.5, "y": None},
            ),
        ),
        metadata={"team": ["x", {"y": None}]},
    )


# ── Definitions ──────────────────────────────────────────────────────────────────────────────────────────


async def test_definition_comes_back_as_given(place: Place, workflows: WorkflowRepository) -> None:
    await place.add_bots("ann")
    given = rich_definition("w")
    await workflows.save_definition(given)
    assert await workflows.get_definition("w") == given
    assert await workflows.get_definition_by_name(given.name, BotOwner(bot_id="ann")) == given
    assert await workflows.list_definitions() == [given]


async def test_definition_that_is_not_there(workflows: WorkflowRepository) -> None:
    assert await workflows.get_definition("w") is None
    assert await workflows.get_definition_by_name("w", GLOBAL) is None
    assert await workflows.list_definitions() == []
    assert await workflows.delete_definition("w") is False
    assert await workflows.delete_definition("w", cascade=True) is False


async def test_saving_again_replaces(place: Place, workflows: WorkflowRepository) -> None:
    await place.add_bots("ann")
    await workflows.save_definition(definition("w", name="old"))
    replaced = owned("w", "ann", name="new", version="2.0.0")
    await workflows.save_definition(replaced)
    await workflows.save_definition(replaced)
    assert await workflows.list_definitions() == [replaced]
    assert await workflows.get_definition_by_name("old", GLOBAL) is None
    assert await workflows.get_definition_by_name("new", GLOBAL) is None
    assert await workflows.get_definition_by_name("new", BotOwner(bot_id="ann")) == replaced


async def test_saving_again_keeps_the_runs(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.save_definition(definition("w", version="2.0.0"))
    assert await workflows.list_runs("w") == [running]


async def test_name_belongs_to_one_id_an_owner(place: Place, workflows: WorkflowRepository) -> None:
    await place.add_bots("ann", "bob")
    first = definition("1", name="n")
    await workflows.save_definition(first)
    await workflows.save_definition(owned("2", "ann", name="n"))
    await workflows.save_definition(owned("3", "bob", name="n"))
    with pytest.raises(Conflict, match="'n'"):
        await workflows.save_definition(definition("4", name="n"))
    with pytest.raises(Conflict):
        await workflows.save_definition(owned("4", "ann", name="n"))
    with pytest.raises(Conflict):
        await workflows.save_definition(owned("3", "ann", name="n"))
    assert await workflows.get_definition("4") is None
    assert await workflows.get_definition_by_name("n", GLOBAL) == first
    assert await workflows.get_definition("3") == owned("3", "bob", name="n")


async def test_owner_must_exist(workflows: WorkflowRepository) -> None:
    with pytest.raises(NotFound) as refusal:
        await workflows.save_definition(owned("w", "nobody"))
    assert (refusal.value.what, refusal.value.key) == ("bot", "nobody")
    assert await workflows.list_definitions() == []


async def test_definitions_by_name_owner_id(place: Place, workflows: WorkflowRepository) -> None:
    await place.add_bots("ann", "bob")
    wanted = [
        owned("9", "ann", name="a"),
        owned("1", "bob", name="a"),
        definition("5", name="a"),
        definition("3", name="b"),
        owned("2", "ann", name="c"),
    ]
    for saved in reversed(wanted):
        await workflows.save_definition(saved)
    assert await workflows.list_definitions() == wanted
    assert [found.id for found in await workflows.list_definitions(GLOBAL)] == ["5", "3"]
    assert [found.id for found in await workflows.list_definitions(BotOwner(bot_id="ann"))] == ["9", "2"]
    assert await workflows.list_definitions(BotOwner(bot_id="nobody")) == []


async def test_delete_definition(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    await workflows.save_definition(definition("other"))
    assert await workflows.delete_definition("w") is True
    assert await workflows.delete_definition("w") is False
    assert await workflows.list_definitions() == [definition("other")]


async def test_definition_with_runs_is_in_use(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_run(run("r2", status=RunStatus.COMPLETED))
    with pytest.raises(DefinitionInUse) as refusal:
        await workflows.delete_definition("w")
    assert (refusal.value.definition_id, refusal.value.runs) == ("w", 2)
    assert await workflows.get_definition("w") is not None
    assert await workflows.get_run("r") == running


async def test_cascade_takes_runs_and_steps(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_step_log(step("s"))
    await workflows.save_definition(definition("other"))
    kept = await workflows.create_run(run("kept", "other"))
    assert await workflows.delete_definition("w", cascade=True) is True
    assert await workflows.get_definition("w") is None
    assert await workflows.get_run("r") is None
    assert await workflows.list_step_logs("r") == []
    assert await workflows.list_runs("other") == [kept]


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_run_comes_back_as_given(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    full = run(
        "r",
        status=RunStatus.PAUSED,
        trigger_type="webhook",
        trigger_payload={"q": ["ü", 1.5, None]},
        context={"deep": [{"er": True}]},
        completed_at=at(9),
        error="e",
        concurrency_key="k",
    )
    plain = run("plain")
    assert await workflows.create_run(full) == full
    assert await workflows.create_run(plain) == plain
    assert await workflows.get_run("r") == full
    assert await workflows.get_run("plain") == plain
    assert await workflows.get_run("nowhere") is None


@pytest.mark.parametrize("field", ["cancel_by", "continued_as"])
async def test_what_becomes_of_a_run_is_not_known_when_it_is_created(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, field: str
) -> None:
    with pytest.raises(InvalidValue, match=f"{field} is set"):
        await workflows.create_run(run("r", **{field: at(1)}))


async def test_run_created_twice_is_there_once(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    first = await workflows.create_run(run("r", context={"a": 1, "b": (1, 2)}))
    assert await workflows.create_run(run("r", context={"b": [1, 2], "a": 1})) == first
    assert await workflows.list_runs("w") == [first]


@pytest.mark.parametrize(
    "other",
    [
        {"status": RunStatus.RUNNING},
        {"workflow_name": "x"},
        {"trigger_type": "x"},
        {"trigger_payload": 1},
        {"context": {"n": True}},
        {"started_at": at(1)},
        {"completed_at": at(1)},
        {"error": "x"},
        {"concurrency_key": "x"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_run_created_with_other_fields_conflicts(
    workflows: WorkflowRepository, workflow: WorkflowDefinition, other: dict[str, Any]
) -> None:
    first = await workflows.create_run(run("r", context={"n": 1}))
    with pytest.raises(Conflict, match="'r'"):
        await workflows.create_run(run("r", **{"context": {"n": 1}, **other}))
    assert await workflows.list_runs("w") == [first]


async def test_run_of_an_unknown_workflow(workflows: WorkflowRepository) -> None:
    with pytest.raises(NotFound) as refusal:
        await workflows.create_run(run("r", "nowhere"))
    assert (refusal.value.what, refusal.value.key) == ("workflow", "nowhere")
    assert await workflows.get_run("r") is None


async def test_update_of_an_unknown_run(workflows: WorkflowRepository) -> None:
    with pytest.raises(NotFound) as refusal:
        await workflows.update_run_status("nowhere", RunStatus.RUNNING)
    assert (refusal.value.what, refusal.value.key) == ("run", "nowhere")


async def test_runs_newest_first(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    await workflows.save_definition(definition("other"))
    await workflows.create_run(run("elsewhere", "other"))
    for id, second in (("b", 2), ("d", 3), ("a", 1), ("c", 3)):
        await workflows.create_run(run(id, started_at=at(second)))
    assert [found.id for found in await workflows.list_runs("w")] == ["c", "d", "b", "a"]
    assert [found.id for found in await workflows.list_runs("w", limit=2)] == ["c", "d"]
    assert await workflows.list_runs("w", limit=0) == []
    assert await workflows.list_runs("nowhere") == []


async def test_run_limit(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    for n in range(51):
        await workflows.create_run(run(f"{n}"))
    assert len(await workflows.list_runs("w")) == 50
    assert len(await workflows.list_runs("w", limit=1000)) == 51
    with pytest.raises(ValueError, match="0 or more"):
        await workflows.list_runs("w", limit=-1)


async def test_crashed_runs_oldest_first(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    for status in RunStatus:
        await workflows.create_run(run(status, status=status, started_at=at(5)))
    for id, second in (("b", 7), ("d", 5), ("a", 1)):
        await workflows.create_run(run(id, started_at=at(second), status=RunStatus.RUNNING))
    assert [found.id for found in await workflows.list_crashed_runs()] == ["a", "running", "d", "b"]
    await workflows.update_run_status("running", RunStatus.CRASHED)
    assert [found.id for found in await workflows.list_crashed_runs()] == ["a", "d", "b"]


async def test_context_has_a_limit(workflows: WorkflowRepository, workflow: WorkflowDefinition) -> None:
    most = "x" * (10 * MIB - 2)
    created = await workflows.create_run(run("r", context=most))
    for refused in (
        workflows.create_run(run("r2", context=most + "x")),
        workflows.update_run_status("r", RunStatus.RUNNING, context=most + "x"),
    ):
        with pytest.raises(TooLarge, match="context of run 'r") as refusal:
            await refused
        assert (refusal.value.size_bytes, refusal.value.bytes_max) == (10 * MIB + 1, 10 * MIB)
    assert await workflows.list_runs("w") == [created]
    await workflows.update_run_status("r", RunStatus.RUNNING, context=most[1:] + "y")
    stored = await workflows.get_run("r")
    assert stored is not None
    assert stored.context == most[1:] + "y"


# ── Values, callers, restarts ────────────────────────────────────────────────────────────────────────────


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NOT_JSON = [object(), {"n": float("nan")}, [float("inf")], "\ud800", endless(), {1.5: {2: object()}}]


@pytest.mark.parametrize("value", NOT_JSON, ids=["object", "nan", "inf", "surrogate", "endless", "nested"])
async def test_what_json_cannot_hold_is_refused(
    workflows: WorkflowRepository, running: WorkflowRun, value: Any
) -> None:
    created = await workflows.create_step_log(step("s"))
    for refused in (
        workflows.create_run(run("r2", context=value)),
        workflows.create_run(run("r2", trigger_payload=value)),
        workflows.update_run_status("r", RunStatus.PAUSED, context=value),
        workflows.create_step_log(step("s2", input=value)),
        workflows.update_step_status("s", StepStatus.COMPLETED, output=value),
        workflows.save_definition(definition("d", metadata={"x": value})),
    ):
        with pytest.raises(InvalidValue):
            await refused
    assert await workflows.list_runs("w") == [running]
    assert await workflows.list_step_logs("r") == [created]
    assert await workflows.list_definitions() == [definition("w")]


async def test_null_inside_a_value_is_json(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    moved = await workflows.update_run_status("r", RunStatus.RUNNING, context={"null": None, "n": [1.5]})
    assert moved.context == {"null": None, "n": [1.5]}
    assert (await workflows.create_run(run("r2", context=None))).context is None
    found = await workflows.get_run("r2")
    assert found is not None
    assert found.context is None


async def test_field_of_another_type_is_refused(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    for broken in (run("r2", status="asleep"), run("r2", started_at=5), run("r2", error="\ud800")):
        with pytest.raises(Refused):
            await workflows.create_run(broken)
    with pytest.raises(InvalidValue):
        await workflows.create_step_log(step("s", attempt="first"))
    no_number: Any = "1"
    with pytest.raises(InvalidValue, match="fence"):
        await workflows.create_step_log(step("s"), fence=no_number)
    nonsense: Any = "asleep"
    for moved in (workflows.update_run_status("r", nonsense), workflows.list_all_runs(nonsense)):
        with pytest.raises(InvalidValue, match="asleep"):
            await moved
    with pytest.raises(InvalidValue, match="error of run"):
        await workflows.update_run_status("r", RunStatus.FAILED, error="\ud800")
    with pytest.raises(InvalidValue):
        await workflows.update_step_status("\ud800", StepStatus.COMPLETED)
    assert await workflows.list_runs("w") == [running]


async def test_returned_records_are_what_is_stored(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    created = await workflows.create_run(run("r2", context={"t": (1, 2)}, trigger_payload={3: "x"}))
    assert created.context == {"t": [1, 2]}
    assert created == await workflows.get_run("r2")
    await workflows.create_step_log(step("s"))
    moved = await workflows.update_step_status("s", StepStatus.COMPLETED, output=(1, 2))
    assert moved.output == [1, 2]
    assert [moved] == await workflows.list_step_logs("r")


async def test_concurrent_callers_each_get_their_own_answer(
    workflows: WorkflowRepository, running: WorkflowRun
) -> None:
    outcomes: list[str] = []

    async def finish(status: RunStatus) -> None:
        try:
            await workflows.update_run_status("r", status)
        except InvalidTransition:
            outcomes.append("refused")
        else:
            outcomes.append(status)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED):
                tasks.start_soon(finish, status)
    stored = await workflows.get_run("r")
    assert stored is not None
    assert sorted(outcomes) == sorted(["refused", "refused", stored.status])


async def test_everything_is_there_after_reopening(backend: WorkflowBackend) -> None:
    async with backend.open() as place:
        await place.add_bots("ann")
        workflows = place.workflows
        await workflows.save_definition(rich_definition("w"))
        await workflows.create_run(run("r", context={"n": 1}, trigger_payload="p"))
        stored_run = await workflows.update_run_status("r", RunStatus.RUNNING, context={"n": 2})
        await workflows.create_step_log(step("s", input={"i": 1}))
        stored_step = await workflows.update_step_status("s", StepStatus.COMPLETED, output={"o": 1})
    async with backend.open() as place:
        workflows = place.workflows
        assert await workflows.get_definition("w") == rich_definition("w")
        assert await workflows.list_crashed_runs() == [stored_run]
        assert await workflows.list_step_logs("r") == [stored_step]
        assert await workflows.get_completed_step_ids("r") == ["s"]
        renamed = msgspec.structs.replace(rich_definition("w"), name="other")
        await workflows.save_definition(renamed)
    async with backend.open() as place:
        assert await place.workflows.list_definitions() == [renamed]
