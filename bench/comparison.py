"""One run over all systems: which workloads, in which order, and what was found.

Owns the turns. In each round every workload is run on every system, one after the other and each started fresh, so
that what is set against each other lies next to each other in time. Every second round takes the systems in the
opposite order, so that a machine that becomes slower or faster favours none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from . import limits, machine
from .names import BEFORE, HALF_RATE, ONE_TO_ONE_100, SQLITE, SQLITE_ROW
from .processes import BenchFailed
from .results import LIMITS, Failure, Measured, NotRun, Report
from .systems import Posthouse, System, WithFrames
from .wire import WireError
from .workloads import WORKLOADS, Figures, Scale, Workload, half_rate

__all__ = ["Comparison", "Plan"]

OWN_BATCHES = "SQLite, posthouse's batches"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. `big` is whether there are ten million messages and 10,000 bots in it."""

    rounds: int
    scale: Scale
    systems: Sequence[type[System]]
    workloads: Sequence[str]
    big: bool = False


class Comparison:
    """Carries a plan out, gathers what is found, and tells of each round.

    `profile` is a folder for what cProfile sees of posthouse's worker, which it slows down.
    """

    def __init__(self, plan: Plan, report: Report, console: Console, *, profile: Path | None = None) -> None:
        self._plan = plan
        self._profile = profile
        self._report = report
        self._console = console
        self._absent: set[str] = set()

    def run(self) -> None:
        """Run all rounds. What fails is noted, and the rest goes on."""
        for round_number in self.rounds():
            self._measure_limits(round_number)
            self._measure_half_rate(round_number)

    def rounds(self) -> Iterator[int]:
        """Run all workloads on all systems in each round; yield its number when they are done."""
        self._look_for_systems()
        for round_number in range(1, self._plan.rounds + 1):
            for name in self._plan.workloads:
                for system in self._systems(name)[:: 1 if round_number % 2 else -1]:
                    self.measure(name, system, WORKLOADS[name], round_number)
            yield round_number

    def measure(self, name: str, system: type[System], workload: Workload, round_number: int) -> Figures | None:
        """Run one workload on a fresh system."""

        def work() -> Figures:
            with self._fresh(name, system) as running:
                figures = workload(running, self._plan.scale)
                return figures | running.finish()

        return self.note(name, system.name, work, round_number)

    def _fresh(self, workload: str, system: type[System]) -> System:
        if self._profile is None or not issubclass(system, Posthouse) or system.name == BEFORE:
            return system()
        file = re.sub("[^a-z0-9]+", "-", f"{workload} {system.name}".lower())
        return system(profile=self._profile / f"{file}.prof")

    def note(self, name: str, system: str, work: Callable[[], Figures], round_number: int) -> Figures | None:
        """Do something that gives figures, and note them, or why there are none."""
        load = machine.load()
        try:
            figures = work()
        except (BenchFailed, WireError) as error:
            why = str(error).partition("\n")[0].rstrip(":")  # a log has paths of the machine in it
            self._report.failures.append(Failure(workload=name, system=system, why=why))
            notes = "\n".join(getattr(error, "__notes__", []))
            self._console.print(f"  {name}, {system}: FAILED: {error}\n{notes}", markup=False)
            return None
        self._report.measured.append(
            Measured(workload=name, system=system, round=round_number, load_before=load, figures=figures)
        )
        told = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
        self._console.print(f"  {round_number}  {name:<33}{system:<40}{told}", markup=False, soft_wrap=True)
        return figures

    def _look_for_systems(self) -> None:
        for system in self._plan.systems:
            self._report.promises[system.name] = system.promise
            self._report.batches[system.name] = system.batches
            why = system.missing()
            if why is None:
                self._report.versions |= system.versions()
            else:
                self._absent.add(system.name)
                self.leave_out(system.name, why)

    def leave_out(self, what: str, why: str) -> None:
        """Note what is not measured, and why."""
        self._report.not_run.append(NotRun(what, why))
        self._console.print(f"  {what}: not run: {why}", markup=False)

    def _systems(self, workload: str) -> list[type[System]]:
        return [
            system for system in self._plan.systems if system.name not in self._absent and system.takes(workload)
        ]

    def _measure_limits(self, round_number: int) -> None:
        parts: dict[str, Callable[[Scale], Figures]] = {
            "fdatasync": limits.syncs,
            SQLITE_ROW: limits.commits,
            SQLITE: limits.inserts(4096),
            "ROUTER to DEALER, 100 in a frame": limits.forwarding(100),
            "ROUTER to DEALER, 1 in a frame": limits.forwarding(1),
        }
        batch = self._report.figure(ONE_TO_ONE_100, self._plan.systems[0].name, "batch_messages")
        if batch is not None:
            parts[OWN_BATCHES] = limits.inserts(max(1, round(batch)))
        for name, measure in parts.items():
            self.note(name, LIMITS, partial(measure, self._plan.scale), round_number)

    def _measure_half_rate(self, round_number: int) -> None:
        """Measure all at one rate, that of the first: a latency says nothing about one at another rate."""
        systems = [system for system in self._plan.systems if issubclass(system, WithFrames)]
        rate = self._report.figure(ONE_TO_ONE_100, systems[0].name, "rate") if systems else None
        if rate is not None:
            for system in systems[:: 1 if round_number % 2 else -1]:
                self.measure(HALF_RATE, system, half_rate(rate), round_number)
