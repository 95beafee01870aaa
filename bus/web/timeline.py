"""The steps of a run on a time line: where each attempt begins and ends, in parts of a hundred.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from ..model.records import WorkflowStepLog
from .shown import seconds_between

__all__ = ["Bar", "timeline"]

_NARROWEST = 0.6
"""What took no time is seen, too."""


class Bar(NamedTuple):
    """An attempt at a step, its place on the line, and how many seconds it took, if that is known."""

    step: WorkflowStepLog
    left: float
    width: float
    seconds: float | None


def timeline(steps: Sequence[WorkflowStepLog], began_at: str, ended_at: str | None, now: datetime) -> list[Bar]:
    """Place steps between the times of their run. What has no valid time has no width."""
    last = max((each.completed_at or "" for each in steps), default="")
    whole = max((seconds_between(began_at, end, now) or 0.0 for end in (ended_at, last or ended_at)), default=0.0)
    bars: list[Bar] = []
    for step in steps:
        begin = seconds_between(began_at, step.started_at, now) if step.started_at else None
        seconds = seconds_between(step.started_at, step.completed_at, now)
        if begin is None or seconds is None or whole <= 0:
            bars.append(Bar(step, 0.0, 0.0, seconds))
            continue
        left = min(100 * begin / whole, 100 - _NARROWEST)
        bars.append(Bar(step, left, min(max(100 * seconds / whole, _NARROWEST), 100 - left), seconds))
    return bars
