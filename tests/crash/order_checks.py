"""What is expected of orders that were executed while everything was killed, and of the runs that belong to them.

Owns the judgement. Each order is completed, or cancelled with its charge given back once; no program saw two
outputs of a step, and none was carried out again after that, unless it was set aside; a fork has what its order
had; signals, children and times of schedules count once; and nothing is left open.

Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from bus.model.records import RunStatus, StepStatus, WorkflowRun, WorkflowStepLog, parse_timestamp
from bus.model.schedules import Overlap, ScheduleStatus

from .shop import ITEMS, Line
from .voyages import VOYAGE, Told, voyage_faults

__all__ = ["Books", "Order", "contradictions", "faults"]

_ENDED = (StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED)

_NOT_REPEATED: dict[str | None, tuple[str, ...]] = {
    "pack": ("charge/", "pick/"),
    "confirm": ("charge/", "pick/", "pack/"),
    None: (),
}
"""Of a fork before a step, the steps whose records it has for sure."""

_AWAKE_NANOSECONDS = 1_000_000_000

_STEPS = ("charge/", "pick/", "pack/")


class Order(msgspec.Struct, kw_only=True):
    """What the clerk knows of an order. It `may_be_cancelled` once that was asked for.

    A fork began with the records before a step, or with all that there were.
    """

    total: int
    is_paid: bool = False
    may_be_cancelled: bool = False
    fork_of: str | None = None
    forked_before: str | None = None


class Books(msgspec.Struct, kw_only=True):
    """What there is at the end: all runs with their steps, and how often each order was told on each channel."""

    orders: dict[str, Order]
    cancelled: set[str] = set()
    """The voyages that may be cancelled."""
    runs: dict[str, WorkflowRun]
    steps: dict[str, list[WorkflowStepLog]]
    confirmed: Counter[str]
    refunded: Counter[str]
    told: Counter[Told] = msgspec.field(default_factory=Counter)
    """By voyages."""
    schedules: list[ScheduleStatus]
    notes: list[Line]
    """Of all processes, in the order of time."""

    def completed_steps(self, run_id: str, name: str) -> int:
        """Count the records of a step that is completed."""
        steps = self.steps.get(run_id, ())
        return sum(step.step_id == name and step.status is StepStatus.COMPLETED for step in steps)

    def has_copy(self, run_id: str, name: str) -> bool:
        """Return whether a run began with another one's record of a step."""
        return any(step.step_id == name and step.id.startswith(f"{run_id}/") for step in self.steps.get(run_id, ()))


def faults(books: Books) -> Iterator[str]:
    """Say what is not as it has to be."""
    begun = {line.run for line in books.notes if line.what in ("called", "saw")}
    for id, order in books.orders.items():
        yield from _order_faults(books, id, order, begun=id in begun)
    yield from _children(books)
    for schedule in books.schedules:
        yield from _schedule_faults(books, schedule)
    for id, steps in books.steps.items():
        for step in steps:
            if step.status not in _ENDED:
                yield f"step {step.step_id} of run {id} is {step.status} at the end"
    yield from contradictions(books.notes)
    yield from voyage_faults(
        [run for run in books.runs.values() if run.workflow_id == VOYAGE.id],
        books.told,
        {(line.run, line.step): line.value for line in books.notes if line.what == "saw"},
        books.cancelled,
    )
    yield from _fork_faults(books)


# ── Orders ───────────────────────────────────────────────────────────────────────────────────────────────


def _order_faults(books: Books, id: str, order: Order, *, begun: bool) -> Iterator[str]:
    run = books.runs[id]
    told = {"confirmed": books.confirmed[id], "refunded": books.refunded[id]}
    given_back = books.completed_steps(id, "give back")
    if run.status is RunStatus.COMPLETED:
        confirms = 0 if books.has_copy(id, "confirm") else 1  # what is recorded is not sent again
        expected, returns = {"confirmed": confirms, "refunded": 0}, 0
        yield from _result_faults(id, order, run.result)
    else:
        # A program that was there has to give back, also if it was interrupted in the charge.
        expected, returns = {"confirmed": 0, "refunded": int(begun)}, int(begun)
        if not order.may_be_cancelled:
            yield f"order {id} is {run.status}, and nobody cancelled it"
    for channel, count in told.items():
        if count != expected[channel]:
            yield f"order {id}, {run.status}, was {channel} {count} times"
    if given_back != returns:
        yield f"order {id}, {run.status}, has given back {given_back} times"


def _result_faults(id: str, order: Order, result: Any) -> Iterator[str]:
    # A fork has some items by the records that it began with, and then gets those that were sent to itself.
    copied = range(ITEMS + 1) if order.fork_of is not None and order.forked_before is None else [0]
    items = [[*range(count), *range(ITEMS - count)] for count in copied]
    found = result if isinstance(result, dict) else {}
    if found.get("paid") != order.total or found.get("items") not in items:
        yield f"order {id} of {order.total} has the result {result}"


