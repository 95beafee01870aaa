"""What posthouse is to reach, and whether it does, judged from one run's own figures.

Owns the goals and their arithmetic. Most of them divide two figures of one run: posthouse's, and that of SQLite
alone, of another system or of the version before. So they say the same on a slow machine. Pure.
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

Figure = Callable[[Find], float | None]
"""What a goal is about; None where it was not measured."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One goal: the figure must be at least, or at most, so much. `unit` stands after the figure."""

    name: str
    figure: Figure
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a goal. Both are None where it was not measured in this run."""

    name: str
    goal: str
    figure: float | None
    met: bool | None


def _value(workload: str, name: str = "rate", system: str = FRAMES) -> Figure:
    return lambda find: find(workload, system, name)


def _ratio(above: Figure, below: Figure) -> Figure:
    def figure(find: Find) -> float | None:
        upper, lower = above(find), below(find)
        return None if upper is None or not lower else upper / lower

    return figure


def _against(system: str, workload: str, name: str = "rate") -> Figure:
    """Set posthouse against another system, or against the version before."""
    return _ratio(_value(workload, name), _value(workload, name, system))


def _of_sqlite(workload: str) -> Figure:
    return _ratio(_value(workload), _value(names.SQLITE, system=LIMITS))


def _of_frames(workload: str) -> Figure:
    return _ratio(_value(workload, system=names.BUS), _value(workload))


def _processor_us(system: str) -> Figure:
    """The processor time of all of the worker's threads for a message, one to one."""

    def figure(find: Find) -> float | None:
        parts = [find(names.ONE_TO_ONE_100, system, name) for name in ("loop_us", "threads_us")]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    return figure


_BEFORE = "against the version before"
_SQLITE = "against SQLite alone"
_JETSTREAM = "against JetStream that syncs"
_QUORUM = "on PostgreSQL with a quorum, against SQLite"
_REDIS = "against Redis that always syncs"

_NO_LESS, _NO_MORE = 0.9, 1.1
"""No worse than before, within a tenth: two runs of one version differ by as much."""

GOALS = [
    Goal(name=f"one to one, {_SQLITE}", figure=_of_sqlite(names.ONE_TO_ONE_100), at_least=0.65),
    Goal(
        name=f"one to one, the worker's processor time for a message, {_BEFORE}",
        figure=_ratio(_processor_us(FRAMES), _processor_us(names.BEFORE)),
        at_most=0.55,
    ),
    Goal(
        name=f"one to one, {_QUORUM}",
        figure=_ratio(_value(names.ONE_TO_ONE_100, system=names.ON_QUORUM), _value(names.ONE_TO_ONE_100)),
        at_least=0.75,
    ),
    Goal(
        name=f"one to one, the worker's processor time for a message, {_QUORUM}",
        figure=_ratio(_processor_us(names.ON_QUORUM), _processor_us(FRAMES)),
        at_most=1,
    ),
    Goal(name=f"publish, acknowledged, {_SQLITE}", figure=_of_sqlite(names.PUBLISH_100), at_least=0.75),
    Goal(name=f"one to ten, deliveries, {_SQLITE}'s rows", figure=_of_sqlite(names.ONE_TO_TEN), at_least=3),
    Goal(name=f"{names.PAIRS}, {_BEFORE}", figure=_against(names.BEFORE, names.PAIRS), at_least=1.7),
    Goal(name=f"{names.ASK_MANY}, {_BEFORE}", figure=_against(names.BEFORE, names.ASK_MANY), at_least=2),
    Goal(name=f"{BACKLOG}, drained, {_BEFORE}", figure=_against(names.BEFORE, BACKLOG), at_least=2),
    Goal(
        name="one publish in flight, p50, against a bare commit",
        figure=_ratio(_value(names.PUBLISH_ONE, "p50_ms"), _value(names.SQLITE_ROW, "p50_ms", LIMITS)),
        at_most=3,
    ),
    Goal(
        name=f"one publish in flight, p50, {_JETSTREAM}",
        figure=_against(names.JETSTREAM_SYNCING, names.PUBLISH_ONE, "p50_ms"),
        at_most=1.2,
    ),
    Goal(name="half of the top rate, p99", figure=_value(names.HALF_RATE, "p99_ms"), at_most=10, unit=" ms"),
    Goal(
        name=f"half of the top rate, p99, {_BEFORE}",
        figure=_against(names.BEFORE, names.HALF_RATE, "p99_ms"),
        at_most=0.25,
    ),
    Goal(name="one to one, bus against frames", figure=_of_frames(names.ONE_TO_ONE_100), at_least=0.9),
    Goal(name=f"{names.ASK_MANY}, bus against frames", figure=_of_frames(names.ASK_MANY), at_least=0.8),
    *[
        Goal(
            name=f"{workload}, acknowledged, {_JETSTREAM}",
            figure=_against(names.JETSTREAM_SYNCING, workload),
            at_least=at_least,
        )
        for workload, at_least in ((names.PUBLISH_100, 2.5), (names.PUBLISH_1000, 1.5))
    ],
    *[
        Goal(name=f"{workload}, {_REDIS}", figure=_against(names.REDIS_SYNCING, workload), at_least=1.3)
        for workload in (names.ONE_TO_ONE_100, names.ONE_TO_TEN)
    ],
    *[
        Goal(name=f"{workload}, {_JETSTREAM}", figure=_against(names.JETSTREAM_SYNCING, workload), at_least=1.5)
        for workload in (names.ONE_TO_ONE_100, names.ONE_TO_ONE_1000)
    ],
    Goal(name=f"{FULL}, {_BEFORE}", figure=_against(names.BEFORE, FULL), at_least=_NO_LESS),
    Goal(
        name=f"{RESTART}, {_BEFORE}",
        figure=_against(names.BEFORE, RESTART, "ready_seconds"),
        at_most=_NO_MORE,
    ),
    *[
        Goal(
            name=f"10,000 bots, {what}, {_BEFORE}", figure=_against(names.BEFORE, CONNECTED, name), at_most=_NO_MORE
        )
        for what, name in (("memory", "memory_mib"), ("all connected", "connect_seconds"))
    ],
    Goal(name=f"{FULL}, against an empty log", figure=_ratio(_value(FULL), _value(EMPTY)), at_least=0.8),
    Goal(name=f"{RESTART}, ready after a kill", figure=_value(RESTART, "ready_seconds"), at_most=2, unit=" s"),
    Goal(
        name=f"{BACKLOG}, memory while it is drained, against its start",
        figure=_ratio(_value(BACKLOG, "memory_most_mib"), _value(BACKLOG, "memory_before_mib")),
        at_most=1.5,
    ),
    Goal(name="10,000 bots, memory", figure=_value(CONNECTED, "memory_mib"), at_most=1024, unit=" MiB"),
    Goal(name="10,000 bots, all connected", figure=_value(CONNECTED, "connect_seconds"), at_most=60, unit=" s"),
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
