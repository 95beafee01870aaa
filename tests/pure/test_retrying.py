"""Letting a run go on: which records count no longer, and which a fork begins with."""

from __future__ import annotations

import pytest

from bus.errors import NotFound
from bus.model.retrying import SET_ASIDE, StepMark, forked, set_aside


def mark(id: str, step_id: str, status: str, began: int | None, ended: int | None = None) -> StepMark:
    return StepMark(id, step_id, status, *(None if second is None else f"{second:02}" for second in (began, ended)))


def test_the_failed_attempts_of_the_last_step_are_set_aside() -> None:
    marks = [
        mark("1", "a", "completed", 1, 2),
        mark("2", "b", "failed", 3, 4),
        mark("3", "b", "failed", 5, 6),
    ]
    assert set_aside(marks, None, has_error=True) == ["2", "3"]
    assert forked(marks, None, has_error=True) == ["1"]


def test_a_failure_that_ended_nothing_is_kept() -> None:
    marks = [mark("1", "a", "completed", 1, 2), mark("2", "wait", "failed", 3, 4)]
    assert set_aside(marks, None, has_error=False) == []
    assert set_aside(marks, "wait", has_error=False) == ["2"]
    assert forked(marks, None, has_error=False) == ["1", "2"]


def test_a_failure_after_which_the_program_went_on_is_kept() -> None:
    marks = [
        mark("1", "a", "failed", 1, 2),
        mark("2", "fallback", "completed", 3, 4),
        mark("3", "b", "failed", 5, 6),
    ]
    assert set_aside(marks, None, has_error=True) == ["3"]
    assert forked(marks, None, has_error=True) == ["1", "2"]


def test_of_steps_side_by_side_those_that_failed_are_set_aside() -> None:
    marks = [
        mark("1", "a", "failed", 1, 5),
        mark("2", "b", "completed", 2, 4),
        mark("3", "c", "failed", 3, 5),
        mark("4", "d", "running", 3),
        mark("5", "e", "pending", None),
    ]
    assert set_aside(marks, None, has_error=True) == ["1", "3"]


def test_a_step_that_succeeded_at_last_is_kept() -> None:
    marks = [mark("1", "a", "failed", 1, 2), mark("2", "a", "completed", 3, 4)]
    assert set_aside(marks, None, has_error=True) == []
    assert forked(marks, None, has_error=True) == ["1", "2"]


def test_from_a_step_on_everything_is_set_aside() -> None:
    marks = [
        mark("1", "a", "completed", 1, 2),
        mark("2", "b", "failed", 3, 4),
        mark("3", "c", "completed", 4, 5),
        mark("4", "b", "completed", 5, 6),
        mark("5", "d", "waiting_approval", 7),
    ]
    assert set_aside(marks, "b", has_error=True) == ["2", "3", "4", "5"]
    assert set_aside(marks, "d", has_error=True) == ["5"]
    assert forked(marks, "c", has_error=True) == ["1", "2"]
    assert forked(marks, "a", has_error=True) == []
    for choose in (set_aside, forked):
        with pytest.raises(NotFound):
            choose(marks, "nothing", has_error=True)


def test_what_is_set_aside_stays_so() -> None:
    marks = [
        mark("1", f"a{SET_ASIDE}", "failed", 1, 2),
        mark("2", "a", "failed", 3, 4),
    ]
    assert set_aside(marks, None, has_error=True) == ["2"]
    assert set_aside(marks, "a", has_error=True) == ["2"]
    assert forked(marks, None, has_error=True) == []
