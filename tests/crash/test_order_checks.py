"""What the judge of orders says of books in which one thing is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import bus
from bus.model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog
from bus.model.schedules import Overlap, ScheduleStatus

from .clerk import SCHEDULES
from .order_checks import Books, Order, contradictions, faults
from .shop import Line
from .voyages import Told

SHIPPED = [1, 5]


def line(what: str, step: str, value: object = None, *, run: str = "r") -> Line:
    return Line(what, run, step, 0, value)


def run(id: str, workflow: str = "order", status: RunStatus = RunStatus.COMPLETED, **fields: Any) -> WorkflowRun:
    return WorkflowRun(
        id=id,
        workflow_id=workflow,
        workflow_name=workflow,
        trigger_type="manual",
        status=status,
        **{"started_at": "2026-01-01T00:00:00.000000Z", "completed_at": "2026-01-01T00:00:00.500000Z"} | fields,
    )


def step(run_id: str, name: str, status: StepStatus = StepStatus.COMPLETED) -> WorkflowStepLog:
    return WorkflowStepLog(id=f"{run_id}/{name}", run_id=run_id, step_id=name, step_name=name, status=status)


def tick(name: str, second: int) -> WorkflowRun:
    at = f"2026-01-01T00:00:0{second}"
    return run(
        f"{name}@{second}",
        name,
        trigger_payload={"schedule": name, "at": f"{at}.000000Z"},
        started_at=f"{at}.100000Z",
        completed_at=f"{at}.900000Z",
    )


def schedule(name: str, fired: int) -> ScheduleStatus:
    [found] = [each for each in SCHEDULES if each.id == name]
    return ScheduleStatus(
        id=name,
        schedule=found,
        paused=True,
        next_at=None,
        queued_at=None,
        last_at=None,
        last_run_id=None,
        fired=fired,
        skipped=0,
        error=None,
        created_at="",
        created_by=None,
    )


def books() -> Books:
    """Return books in which nothing is wrong: an order, one that was cancelled, one that is a fork, and ticks."""
    result = {"charged": [7, 1], "paid": 7, "items": [0, 1, 2], "shipped": SHIPPED}
    runs = [
        run("done", result=result),
        shipment("ship", "done"),
        shipment("ship~2", "ship", result=SHIPPED),
        run("gone", status=RunStatus.CANCELLED),
        shipment("boat", "gone", status=RunStatus.CANCELLED),
        run("fork", result=result),
        run("trip", "voyage", result=["clerk", *(6 * ["told"])]),
        *(tick("tick", second) for second in range(3)),
        *(tick("tock", second) for second in range(3)),
    ]
    return Books(
        orders={
            "done": Order(total=7),
            "gone": Order(total=8, may_be_cancelled=True),
            "fork": Order(total=7, fork_of="done", forked_before="confirm"),
        },
        runs={each.id: each for each in runs},
        steps={
            "fork": [step("fork", "shipment")],
            "gone": [step("gone", "give back")],
            "boat": [step("boat", "turn back")],
            "done": [],
        },
        confirmed=Counter(["done", "fork"]),
        refunded=Counter(["gone"]),
        told=Counter([Told("trip", "1")]),
        schedules=[schedule("tick", 3), schedule("tock", 3)],
        notes=[
            line("called", "charge/7", run="done"),
            line("saw", "charge/7", 1, run="done"),
            line("called", "charge/8", run="gone"),
            line("saw", "sail/2", 1, run="boat"),
            line("saw", "charge/7", 1, run="fork"),
            line("saw", "leg/0", "clerk", run="trip"),
            *(line("saw", f"leg/{leg}", "told", run="trip") for leg in range(1, 7)),
            line("saw", "told/1", run="trip"),
        ],
    )


def shipment(id: str, parent: str, **fields: Any) -> WorkflowRun:
    return run(id, "shipment", parent_run_id=parent, **fields)


def test_nothing_is_wrong() -> None:
    assert list(faults(books())) == []


def changed(id: str, **fields: Any) -> Callable[[Books], None]:
    def change(found: Books) -> None:
        found.runs[id] = msgspec.structs.replace(found.runs[id], **fields)

    return change


def told(**more: Counter[Any]) -> Callable[[Books], None]:
    def change(found: Books) -> None:
        for channel, counter in more.items():
            getattr(found, channel).update(counter)

    return change


def noted(*lines: Line) -> Callable[[Books], None]:
    return lambda found: found.notes.extend(lines)


def without_steps(id: str) -> Callable[[Books], None]:
    return lambda found: found.steps[id].clear()


def with_step(id: str, *more: WorkflowStepLog) -> Callable[[Books], None]:
    return lambda found: found.steps[id].extend(more)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (told(confirmed=Counter(["done"])), "order done, completed, was confirmed 2 times"),
        (told(confirmed=Counter(["gone"])), "order gone, cancelled, was confirmed 1 times"),
        (told(refunded=Counter(["done"])), "order done, completed, was refunded 1 times"),
        (told(refunded=Counter(["gone"])), "order gone, cancelled, was refunded 2 times"),
        (without_steps("gone"), "order gone, cancelled, has given back 0 times"),
        (with_step("gone", step("gone", "give back")), "order gone, cancelled, has given back 2 times"),
        (with_step("done", step("done", "give back")), "order done, completed, has given back 1 times"),
        (changed("done", result={"paid": 7, "items": [0, 0, 1], "shipped": SHIPPED}), "order done of "),
        (changed("done", result=None), "order done of "),
        (changed("fork", status=RunStatus.CANCELLED), "order fork is cancelled, and nobody cancelled it"),
        (changed("ship", parent_run_id="other"), "order done, completed, has the shipments []"),
        (changed("boat", parent_run_id="done"), "shipment boat is cancelled, and order done is completed"),
        (changed("ship~2", result=[1, 6]), "order done was shipped as [1, 5], and its shipment says [1, 6]"),
        (without_steps("boat"), "shipment boat was cancelled after it had sailed, and has turned back 0 times"),
        (lambda found: found.runs.pop("tick@1"), "schedule tick has started 3 runs, and there are 2"),
        (lambda found: found.runs.pop("tick@1"), "schedule tick has started nothing between "),
        (changed("tick@1", trigger_payload=tick("tick", 2).trigger_payload), "has started more than one run"),
        (changed("tock@1", completed_at="2026-01-01T00:00:02.200000Z"), "run tock@2 was started while tock@1 had"),
        (
            with_step("done", step("done", "pack", StepStatus.RUNNING)),
            "step pack of run done is running at the end",
        ),
        (noted(line("called", "pick/1", run="fork")), "fork is a fork, and carried out pick/1 again"),
        (noted(line("saw", "charge/7", 3, run="fork")), "fork/charge/7 gave 3, and 1 in the order that it is"),
        (told(told=Counter([Told("trip", "1")])), "leg 1 of voyage trip was told 2 times"),
        (noted(line("saw", "told/2", run="trip")), "leg 2 of voyage trip has told something, and nobody heard it"),
        (changed("trip", result=["told"]), "voyage trip has the result ['told'], and saw "),
        (changed("trip", status=RunStatus.CANCELLED), "voyage trip is cancelled, and nobody cancelled it"),
        (noted(line("saw", "leg/0", "no answer", run="trip")), "trip/leg/0 gave clerk and later no answer"),
        (noted(line("called", "charge/7", run="done")), "done/charge/7 was carried out again after its output had"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(change: Callable[[Books], object], said: str) -> None:
    found = books()
    change(found)
    assert [fault for fault in faults(found) if said in fault]


def test_an_order_that_was_cancelled_before_it_began_has_nothing_to_give_back() -> None:
    found = books()
    found.notes = [each for each in found.notes if each.run != "gone"]
    found.refunded.clear()
    found.steps["gone"].clear()
    assert list(faults(found)) == []


def test_the_schedules_are_one_that_overlaps_and_one_that_does_not() -> None:
    assert {each.id: each.overlap for each in SCHEDULES} == {"tick": Overlap.ALLOW, "tock": Overlap.QUEUE}
    assert {each.catch_up for each in SCHEDULES} == {bus.CatchUp.ALL}


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ([line("called", "a"), line("called", "a"), line("saw", "a", 1), line("saw", "a", 1)], []),
        ([line("saw", "a", 1), line("saw", "a", 2, run="s"), line("called", "b")], []),
        ([line("saw", "a", 1), line("saw", "a", 2)], ["r/a gave 1 and later 2"]),
        ([line("saw", "a", 1), line("called", "a")], ["r/a was carried out again after its output had been seen"]),
    ],
    ids=["repeated before", "others", "two outputs", "again"],
)
def test_what_contradicts_an_output_that_was_seen_is_found(notes: list[Line], found: list[str]) -> None:
    assert list(contradictions(notes)) == found


def test_a_process_that_was_stopped_may_do_what_it_was_about_to_do() -> None:
    seen = [line("saw", "a", 1), Line("continued", "", "", 5, 42)]
    again = "r/a was carried out again after its output had been seen"
    assert list(contradictions([*seen, Line("called", "r", "a", 7, by=42)])) == []
    assert list(contradictions([*seen, Line("called", "r", "a", 7, by=43)])) == [again], "another process"
    assert list(contradictions([*seen, Line("called", "r", "a", 2_000_000_000, by=42)])) == [again], "much later"


SEEN = [line("called", "a/0"), line("saw", "a/0", 1), line("saw", "b/0", 1), line("sets aside", "a")]


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        ([*SEEN, line("has set aside", "a"), line("called", "a/0"), line("saw", "a/0", 2)], []),
        ([*SEEN, line("called", "a/0"), line("has set aside", "a"), line("saw", "a/0", 2)], []),
        ([*SEEN, line("saw", "a/0", 1)], []),
        (
            [*SEEN, line("has set aside", "a"), line("saw", "a/0", 1)],
            ["r/a/0 was set aside, and its old output seen"],
        ),
        ([*SEEN, line("called", "b/0")], ["r/b/0 was carried out again after its output had been seen"]),
    ],
    ids=["again", "before the answer", "refused", "not again", "another"],
)
def test_what_is_set_aside_is_carried_out_again(notes: list[Line], found: list[str]) -> None:
    assert list(contradictions(notes)) == found
