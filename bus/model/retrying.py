"""Letting a run that failed go on: which of its records count no longer, and which a fork begins with.

Owns the choice of records. A record that is set aside keeps everything but its step id: no call finds it any more.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import NotFound
from .records import StepStatus

__all__ = ["SET_ASIDE", "StepMark", "forked", "is_set_aside", "set_aside"]

SET_ASIDE = "#set-aside"
"""The end of a step id whose record counts no longer: a call's id ends with `#` and a number, if it has a `#`."""

_ENDS = {StepStatus.COMPLETED, StepStatus.FAILED, StepStatus.SKIPPED}


class StepMark(msgspec.Struct, frozen=True):
    """What the choice needs to know of a step log; `began` and `ended` are times in the stored form, or None."""

    id: str
    step_id: str
    status: str
    began: str | None
    ended: str | None


def is_set_aside(step_id: str) -> bool:
    """Return True if records with this step id count no longer."""
    return step_id.endswith(SET_ASIDE)


def set_aside(marks: Sequence[StepMark], from_step: str | None, *, has_error: bool) -> list[str]:
    """Return the ids of the records to set aside, of step logs in their order: all from a step on.

    Without a step, the failed attempts of the steps that ended the run, if an error did that. A step that failed
    before another one began is not among them: its program went on, and would take another path if the step
    succeeded now. Nor is any if a person or a crash stopped the run: its program may have seen a failure, and gone
    on from there.

    Raise NotFound for a step without a record.
    """
    marks = [mark for mark in marks if not is_set_aside(mark.step_id)]
    if from_step is not None:
        return [mark.id for mark in marks[_place(marks, from_step) :]]
    if not has_error:
        return []
    ended = _ended_the_run(marks)
    return [mark.id for mark in marks if mark.step_id in ended and mark.status == StepStatus.FAILED]


def forked(marks: Sequence[StepMark], before_step: str | None, *, has_error: bool) -> list[str]:
    """Return the ids of the records that a fork begins with: those that have ended, and began before a step.

    Without a step, all but those that a retry would set aside. Raise NotFound for a step without a record.
    """
    marks = [mark for mark in marks if not is_set_aside(mark.step_id)]
    if before_step is not None:
        marks = marks[: _place(marks, before_step)]
        left_out = set[str]()
    else:
        left_out = set(set_aside(marks, None, has_error=has_error))
    return [mark.id for mark in marks if mark.status in _ENDS and mark.id not in left_out]


def _place(marks: Sequence[StepMark], step_id: str) -> int:
    for place, mark in enumerate(marks):
        if mark.step_id == step_id:
            return place
    raise NotFound("step", step_id)


def _ended_the_run(marks: Sequence[StepMark]) -> set[str]:
    """Return the ids of the steps that failed, and after whose failure no other step began."""
    last = {mark.step_id: mark for mark in marks}
    begins = {step_id: mark.began for step_id, mark in last.items() if mark.began is not None}
    newest = sorted(begins.items(), key=lambda item: item[1])[-2:]

    def is_handled(failed: StepMark) -> bool:
        return any(step_id != failed.step_id and began > (failed.ended or "") for step_id, began in newest)

    return {mark.step_id for mark in last.values() if mark.status == StepStatus.FAILED and not is_handled(mark)}
