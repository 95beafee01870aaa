"""Executing a run: outputs that are read back as what they were, types that JSON does not know, early refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from bus.errors import InvalidValue, TooLarge
from bus.model.records import RunStatus, WorkflowDefinition
from bus.runs.run import Run

from .conftest import Place
from .executing import Programs, Seen

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
ID = UUID("01990000-0000-7000-8000-00000000000a")


class Page(msgspec.Struct):
    title: str
    seen_at: datetime


@dataclass
class Score:
    of: Page
    points: tuple[int, ...]


class Card(pydantic.BaseModel):
    name: str
    id: UUID
    parents: list[Card] = []


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


# ── Outputs ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Page, Page("t", NOON)),
        (Score, Score(Page("t", NOON), (1, 2))),
        (Card, Card(name="a", id=ID, parents=[Card(name="b", id=ID)])),
        (list[Card], [Card(name="a", id=ID)]),
        (dict[UUID, bytes], {ID: b"\x00\xff"}),
        (set[int], {1, 2}),
        (Page | None, None),
        (datetime, NOON),
    ],
)
async def test_an_output_is_what_it_was_at_once_and_after_a_restart(
    programs: Programs, workflow: WorkflowDefinition, kind: Any, value: Any
) -> None:
    seen, found = Seen(), []

    async def fetch() -> Any:
        seen.note("fetch")
        return value

    async def body(run: Run) -> None:
        found.append(await run.step("fetch", fetch, returns=kind))

    await programs.leave_undone(body)
    async with programs.open() as run:
        await body(run)
    assert found == [value, value]
    assert type(found[0]) is type(found[1]) is type(value)
    assert seen.calls == {"fetch": 1}


class Strange:
    """Neither JSON nor a model."""


@pytest.mark.parametrize("kind", [Strange, list[Strange], dict[str, Score | Strange], PurePosixPath, Page | Score])
async def test_a_type_that_cannot_be_read_is_refused_before_the_call(
    programs: Programs, workflow: WorkflowDefinition, kind: Any
) -> None:
    seen = Seen()
    async with programs.open() as run:
        with pytest.raises(TypeError):
            await run.step("fetch", seen.double, 1, returns=kind)
    assert seen.calls == {}


async def test_an_output_of_another_type_is_kept_for_the_mended_program(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    seen = Seen()

    async def fetch() -> Any:
        seen.note("fetch")
        return {"title": "t"}

    for _ in range(2):  # the first time, and from its record
        with pytest.raises(InvalidValue, match=r"it is recorded, and cannot be read as Page: .*seen_at"):
            async with programs.open() as run:
                await run.step("fetch", fetch, returns=Page)
        assert await programs.status() == RunStatus.PAUSED
    async with programs.open() as run:
        assert await run.step("fetch", fetch, returns=dict[str, str]) == {"title": "t"}
    assert seen.calls == {"fetch": 1}


async def test_without_a_type_an_output_is_plain_json(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def fetch() -> Any:
        return [Card(name="a", id=ID), Page("t", NOON)]

    async with programs.open() as run:
        output = await run.step("fetch", fetch)
    assert output == [
        {"name": "a", "id": str(ID), "parents": []},
        {"title": "t", "seen_at": "2026-06-01T12:00:00Z"},
    ]


# ── Hooks ────────────────────────────────────────────────────────────────────────────────────────────────


def encode(value: Any) -> Any:
    if isinstance(value, PurePosixPath):
        return str(value)
    if isinstance(value, complex):
        return [value.real, value.imag]
    raise NotImplementedError


def decode(kind: type, value: Any) -> Any:
    if kind is PurePosixPath:
        return PurePosixPath(value)
    raise NotImplementedError


async def test_hooks_write_and_read_other_types(programs: Programs, workflow: WorkflowDefinition) -> None:
    programs.values.encode, programs.values.decode = encode, decode
    path = PurePosixPath("/a/b")

    async def fetch(given: PurePosixPath) -> Any:
        return {"at": [given], "card": Card(name="a", id=ID), "n": 1j}

    async def body(run: Run) -> Any:
        run.context["at"] = path
        return await run.step("fetch", fetch, path, returns=dict[str, Any])

    await programs.leave_undone(body)
    async with programs.open() as run:
        card = {"name": "a", "id": str(ID), "parents": []}
        assert await body(run) == {"at": ["/a/b"], "card": card, "n": [0.0, 1.0]}
        assert await run.step("where", lambda: path, returns=PurePosixPath) == path
        with pytest.raises(InvalidValue, match="type Strange cannot be written as JSON"):
            await run.step("strange", Strange)
        with pytest.raises(InvalidValue, match="NaN"):
            await run.step("nan", lambda: complex("nan"))
    [row] = await programs.rows("fetch")
    assert row.input == ["/a/b"]
    stored = await programs.workflows.get_run("r")
    assert stored is not None
    assert stored.context == {"at": "/a/b"}


async def test_a_number_that_json_has_not_is_found_in_a_model(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    class Measure(pydantic.BaseModel):
        points: float

    async with programs.open() as run:
        with pytest.raises(InvalidValue, match="nan is not a JSON number"):
            await run.step("measure", lambda: [Measure(points=float("nan"))])


# ── Found where it is set ────────────────────────────────────────────────────────────────────────────────


async def test_what_cannot_be_recorded_is_refused_where_it_is_set(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    large = "x" * (1024 * 1024)
    async with programs.open(context={"a": 1}) as run:
        context = run.context
        refused: list[tuple[type[Exception], Callable[[], Any]]] = [
            (InvalidValue, lambda: context.__setitem__("b", Strange())),
            (InvalidValue, lambda: context.update({"b": {"c": float("inf")}})),
            (InvalidValue, lambda: context.setdefault("b", Strange())),
            (InvalidValue, lambda: context.__ior__({"b": Strange()})),
            (TooLarge, lambda: context.__setitem__("b", large * 10)),
            (InvalidValue, lambda: setattr(run, "context", {"b": Strange()})),
            (TooLarge, lambda: setattr(run, "context", {"b": large * 10})),
            (InvalidValue, lambda: run.approval("ok?", Strange())),
            (TooLarge, lambda: run.approval("ok too?", large)),
            (InvalidValue, lambda: run.step("s", len, [Strange()])),
            (TooLarge, lambda: run.step("t", len, large)),
            (InvalidValue, lambda: run.commit("c", input=Strange())),
            (InvalidValue, lambda: run.commit("d", output=Strange())),
        ]
        for error, call in refused:
            with pytest.raises(error):
                call()
        assert run.context == {"a": 1}
        context["b"] = [2]
        context.setdefault("b", 3)
        context |= {"c": large * 6}
        with pytest.raises(TooLarge, match="context of run 'r' has"):
            context["d"] = large * 6
        del context["c"]
        context["d"] = large * 6
        del context["d"]
    stored = await programs.workflows.get_run("r")
    assert stored is not None
    assert stored.context == {"a": 1, "b": [2]}
    assert stored.status == RunStatus.COMPLETED


async def test_what_comes_near_a_limit_is_warned_of_once(
    programs: Programs, workflow: WorkflowDefinition, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "posthouse.client")
    half = "x" * (600 * 1024)
    async with programs.open() as run:
        for _ in range(3):
            await run.step("fetch", lambda: None, input=half)
        await run.step("other", lambda: None, input="x" * 1024)
        run.context["a"] = half
        run.context["b"] = "x" * (5 * 1024 * 1024)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the input of step 'fetch' has 614402 bytes, more than half of the 1048576 that it may have",
        "the context of run 'r' has 5857296 bytes, more than half of the 10485760 that it may have",
    ]
