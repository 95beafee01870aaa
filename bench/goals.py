"""What posthouse is to reach, and whether it does, judged from one run's own figures.

Owns the goals and their arithmetic. A goal that is a ratio sets two figures of the same run against each other, so
that it says the same on a slow machine. Pure.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from . import names
from .names import FRAMES
from .results import LIMITS, Report

__all__ = ["BACKLOG", "CONNECTED", "EMPTY", "FULL", "GOALS", "RESTART", "Goal", "Judged", "judge"]

EMPTY = "one to one, empty log"
FULL = "one to one, ten million stored"
RESTART = "restart, ten million stored"
BACKLOG = "backlog of a million"
CONNECTED = "10,000 bots connect"


Find = Callable[[str, str, str], float | None]
"""Gives the median of a workload's, a system's figure."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One goal: the figure must be at least, or at most, so much. `unit` stands after the figure."""

    name: str
    figure: Callable[[Find], float | None]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a goal. Both are None where it was not measured in this run."""

    name: str
    goal: str
    figure: float | None
    met: bool | None


def _value(
    workload: str, name: str, system: str = FRAMES, *, factor: float = 1.0
) -> Callable[[Find], float | None]:
    def figure(find: Find) -> float | None:
        found = find(workload, system, name)
        return None if found is None else found * factor

    return figure


def _ratio(
    above: Callable[[Find], float | None], below: Callable[[Find], float | None]
) -> Callable[[Find], float | None]:
    def figure(find: Find) -> float | None:
        upper, lower = above(find), below(find)
        return None if upper is None or not lower else upper / lower

    return figure


def _limit(workload: str, name: str) -> Callable[[Find], float | None]:
    return _value(workload, name, LIMITS)


def _beside(workload: str, system: str) -> Callable[[Find], float | None]:
    return _ratio(_value(workload, "rate"), _value(workload, "rate", system))


_ONE_TO_ONE = _value(names.ONE_TO_ONE_100, "rate")
_PUBLISH_P50 = _value(names.PUBLISH_ONE, "p50_ms")
GOALS = [
    Goal(name="one to one, settled, in batches of 100", figure=_ONE_TO_ONE, at_least=60_000, unit="/s"),
    Goal(
        name="the same, against raw SQLite in batches of 4,096",
        figure=_ratio(_ONE_TO_ONE, _limit("SQLite, 4096 rows", "rate")),
        at_least=0.6,
    ),
    Goal(
        name="the same, against raw SQLite in batches of posthouse's size",
        figure=_ratio(_ONE_TO_ONE, _limit("SQLite, posthouse's batches", "rate")),
        at_least=0.6,
    ),
    *[
        Goal(
            name=f"{workload}, against JetStream that syncs",
            figure=_beside(workload, names.JETSTREAM_SYNCING),
            at_least=10,
        )
        for workload in (names.ONE_TO_ONE_SINGLES, names.ONE_TO_ONE_100, names.ONE_TO_ONE_1000)
    ],
    *[
        Goal(
            name=f"{workload}, against JetStream that does not sync",
            figure=_beside(workload, names.JETSTREAM),
            at_least=1,
        )
        for workload in (names.ONE_TO_ONE_SINGLES, names.ONE_TO_ONE_100, names.ONE_TO_ONE_1000)
    ],
    Goal(
        name="publish, acknowledged, in batches of 100",
        figure=_value(names.PUBLISH_100, "rate"),
        at_least=80_000,
        unit="/s",
    ),
    Goal(name="one to ten, deliveries", figure=_value("one to ten", "rate"), at_least=200_000, unit="/s"),
    Goal(
        name="one publish in flight, p50 against a bare commit",
        figure=_ratio(_PUBLISH_P50, _limit("SQLite, 1 row", "p50_ms")),
        at_most=3,
    ),
    Goal(
        name="the same against JetStream that syncs",
        figure=_ratio(_PUBLISH_P50, _value(names.PUBLISH_ONE, "p50_ms", names.JETSTREAM_SYNCING)),
        at_most=1,
    ),
    Goal(
        name="p99 at half of the top rate",
        figure=_value(names.HALF_RATE, "p99_ms"),
        at_most=10,
        unit=" ms",
    ),
    Goal(
        name="ten million stored, against an empty log",
        figure=_ratio(_value(FULL, "rate"), _value(EMPTY, "rate")),
        at_least=0.8,
    ),
    Goal(
        name="ready after a kill with ten million stored",
        figure=_value(RESTART, "ready_seconds"),
        at_most=2,
        unit=" s",
    ),
    Goal(name="a backlog of a million, drained", figure=_value(BACKLOG, "rate"), at_least=80_000, unit="/s"),
    Goal(
        name="memory while it is drained, against before",
        figure=_ratio(_value(BACKLOG, "memory_most_mib"), _value(BACKLOG, "memory_before_mib")),
        at_most=1.5,
    ),
    Goal(name="10,000 bots: memory", figure=_value(CONNECTED, "memory_mib"), at_most=1024, unit=" MiB"),
    Goal(name="10,000 bots: all connected", figure=_value(CONNECTED, "connect_seconds"), at_most=60, unit=" s"),
]


def judge(report: Report) -> list[Judged]:
    """Set the goals against a run."""
    return [_judge(goal, report.figure) for goal in GOALS]


def _judge(goal: Goal, find: Find) -> Judged:
    figure = goal.figure(find)
    met: bool | None = None
    if figure is not None:
        met = (goal.at_least is None or figure >= goal.at_least) and (
            goal.at_most is None or figure <= goal.at_most
        )
    bound = f"at least {goal.at_least:,g}" if goal.at_least is not None else f"at most {goal.at_most:,g}"
    return Judged(name=goal.name, goal=bound + goal.unit, figure=figure, met=met)
