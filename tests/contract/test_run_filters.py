"""What every WorkflowRepository does (docs/workflows.md): runs are found by what is known of them."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import Conflict, InvalidValue, NotFound
from bus.model.filters import RunCount, RunFilter
from bus.model.records import RunStatus
from bus.model.repository import WorkflowRepository

from .samples import at, definition, run

pytestmark = pytest.mark.anyio


async def fill(workflows: WorkflowRepository) -> None:
    """Create runs that began one after the other."""
    for id, name in (("v", "red"), ("w", "blue")):
        await workflows.save_definition(definition(id, name=name))
    fields: list[tuple[str, str, dict[str, Any]]] = [
        ("a1", "v", {"attributes": {"customer": "ann", "plan": "big"}}),
        ("a2", "w", {"concurrency_key": "k", "status": RunStatus.FAILED}),
        ("b1", "w", {"attributes": {"customer": "ann", "plan": "small"}, "concurrency_key": "k"}),
        ("b2", "v", {"attributes": {"customer": "bob", "plan": "big"}, "status": RunStatus.FAILED}),
        ("b3", "w", {"attributes": {"customer": "ann", "plan": "big"}, "status": RunStatus.FAILED}),
    ]
    for second, (id, workflow, more) in enumerate(fields):
        await workflows.create_run(run(id, workflow, started_at=at(second), **more))


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        (RunFilter(), ["b3", "b2", "b1", "a2", "a1"]),
        (RunFilter(status=RunStatus.FAILED), ["b3", "b2", "a2"]),
        (RunFilter(workflow="w"), ["b3", "b1", "a2"]),
        (RunFilter(workflow="red"), ["b2", "a1"]),
        (RunFilter(workflow="nothing"), []),
        (RunFilter(since=at(3)), ["b3", "b2"]),
        (RunFilter(since="2026-01-01T01:00:03+01:00"), ["b3", "b2"]),
        (RunFilter(until=at(2)), ["a2", "a1"]),
        (RunFilter(since=at(1), until=at(3)), ["b1", "a2"]),
        (RunFilter(concurrency_key="k"), ["b1", "a2"]),
        (RunFilter(attributes={"customer": "ann"}), ["b3", "b1", "a1"]),
        (RunFilter(attributes={"customer": "ann", "plan": "big"}), ["b3", "a1"]),
        (RunFilter(attributes={"customer": "bob", "plan": "small"}), []),
        (RunFilter(attributes={"customer": "an"}), []),
        (RunFilter(attributes={"plan": "big"}, workflow="red", status=RunStatus.FAILED), ["b2"]),
        (RunFilter(attributes={"customer": "ann"}, since=at(1)), ["b3", "b1"]),
        (RunFilter(id_prefix="b"), ["b3", "b2", "b1"]),
        (RunFilter(id_prefix="b", workflow="v"), ["b2"]),
        (RunFilter(id_prefix="b1"), ["b1"]),
    ],
    ids=str,
)
async def test_runs_are_found(workflows: WorkflowRepository, where: RunFilter, ids: list[str]) -> None:
    await fill(workflows)
    assert [found.id for found in await workflows.list_all_runs(where=where)] == ids
    of_one = [id for id in ids if id not in ("a1", "b2")]
    assert [found.id for found in await workflows.list_runs("w", where=where)] == of_one
    counted = await workflows.count_runs(where)
    assert sum(count.runs for count in counted.counts) == len(ids)
    assert not counted.more
    gone_through: list[str] = []
    while page := await workflows.list_all_runs(
        limit=2, where=where, after=gone_through[-1] if gone_through else None
    ):
        gone_through += [found.id for found in page]
    assert gone_through == ids


async def test_runs_are_counted_by_workflow_and_status(workflows: WorkflowRepository) -> None:
    await fill(workflows)
    counted = await workflows.count_runs()
    assert counted.counts == (
        RunCount(workflow_id="v", status=RunStatus.FAILED, runs=1),
        RunCount(workflow_id="v", status=RunStatus.PENDING, runs=1),
        RunCount(workflow_id="w", status=RunStatus.FAILED, runs=2),
        RunCount(workflow_id="w", status=RunStatus.PENDING, runs=1),
    )


async def test_a_status_and_a_filter_apply_together(workflows: WorkflowRepository) -> None:
    await fill(workflows)
    found = await workflows.list_all_runs(RunStatus.FAILED, where=RunFilter(workflow="w"))
    assert [each.id for each in found] == ["b3", "a2"]
    assert await workflows.list_all_runs(RunStatus.FAILED, where=RunFilter(status=RunStatus.PENDING)) == []


async def test_runs_that_began_at_one_time_are_each_listed_once(workflows: WorkflowRepository) -> None:
    await workflows.save_definition(definition("w"))
    ids = [f"{number}" for number in range(7)]
    for id in ids:
        await workflows.create_run(run(id, attributes={"n": "v"}))
    for where in (None, RunFilter(attributes={"n": "v"}), RunFilter(workflow="w")):
        seen: list[str] = []
        while page := await workflows.list_all_runs(limit=3, where=where, after=seen[-1] if seen else None):
            seen += [each.id for each in page]
        assert sorted(seen) == ids


async def test_a_list_after_a_run_that_is_gone_is_refused(workflows: WorkflowRepository) -> None:
    await fill(workflows)
    await workflows.delete_run("b2")
    with pytest.raises(NotFound, match="b2"):
        await workflows.list_all_runs(after="b2")


async def test_attributes_are_kept_with_the_run(workflows: WorkflowRepository) -> None:
    await fill(workflows)
    found = await workflows.get_run("b1")
    assert found is not None
    assert found.attributes == {"customer": "ann", "plan": "small"}
    assert (await workflows.list_all_runs(where=RunFilter(id_prefix="b1")))[0].attributes == found.attributes
    assert await workflows.create_run(found) == found
    with pytest.raises(Conflict):
        await workflows.create_run(run("b1", "w", started_at=at(2), concurrency_key="k", attributes={"a": "b"}))
    await workflows.fork_run("b1", "fork")
    assert (await workflows.list_all_runs(where=RunFilter(attributes={"plan": "small"})))[0].id == "fork"


@pytest.mark.parametrize(
    "attributes",
    [
        {f"n{number}": "v" for number in range(17)},
        {"": "v"},
        {"n": ""},
        {"n" * 257: "v"},
        {"n": "v" * 257},
        {"n": "a\nb"},
    ],
    ids=["too many", "no name", "no value", "a long name", "a long value", "two lines"],
)
async def test_attributes_are_few_short_texts(workflows: WorkflowRepository, attributes: dict[str, str]) -> None:
    await workflows.save_definition(definition("w"))
    with pytest.raises(InvalidValue, match="attributes"):
        await workflows.create_run(run("r", attributes=attributes))
    assert await workflows.get_run("r") is None


async def test_a_time_that_is_none_is_refused(workflows: WorkflowRepository) -> None:
    for wrong in (RunFilter(since="yesterday"), RunFilter(until="2026-01-01T00:00:00")):
        with pytest.raises(InvalidValue, match=r"since|until"):
            await workflows.list_all_runs(where=wrong)
