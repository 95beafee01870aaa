"""What is due: in the order of time, once, and without what was taken back or changed."""

from __future__ import annotations

from bus.core.due_times import DueTimes


def times(**given: float) -> DueTimes:
    due = DueTimes()
    for key, at in given.items():
        due.set(key, at)
    return due


def test_what_is_due_is_taken_once_the_earliest_first() -> None:
    due = times(a=3, b=1, c=2, d=9)
    assert list(due.take(3)) == ["b", "c", "a"]
    assert list(due.take(3)) == []
    assert (list(due), due.get("d"), due.get("a")) == (["d"], 9, None)


def test_the_last_time_of_something_counts() -> None:
    due = times(a=1, b=1)
    due.set("a", 5)
    due.set("b", 5)
    due.set("b", 2)
    assert list(due.take(4)) == ["b"]
    assert list(due.take(5)) == ["a"]


def test_what_was_taken_back_is_not_due() -> None:
    due = times(a=1, b=1)
    due.discard("a")
    due.discard("never there")
    assert list(due.take(1)) == ["b"]


def test_what_is_not_asked_for_stays_due() -> None:
    due = times(a=1, b=2)
    assert next(due.take(9)) == "a"
    assert list(due.take(9)) == ["b"]


def test_what_is_due_again_while_it_is_taken_is_taken_later() -> None:
    due = times(a=1, b=2)
    for key in due.take(2):
        due.set(key, 3)
    assert len(due) == 2
    assert list(due.take(3)) == ["a", "b"]


def test_all_times_are_replaced() -> None:
    due = times(a=1, b=2)
    due.replace({"b": 1, "c": 0})
    assert list(due.take(2)) == ["c", "b"]


def test_obsolete_times_do_not_add_up() -> None:
    due = DueTimes()
    for at in range(100_000):
        due.set("a", at)
    assert len(due._heap) < 2_000
    assert list(due.take(100_000)) == ["a"]
