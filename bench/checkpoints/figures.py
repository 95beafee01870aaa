"""What becomes of the turns of the benchmark of checkpoints: medians over rounds, ratios of a round, and goals.

Owns the arithmetic, and knows nothing of processes or files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..figures import Spread, spread
from ..results import Calibration
from .loads import ALONE

__all__ = [
    "DBOS",
    "EIGHT",
    "GRAPHS",
    "LARGE",
    "LARGER",
    "LONG",
    "OURS",
    "QUIET",
    "SAVERS",
    "SHIPPED",
    "SHORT",
    "STORE",
    "TUNED",
    "Failure",
    "Figures",
    "Judged",
    "Plan",
    "Report",
    "System",
    "Turn",
    "judge",
]

OURS, QUIET, STORE = "posthouse, run.step", "posthouse, announce=False", "posthouse, store alone"
DBOS = ("DBOS, SQLite", "DBOS, PostgreSQL")
GRAPHS = ("LangGraph, SQLite", "LangGraph, PostgreSQL")
SAVERS = ("LangGraph's saver, SQLite", "LangGraph's saver, PostgreSQL")
SHIPPED, TUNED = "Restate, as shipped", "Restate, 2 partitions"
"""The systems that goals and sentences name."""

LONG, EIGHT, SHORT = "long runs", "short runs, 8", "short runs"
LARGE, LARGER = "short runs, 20 KB", "short runs, 200 KB"
"""The loads that they name."""


class System(msgspec.Struct, frozen=True):
    """What is measured, and what is on disk when a step is over. A limit is no system."""

    name: str
    promise: str
    limit: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is carried out: each load for so many `seconds`, in each of the rounds.

    A turn in which other programs had more than `others_max` cores does not count. None: every turn counts.
    """

    rounds: int
    seconds: float
    loads: tuple[str, ...]
    others_max: float | None


class Figures(msgspec.Struct, frozen=True):
    """What a system did under one load: runs or steps a second, as its unit says, and what one of them took.

    `cpu_ms` is the processor time of all processes of the system together, `run_ms` the median of a run's time.
    """

    rate: float
    cpu_ms: float
    run_ms: float


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What a system did in one round; so many `steps` ended, and so many are `kept` on its disk.

    `others_cores` is how many cores other programs took meanwhile, and `sync_ms` what a sync took before.
    """

    round: int
    system: str
    others_cores: float
    sync_ms: float
    loads: dict[str, Figures]
    steps: int
    kept: int

    @property
    def lost(self) -> int:
        """How many checkpoints the system said it kept and did not keep."""
        return max(0, self.steps - self.kept)


class Failure(msgspec.Struct, frozen=True):
    """A turn that a system did not carry through, and why."""

    system: str
    round: int
    why: str

    def __str__(self) -> str:
        return f"{self.system}, round {self.round}: {self.why}"


class Report(msgspec.Struct, kw_only=True):
    """Everything that was found. `turns` are those that count; so many others were `dropped`."""

    machine: dict[str, Any]
    options: str
    plan: Plan
    systems: list[System] = []
    versions: dict[str, str] = {}
    absent: dict[str, str] = {}
    """The systems that could not be measured, and why."""
    calibrations: list[Calibration] = []
    turns: list[Turn] = []
    dropped: int = 0
    failures: list[Failure] = []

    @property
    def is_clean(self) -> bool:
        """Whether every system carried every turn through, and kept all that it said it kept."""
        return not self.failures and not any(turn.lost for turn in self.turns)

    @property
    def uncounted(self) -> list[str]:
        """The systems of which no turn counts, although none failed."""
        known = {turn.system for turn in self.turns} | {each.system for each in self.failures}
        return [each.name for each in self.systems if each.name not in known]

    def figure(self, system: str, load: str, name: str) -> Spread | None:
        """Return the median of a figure over the rounds; None where it was not measured."""
        found = [
            getattr(turn.loads[load], name) for turn in self.turns if turn.system == system and load in turn.loads
        ]
        return spread(found) if found else None

    def ratio(self, load: str, name: str, above: str, below: str) -> Spread | None:
        """Divide one system's figure by another's of the same round."""
        found: dict[str, dict[int, float]] = {above: {}, below: {}}
        for turn in self.turns:
            if turn.system in found and load in turn.loads:
                found[turn.system][turn.round] = getattr(turn.loads[load], name)
        rounds = found[above].keys() & found[below].keys()
        ratios = [found[above][each] / found[below][each] for each in sorted(rounds) if found[below][each]]
        return spread(ratios) if ratios else None

    def better(self, systems: Sequence[str], load: str) -> str | None:
        """Return the one that needs the least processor time for a load; None where none was measured."""
        found = {system: self.figure(system, load, "cpu_ms") for system in systems}
        medians = {system: figure.median for system, figure in found.items() if figure is not None}
        return min(medians, key=lambda system: medians[system], default=None)


# ── The goals ────────────────────────────────────────────────────────────────────────────────────────────


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a goal; both are None where it was not measured."""

    name: str
    goal: str
    found: Spread | None
    met: bool | None


class _Goal(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    figure: Callable[[Report], Spread | None]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""

    def judged(self, report: Report) -> Judged:
        found = self.figure(report)
        if self.at_least is not None:
            goal, met = f"at least {self.at_least:g}{self.unit}", found and found.median >= self.at_least
        else:
            goal, met = f"at most {self.at_most:g}{self.unit}", found and found.median <= (self.at_most or 0)
        return Judged(name=self.name, goal=goal, found=found, met=None if found is None else bool(met))


def _dbos_by_ours(load: str) -> Callable[[Report], Spread | None]:
    def figure(report: Report) -> Spread | None:
        dbos = report.better(DBOS, load)
        return None if dbos is None else report.ratio(load, "cpu_ms", dbos, OURS)

    return figure


def _ours_by_restate(load: str, name: str) -> Callable[[Report], Spread | None]:
    return lambda report: report.ratio(load, name, OURS, TUNED)


_GOALS = [
    *(
        _Goal(
            name=f"{load}: processor time of DBOS, on its better database, divided by ours",
            figure=_dbos_by_ours(load),
            at_least=least,
        )
        for load, least in ((SHORT, 5), (LONG, 5), (LARGE, 2), (LARGER, 1))
    ),
    *(
        _Goal(
            name=f"{load}: our processor time divided by that of Restate with 2 partitions",
            figure=_ours_by_restate(load, "cpu_ms"),
            at_most=0.7,
        )
        for load in (SHORT, LARGE)
    ),
    *(
        _Goal(
            name=f"{load}: our rate divided by that of Restate with 2 partitions",
            figure=_ours_by_restate(load, "rate"),
            at_least=1,
        )
        for load in (SHORT, LARGE)
    ),
    _Goal(
        name=f"{ALONE}: a run",
        figure=lambda report: report.figure(OURS, ALONE, "run_ms"),
        at_most=12,
        unit=" ms",
    ),
]


def judge(report: Report) -> list[Judged]:
    """Say of every goal whether it is met. All are about `run.step` by default, with the step announced."""
    return [goal.judged(report) for goal in _GOALS]