def _children(books: Books) -> Iterator[str]:
    """Say where an order has other shipments than it is to have, or a shipment did not turn back."""
    shipments: defaultdict[str | None, list[WorkflowRun]] = defaultdict(list)
    for run in books.runs.values():
        if run.workflow_id == "shipment":
            shipments[run.parent_run_id].append(run)
    sailed = {line.run for line in books.notes if line.what == "saw" and line.step.startswith("sail/")}
    for id in books.orders:
        run, chain = books.runs[id], _chain(id, shipments)
        has_record = books.has_copy(id, "shipment")
        if len(chain) > 2 or (run.status is RunStatus.COMPLETED and not has_record and len(chain) < 2):
            yield f"order {id}, {run.status}, has the shipments {[each.id for each in chain]}"
        if run.status is RunStatus.COMPLETED and chain:
            result = run.result if isinstance(run.result, dict) else {}
            if result.get("shipped") != chain[-1].result or chain[-1].result is None:
                yield f"order {id} was shipped as {result.get('shipped')}, and its shipment says {chain[-1].result}"
        for each in chain:
            if each.status is RunStatus.CANCELLED and run.status is not RunStatus.CANCELLED:
                yield f"shipment {each.id} is cancelled, and order {id} is {run.status}"
    for id in sailed:
        returned = books.completed_steps(id, "turn back")
        if books.runs[id].status is RunStatus.CANCELLED and returned != 1:
            yield f"shipment {id} was cancelled after it had sailed, and has turned back {returned} times"


def _chain(order: str, shipments: dict[str | None, list[WorkflowRun]]) -> list[WorkflowRun]:
    chain: list[WorkflowRun] = []
    pending = [order]
    while pending:
        found = shipments.get(pending.pop(), [])
        chain += found
        pending += [run.id for run in found]
    return chain


# ── Schedules ────────────────────────────────────────────────────────────────────────────────────────────


def _schedule_faults(books: Books, status: ScheduleStatus) -> Iterator[str]:
    """Say where a time of a schedule has no run or more than one, or runs overlap that are not to."""
    runs = [run for run in books.runs.values() if run.workflow_id == status.schedule.workflow_id]
    runs.sort(key=lambda run: parse_timestamp(run.trigger_payload["at"]))
    times = [parse_timestamp(run.trigger_payload["at"]) for run in runs]
    if len(times) != status.fired:
        yield f"schedule {status.id} has started {status.fired} runs, and there are {len(times)}"
    for run, before, at, time in zip(runs[1:], runs, times, times[1:], strict=False):
        seconds = (time - at).total_seconds()
        if seconds == 0:
            yield f"the time {time} of schedule {status.id} has started more than one run"
        if status.schedule.overlap is Overlap.ALLOW and seconds > 1:
            yield f"schedule {status.id} has started nothing between {at} and {time}"
        if status.schedule.overlap is not Overlap.ALLOW and run.started_at < (before.completed_at or ""):
            yield f"run {run.id} was started while {before.id} had not ended"


# ── What programs said ───────────────────────────────────────────────────────────────────────────────────


def contradictions(notes: Sequence[Line]) -> Iterator[str]:
    """Say where a program saw another output than one before, or a step was carried out again after that.

    What is set aside is forgotten, and has to be carried out again. A process that was stopped for longer than its
    leases may still call the functions that it was about to call.
    """
    seen: dict[tuple[str, str], Line] = {}
    anew: set[tuple[str, str]] = set()
    """What was asked to be set aside, and not carried out since."""
    continued: dict[int, int] = {}
    stale: set[tuple[str, str]] = set()
    """What was seen of that. It is a fault if the request took effect, which is known when it is answered."""
    for line in notes:
        place = line.run, line.step
        first = seen.get(place)
        if line.what == "sets aside":
            aside = {each for each in seen if each[0] == line.run and each[1].startswith(f"{line.step}/")}
            anew |= aside
            stale -= aside
            for each in aside:
                del seen[each]
        elif line.what == "continued":
            continued[line.value] = line.at
        elif line.what == "called":
            anew.discard(place)
            woke = line.by in continued and line.at <= continued[line.by] + _AWAKE_NANOSECONDS
            if first is not None and not woke:
                yield f"{line.run}/{line.step} was carried out again after its output had been seen"
        elif line.what == "saw":
            if place in anew:
                stale.add(place)
            if seen.setdefault(place, line).value != line.value:
                yield f"{line.run}/{line.step} gave {seen[place].value} and later {line.value}"
    done = {line.run for line in notes if line.what == "has set aside"}
    for run, step in sorted(stale):
        if run in done:
            yield f"{run}/{step} was set aside, and its old output seen"


def _fork_faults(books: Books) -> Iterator[str]:
    """Say where a fork carried out, or gave otherwise, what its order had done before."""
    seen = {(line.run, line.step): line.value for line in books.notes if line.what == "saw"}
    called = {(line.run, line.step) for line in books.notes if line.what == "called"}
    changed = {line.run for line in books.notes if line.what == "sets aside"}
    for line in books.notes:
        order = books.orders.get(line.run)
        if order is None or order.fork_of is None:
            continue
        if line.what == "called" and line.step.startswith(_NOT_REPEATED[order.forked_before]):
            yield f"{line.run} is a fork, and carried out {line.step} again"
        its_own = (line.run, line.step) in called or not line.step.startswith(_STEPS)
        before = seen.get((order.fork_of, line.step), line.value)
        if line.what == "saw" and not its_own and order.fork_of not in changed and line.value != before:
            yield f"{line.run}/{line.step} gave {line.value}, and {before} in the order that it is a fork of"
