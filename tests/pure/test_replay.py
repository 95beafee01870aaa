"""What recorded steps say to a program that goes through its run again, case by case."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.model.records import StepStatus, WorkflowStepLog, timestamp
from bus.runs.replay import (
    GIVEN_BACK,
    INTERRUPTED,
    INTERRUPTIONS_MAX,
    WAIT_SECONDS_MAX,
    Attempt,
    Changed,
    Decision,
    GiveUp,
    Names,
    Recorded,
    Records,
    Retry,
    Wanted,
    decide,
    error_text,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)

THRICE = Retry(max_attempts=3, delay=10, factor=2, jitter=0.5)


def row(attempt: int, status: StepStatus, **fields: Any) -> WorkflowStepLog:
    names = {"id": f"s-{attempt}", "run_id": "r", "step_id": "s", "step_name": "s"}
    return WorkflowStepLog(**{**names, "attempt": attempt, "status": status, **fields})


def failed(attempt: int, *, ago: float = 0, error: str = "ValueError: broken") -> WorkflowStepLog:
    return row(attempt, StepStatus.FAILED, error=error, completed_at=timestamp(NOW - timedelta(seconds=ago)))


def done(attempt: int, input: Any = None, output: Any = "out") -> WorkflowStepLog:
    return row(attempt, StepStatus.COMPLETED, input=input, output=output)


def decided(*rows: WorkflowStepLog, chance: float = 0.0, **wanted: Any) -> Decision:
    return decide(rows, Wanted(**{"input": None, "retry": THRICE, **wanted}), now=NOW, chance=chance)


@pytest.mark.parametrize(
    ("rows", "wanted", "decision"),
    [
        ([], {}, Attempt(1, 0, last=False)),
        ([], {"retry": Retry(max_attempts=1)}, Attempt(1, 0, last=True)),
        ([done(1)], {}, Recorded("out")),
        ([failed(1), done(2)], {}, Recorded("out")),
        ([done(1, {"a": 1, "b": 2})], {"input": {"b": 2, "a": 1}}, Recorded("out")),
        ([row(1, StepStatus.SKIPPED, output="by hand")], {"input": 1}, Recorded("by hand")),
        ([done(1, 1)], {"input": 2}, Changed(1)),
        ([done(1, 1)], {"input": True}, Changed(1)),
        ([done(1, 1)], {"input": 2, "on_changed": "reuse"}, Recorded("out")),
        ([done(1, 1)], {"input": 2, "on_changed": "again"}, Attempt(2, 0, last=False)),
        ([done(1, 1), done(2, 2, "new")], {"input": 2, "on_changed": "again"}, Recorded("new")),
        ([failed(1), done(2, 1), failed(3)], {"input": 2, "on_changed": "again"}, Attempt(4, 10, last=False)),
        ([failed(1)], {}, Attempt(2, 10, last=False)),
        ([failed(1, ago=4)], {}, Attempt(2, 6, last=False)),
        ([failed(1, ago=11)], {}, Attempt(2, 0, last=False)),
        ([failed(1, ago=-1000)], {}, Attempt(2, 10, last=False)),
        ([failed(2), failed(1, ago=50)], {}, Attempt(3, 20, last=True)),
        ([failed(1), failed(2), failed(3)], {}, GiveUp(3, "ValueError: broken")),
        ([failed(1)], {"retry": Retry(max_attempts=1)}, GiveUp(1, "ValueError: broken")),
        ([failed(1, error=INTERRUPTED)], {}, Attempt(2, 0, last=False)),
        ([failed(1, error=INTERRUPTED), failed(2)], {}, Attempt(3, 10, last=False)),
        ([row(1, StepStatus.RUNNING)], {}, Attempt(2, 0, last=False)),
        ([failed(n, error=GIVEN_BACK) for n in range(1, 100)], {}, Attempt(100, 0, last=False)),
    ],
)
def test_what_a_record_says(rows: list[WorkflowStepLog], wanted: dict[str, Any], decision: Decision) -> None:
    assert decided(*rows, **wanted) == decision


def test_interruptions_are_bounded() -> None:
    rows = [failed(number, error=INTERRUPTED) for number in range(1, INTERRUPTIONS_MAX + 1)]
    assert decided(*rows[:-1]) == Attempt(INTERRUPTIONS_MAX, 0, last=False)
    assert isinstance(decided(*rows), GiveUp)


def test_waits_grow_to_their_limit_and_chance_adds_its_part() -> None:
    retry = Retry(max_attempts=10_000, delay=1, factor=2, delay_max=60, jitter=0.5)
    assert [retry.wait_seconds(failures, 0) for failures in (1, 2, 3, 7, 5000)] == [1, 2, 4, 60, 60]
    assert retry.wait_seconds(1, 1) == 1.5
    assert retry.wait_seconds(5000, 0.5) == 75


@pytest.mark.parametrize("jitter", [0, 0.1, 1e300])
@pytest.mark.parametrize("factor", [0, 1, 2, 10**300, 1e200, 1.7e308], ids="{:g}".format)
@pytest.mark.parametrize("delay", [0, 1, 1e-9, 10**300, 1.7e308], ids="{:g}".format)
def test_no_wait_leaves_the_numbers(delay: float, factor: float, jitter: float) -> None:
    for delay_max in (0, 60, WAIT_SECONDS_MAX):
        retry = Retry(max_attempts=10_000, delay=delay, factor=factor, delay_max=delay_max, jitter=jitter)
        for failures in (1, 2, 5000):
            for chance in (0.0, 0.5, 1.0):
                wait = retry.wait_seconds(failures, chance)
                assert 0 <= wait <= WAIT_SECONDS_MAX
                assert wait == 0 or (delay > 0 and delay_max > 0)
                assert NOW + timedelta(seconds=wait) >= NOW


def test_a_factor_beyond_the_numbers_waits_as_long_as_it_may() -> None:
    assert Retry(factor=1e200, jitter=0).wait_seconds(5, 0) == 300
    assert decided(failed(1), failed(2), retry=Retry(factor=1e200, jitter=0)) == Attempt(3, 300, last=True)
    longest = Retry(delay=1e18, delay_max=WAIT_SECONDS_MAX, jitter=1e18)
    at_last = row(1, StepStatus.FAILED, completed_at="9999-12-31T00:00:00.000000Z")
    assert decided(at_last, retry=longest, chance=1.0) == Attempt(2, WAIT_SECONDS_MAX, last=False)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number, 1 or more, not 0"),
        ({"max_attempts": 1.5}, "max_attempts must be a whole number, 1 or more, not 1.5"),
        ({"max_attempts": math.nan}, "max_attempts must be a whole number, 1 or more, not nan"),
        ({"max_attempts": True}, "max_attempts must be a whole number, 1 or more, not True"),
        ({"max_attempts": "3"}, "max_attempts must be a whole number, 1 or more, not '3'"),
        ({"delay_max": 1e18}, r"delay_max must be at most 3,153,600,000 s, not 1e\+18"),
        *(
            ({name: value}, f"{name} must be a finite number, 0 or more, not {value!r}")
            for name in ("delay", "factor", "delay_max", "jitter")
            for value in (-1, -0.1, math.nan, math.inf, -math.inf, 10**400, True, "1", None)
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_retry_that_makes_no_sense_is_refused(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Retry(**wrong)


@pytest.mark.parametrize("word", ["resue", "", "RAISE", None, True, ["again"]])
def test_another_word_for_a_change_is_refused(word: Any) -> None:
    with pytest.raises(ValueError, match='on_changed must be "raise", "reuse" or "again", not '):
        decided(done(1, 1), input=2, on_changed=word)


class Task:
    """Stands for a task of the event loop."""


@pytest.mark.parametrize("name", [3, None, b"a", "", "a#2"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="a step's name must be a str without '#', not"):
        Names().take(name, Task())


def test_names_count_how_often_they_are_used() -> None:
    names, task = Names(), Task()
    assert [names.take(name, task) for name in ("a", "b", "a", "a")] == ["a", "b", "a#2", "a#3"]


def test_a_name_belongs_to_the_task_that_used_it_first() -> None:
    names, first, second = Names(), Task(), Task()
    names.take("a", first)
    with pytest.raises(RuntimeError, match=r"'a' was used by another task.*run\.branch"):
        names.take("a", second)
    assert names.take("b", second) == "b"
    assert names.take("a", first) == "a#2", "a refused call is none"
    del first
    with pytest.raises(RuntimeError, match="another task"):
        names.take("a", Task())  # even if it has the address of the one that is gone


def test_records_are_known_by_their_own_ids() -> None:
    records = Records([failed(1)])
    records.note(row(2, StepStatus.RUNNING))
    records.note(done(2))
    latest = records.latest("s")
    assert latest is not None
    assert (latest.attempt, latest.status) == (2, StepStatus.COMPLETED)
    assert records.has_all([failed(1, error="by hand")])
    assert not records.has_all([failed(3)])
    assert records.latest("other") is None


def test_an_error_is_recorded_as_text_that_can_be_stored() -> None:
    assert error_text(KeyError()) == "KeyError"
    assert error_text(ValueError("\ud800")) == "ValueError: ?"
    assert len(error_text(ValueError("x" * 100_000))) < 11_000


def test_of_a_group_the_errors_in_it_are_recorded() -> None:
    inner = ExceptionGroup("unhandled errors in a TaskGroup", [KeyError("y"), OSError()])
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("x"), inner, RuntimeError("z")])
    assert error_text(group) == "ValueError: x; KeyError: 'y'; OSError; RuntimeError: z"
    assert error_text(ExceptionGroup("one", [ValueError("x")])) == "ValueError: x"
    deep: Exception = ValueError("x")
    for _ in range(5000):
        deep = ExceptionGroup("one", [deep])
    assert error_text(deep) == "ValueError: x"
    many = error_text(ExceptionGroup("many", [ValueError("x" * 100)] * 1000))
    assert len(many) < 11_000
    assert many.startswith("ValueError: xxx")
