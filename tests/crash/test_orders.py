"""Orders that are executed while their bots and the worker are killed, and what is seen if that goes wrong."""

from __future__ import annotations

import pytest

from .orders import contradictions, play_round
from .shop import Line


def line(what: str, step: str, value: object = None, *, run: str = "r") -> Line:
    return Line(what, run, step, 0, value)


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


def test_orders_survive_kills() -> None:
    counted = play_round(7, rounds=4)
    assert counted["orders"] == 15  # with three that are forked
    assert counted["of a bot"] + counted["of the worker"] == 4
