"""What a comparison found: every round's figures, and what is made of them.

Owns the values that are written as JSON, and their summing up. Pure: no process, socket or clock.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import msgspec

from .figures import Spread, spread

__all__ = ["LIMITS", "Calibration", "Failure", "Measured", "NotRun", "Report", "Row", "rows"]

LIMITS = "limits"
"""What stands in the place of a system where the parts are measured by themselves."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one workload on one system."""

    workload: str
    system: str
    round: int
    load_before: float
    figures: dict[str, float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All rounds of one workload on one system."""

    workload: str
    system: str
    rounds: int
    figures: dict[str, Spread]


class NotRun(msgspec.Struct, frozen=True):
    """A system that could not be started, and why."""

    system: str
    why: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A workload that did not complete, or that lost something."""

    workload: str
    system: str
    why: str


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The machine's own speed at one moment of a run, and how much else it had to do."""

    moment: str
    load: float
    sqlite_rows: float
    """Rows a second that SQLite alone stores, 4,096 in a transaction."""
    loop_ns: float
    """A turn of a fixed loop of Python."""
    fdatasync_p50_ms: float
    commit_p50_ms: float
    """A transaction of one row."""


class Report(msgspec.Struct, kw_only=True):
    """Everything that a run found."""

    machine: dict[str, Any]
    versions: dict[str, str]
    promises: dict[str, str]
    batches: dict[str, str] = {}
    """What a batch is to each system."""
    options: str = ""
    """What the command was told."""
    earlier: list[str] = []
    """Workloads whose figures are those of an earlier run."""
    calibrations: list[Calibration] = []
    measured: list[Measured] = []
    not_run: list[NotRun] = []
    failures: list[Failure] = []

    @property
    def rows(self) -> list[Row]:
        """Sum the rounds up."""
        return rows(self.measured)

    def figure(self, workload: str, system: str, name: str) -> float | None:
        """Give the median of a figure; None where it was not measured."""
        for row in self.rows:
            if (row.workload, row.system) == (workload, system) and name in row.figures:
                return row.figures[name].median
        return None

    def keep(self, before: Report, workloads: Set[str]) -> None:
        """Take over those of some workloads that only an earlier run has, and name them as such."""
        missing = workloads - {each.workload for each in self.measured}
        kept = [each for each in before.measured if each.workload in missing]
        self.measured += kept
        self.earlier = list(dict.fromkeys(each.workload for each in kept))


def rows(measured: Sequence[Measured]) -> list[Row]:
    """Sum up the rounds of each workload on each system, in the order in which they were first measured."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for each in measured:
        found.setdefault((each.workload, each.system), []).append(each)
    summed: list[Row] = []
    for (workload, system), rounds in found.items():
        names = dict.fromkeys(name for each in rounds for name in each.figures)
        figures = {name: spread([each.figures[name] for each in rounds if name in each.figures]) for name in names}
        summed.append(Row(workload=workload, system=system, rounds=len(rounds), figures=figures))
    order = list(dict.fromkeys(row.workload for row in summed))
    return sorted(summed, key=lambda row: order.index(row.workload))
