"""A run as people see it: its facts, its holder, and its steps.

Owns the layout of runs and steps, and the formatting of durations. `console` owns the layout of lines; how a run is
read or followed is not known here.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence, Set
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console, Group
from rich.text import Text

from ..errors.words import amount
from ..model.records import (
    Lease,
    RunStatus,
    RunSummary,
    Signal,
    StepStatus,
    WorkflowRun,
    WorkflowStepLog,
    parse_timestamp,
    timestamp,
)
from .console import Facts, StatusText, Time, fact_lines, shortened, show_facts, show_rows, table
from .streams import plain, say

__all__ = ["RunView", "change_line", "hint", "look", "run_rows", "show_run"]

_STEP_COLUMNS = ("step", "attempt", "status", "took", "error or output")

_LINES_BESIDES = 6
"""Lines of a view on a terminal beside its facts and steps."""


class RunView(msgspec.Struct, frozen=True):
    """What was read of a run at one time; `names` are those of bots by id. A summary is not always read."""

    run: WorkflowRun
    lease: Lease | None
    steps: list[WorkflowStepLog]
    names: dict[str, str]
    summary: RunSummary | None = None
    signals: Sequence[Signal] = ()

    @property
    def asks(self) -> bool:
        """Whether a step waits for a person."""
        return any(step.status == StepStatus.WAITING_APPROVAL for step in self.steps)

    @property
    def holder(self) -> str:
        """The name of the run's holder; empty if nobody holds it."""
        return "" if self.lease is None else self.names.get(self.lease.holder, self.lease.holder)

    def value(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        lease = None if self.lease is None else msgspec.to_builtins(self.lease) | {"holder_name": self.holder}
        return {"run": self.run, "lease": lease, "steps": self.steps, "signals": self.signals}


# ── Times and texts ──────────────────────────────────────────────────────────────────────────────────────


def _took(started_at: str | None, completed_at: str | None, *, active: bool) -> str:
    """Return how long something took, or has taken so far if it is running; empty if neither is known."""
    if started_at is None or (completed_at is None and not active):
        return ""
    try:
        end = datetime.now(UTC) if completed_at is None else parse_timestamp(completed_at)
        seconds = max(0.0, (end - parse_timestamp(started_at)).total_seconds())
    except ValueError:
        return ""  # a run's times are arbitrary texts of its author
    return f"{_duration(seconds)}{' so far' if completed_at is None else ''}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _first_line(text: str | None) -> str:
    """Return the first non-empty line of an error."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")


def _outcome(step: WorkflowStepLog) -> str:
    if step.error is not None:
        return _first_line(step.error)
    if step.output is None:
        return ""
    return shortened(step.output)


def _waiting(signals: Sequence[Signal]) -> str:
    """Return which signals the run has not taken."""
    counts = Counter(signal.name for signal in signals)
    return ", ".join(name if count == 1 else f"{name} ({count} times)" for name, count in counts.items())


def _time(stored: str | None) -> str:
    """Return a time as a table shows it; an author's text that is not a time is unchanged."""
    try:
        return "" if stored is None else Time(timestamp(parse_timestamp(stored)))
    except ValueError:
        return stored or ""


# ── Lists ────────────────────────────────────────────────────────────────────────────────────────────────


def _status(run: RunSummary | WorkflowRun, *, queued: bool, asks: bool) -> StatusText:
    """Return a run's status, and what it waits for. One that a person or an error paused has an error."""
    if queued:
        return StatusText(f"{run.status}, waits for a slot")
    if asks and run.completed_at is None:
        return StatusText(f"{run.status}, waits for a person")
    waits = run.status == RunStatus.PAUSED and run.error is None
    return StatusText(f"{run.status}, waits" if waits else run.status)


def run_rows(runs: Sequence[RunSummary], names: dict[str, str], asking: Set[str]) -> list[tuple[Any, ...]]:
    """Return a row for each run: id, workflow, status, holder, started, took, error.

    `asking` has the ids of those that wait for a person.
    """
    return [
        (
            run.id,
            run.workflow_name,
            _status(run, queued=run.queued_at is not None, asks=run.id in asking),
            "" if run.holder is None else names.get(run.holder, run.holder),
            _time(run.started_at),
            _took(run.started_at, run.completed_at, active=run.status == RunStatus.RUNNING),
            _first_line(run.error),
        )
        for run in runs
    ]


# ── One run ──────────────────────────────────────────────────────────────────────────────────────────────


def _facts(view: RunView) -> Facts:
    """Return the facts of a run, and who holds it."""
    run, lease, summary = view.run, view.lease, view.summary
    queued_at = None if summary is None else summary.queued_at
    recoveries = 0 if summary is None else summary.recoveries
    over = lease is not None and lease.expires_at <= timestamp(datetime.now(UTC))
    return {
        "run": run.id,
        "workflow": run.workflow_name,
        "status": _status(run, queued=queued_at is not None, asks=view.asks),
        "queued": _time(queued_at),
        "held by": view.holder,
        "expired" if over else "until": _time(lease.expires_at if lease is not None else None),
        "lost": f"{amount(recoveries, 'time')} found without a live holder" if recoveries else "",
        "trigger": run.trigger_type,
        "key": run.concurrency_key or "",
        "parent": run.parent_run_id or "",
        "continued as": run.continued_as or "",
        "to be cancelled by": _time(run.cancel_by),
        "not before": _time(run.not_before) if run.status == RunStatus.PENDING else "",
        "with": "  ".join(f"{name}={value}" for name, value in run.attributes.items()),
        "started": _time(run.started_at),
        "ended": _time(run.completed_at),
        "took": _took(run.started_at, run.completed_at, active=run.status == RunStatus.RUNNING),
        "signals": _waiting(view.signals),
        "error": run.error or "",
        "result": "" if run.result is None else shortened(run.result),
    }


def _step_rows(steps: Sequence[WorkflowStepLog]) -> list[tuple[Any, ...]]:
    return [
        (
            step.step_id,
            step.attempt,
            StatusText(step.status),
            _took(step.started_at, step.completed_at, active=step.status == "running"),
            _outcome(step),
        )
        for step in steps
    ]


def hint(view: RunView) -> str:
    """Return the command with which a person can let a run continue, or an empty text."""
    waiting = [step.step_id for step in view.steps if step.status == "waiting_approval"]
    if view.run.status == RunStatus.CRASHED:
        return f"to let it continue: posthouse resume {shlex.quote(view.run.id)}"
    if waiting and view.run.completed_at is None:
        return f"to approve {waiting[0]}: posthouse approve {shlex.join((view.run.id, waiting[0]))}"
    return ""


def show_run(view: RunView) -> None:
    """Print a run and its steps."""
    show_facts(_facts(view))
    say()
    show_rows(_STEP_COLUMNS, _step_rows(view.steps), nothing="no step has begun")


def look(console: Console, view: RunView) -> Group:
    """Return a run for a terminal that is redrawn, with as many of its last steps as fit."""
    facts = fact_lines(console, _facts(view))
    room = max(1, console.height - len(facts) - _LINES_BESIDES)
    left_out = len(view.steps) - room
    more = [Text(f"{left_out} earlier steps are not shown", "dim")] if left_out > 0 else []
    return Group(*facts, *more, table(console, _STEP_COLUMNS, _step_rows(view.steps[-room:])))


# ── Changes ──────────────────────────────────────────────────────────────────────────────────────────────


def change_line(thing: WorkflowRun | WorkflowStepLog) -> str:
    """Return the line that reports a run's or a step's new status."""
    if isinstance(thing, WorkflowRun):
        name, outcome = f"run {thing.id}", _first_line(thing.error)
    else:
        attempt = f" (attempt {thing.attempt})" if thing.attempt > 1 else ""
        name, outcome = f"step {thing.step_id}{attempt}", _outcome(thing)
    text = f"{timestamp(datetime.now(UTC))}  {name}  {thing.status}"
    return plain(f"{text}  {outcome}" if outcome else text)
