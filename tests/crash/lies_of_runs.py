"""Workers that are broken on purpose in what they do with runs: see `lies`, which tells them with the others.

Owns the lies about signals, cancelling, retries, forks, children and schedules, and what the judge of orders has to
say of each. Each replaces a piece of the store's inside in a process that becomes a worker.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import aiosqlite
import msgspec

from bus.model.checked import NewRun, new_run
from bus.model.leases import HeldRun
from bus.model.records import CONTINUED
from bus.model.retrying import StepMark, is_set_aside
from bus.model.schedules import Due, ScheduleState, WorkflowSchedule
from store.sqlite.file.writer import Transaction
from store.sqlite.workflows import cancelling, retrying, schedules
from store.sqlite.workflows.runs import Runs
from store.sqlite.workflows.signals import RunSignals

from .lies_of_mailboxes import replace

__all__ = ["LIES_OF_RUNS", "TELLERS_OF_RUNS"]

LIES_OF_RUNS: dict[str, str] = {
    "signals_taken_twice": "has the result",
    "cancelled_unasked": "has given back 0 times",
    "retries_set_nothing_aside": "was set aside, and its old output seen",
    "retries_set_all_aside": "was carried out again after its output had been seen",
    "forks_begin_anew": "is a fork, and carried out",
    "children_twice": "has the shipments",
    "times_left_out": "has started nothing between",
    "times_twice": "has started more than one run",
    "overlaps_allowed": "had not ended",
}
"""Each with a part of a sentence that has to be said of it."""


# ── Signals and children ─────────────────────────────────────────────────────────────────────────────────


def _signals_taken_twice() -> None:
    def make(honest: Any) -> Any:
        async def take(signals: RunSignals, transaction: Transaction, *rest: Any) -> Any:
            step = await honest(signals, transaction, *rest)
            sql = "UPDATE workflow_signals SET taken_by = NULL WHERE taken_by = ?"
            await transaction.connection.execute(sql, (step.id,))
            return step

        return take

    replace(RunSignals, "take", make)


def _children_twice() -> None:
    def make(honest: Any) -> Any:
        async def create(
            runs: Runs, connection: aiosqlite.Connection, new: NewRun, *by: Any, **options: Any
        ) -> Any:
            created = await honest(runs, connection, new, *by, **options)
            if new.run.parent_run_id is not None and new.run.trigger_type != CONTINUED:
                twin = new_run(msgspec.structs.replace(new.run, id=f"{new.run.id}-twin"))
                await honest(runs, connection, twin, *by, **options)
                sql = "UPDATE workflow_runs SET status = 'completed', completed_at = started_at WHERE id = ?"
                await connection.execute(sql, (twin.run.id,))
            return created

        return create

    replace(Runs, "create", make)


# ── Cancelling, retries and forks ────────────────────────────────────────────────────────────────────────


def _cancelled_unasked() -> None:
    def make(honest: Any) -> Any:
        def cancel(held: HeldRun, reason: str | None, cancel_by: str, **times: str) -> Any:
            return honest(held, reason, "", **times)

        return cancel

    replace(cancelling, "cancel", make)


def _retries_set_nothing_aside() -> None:
    def make(honest: Any) -> Any:
        def set_aside(marks: list[StepMark], from_step: str | None, **stopped: bool) -> Any:
            return honest(marks, None, **stopped)

        return set_aside

    replace(retrying, "set_aside", make)


def _retries_set_all_aside() -> None:
    def make(honest: Any) -> Any:
        def set_aside(marks: list[StepMark], from_step: str | None, **stopped: bool) -> Any:
            first = next((mark.step_id for mark in marks if not is_set_aside(mark.step_id)), None)
            return honest(marks, first, **stopped)

        return set_aside

    replace(retrying, "set_aside", make)


def _forks_begin_anew() -> None:
    def make(honest: Any) -> Any:
        def forked(marks: list[StepMark], before_step: str | None, **stopped: bool) -> list[str]:
            return []

        return forked

    replace(retrying, "forked", make)


# ── Schedules ────────────────────────────────────────────────────────────────────────────────────────────


def _times_left_out() -> None:
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        def due_runs(schedule: WorkflowSchedule, state: ScheduleState, **now: Any) -> Any:
            due: Due = honest(schedule, state, **now)
            if next(turn) % 3:
                return due
            after = msgspec.structs.replace(due.state, fired=state.fired)
            return Due([], after)

        return due_runs

    replace(schedules, "due_runs", make)


def _times_twice() -> None:
    def make(honest: Any) -> Any:
        async def create(*arguments: Any) -> Any:
            connection, runs, run, _, time = arguments
            created = await honest(*arguments)
            twin = msgspec.structs.replace(run, id=f"{run.id}-twin", trigger_payload={"schedule": "", "at": time})
            await runs.create(connection, new_run(twin))
            return created

        return create

    replace(schedules, "_create", make)


def _overlaps_allowed() -> None:
    def make(honest: Any) -> Any:
        def due_runs(schedule: WorkflowSchedule, state: ScheduleState, *, now: str, busy: bool) -> Any:
            return honest(schedule, state, now=now, busy=False)

        return due_runs

    replace(schedules, "due_runs", make)


TELLERS_OF_RUNS: dict[str, Callable[[], None]] = {
    "signals_taken_twice": _signals_taken_twice,
    "cancelled_unasked": _cancelled_unasked,
    "retries_set_nothing_aside": _retries_set_nothing_aside,
    "retries_set_all_aside": _retries_set_all_aside,
    "forks_begin_anew": _forks_begin_anew,
    "children_twice": _children_twice,
    "times_left_out": _times_left_out,
    "times_twice": _times_twice,
    "overlaps_allowed": _overlaps_allowed,
}
