"""One stalled subscriber among fifty, and what that does to the other forty-nine.

Owns the command, the order of the phases, and what is made of them: for each kind of stall, the ratio of the
others' p99 delivery latency to that of the neighbouring phases without it. Exits with 0 when the run is complete
and nothing was lost or out of order, and with 1 otherwise; how long anything took never decides.

Run as `python -m bench.stalled`.
"""

from __future__ import annotations

import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec
import rich_click as click
from rich import box
from rich.console import Console
from rich.table import Table

from . import machine
from .figures import Account, Spread, spread, total
from .phases import Phase, Plan, Stage, Stall
from .processes import BenchFailed, Worker
from .wire import WireError

__all__ = ["Comparison", "Report", "compare", "measure"]

_GOAL = 2.0
"""What the ratio is to stay within."""

_FULL = Plan(bots=50, processes=2, rate=50, phase_seconds=10, warm_seconds=0.5, rounds=5)
_QUICK = msgspec.structs.replace(_FULL, phase_seconds=4, rounds=1)

_SHIPPED_PHASE_SECONDS = 40.0
"""Longer than ack_wait and the session timeout as they are shipped, so that a phase sees both."""

_TIMEOUT_SECONDS_MIN = 3.0
"""Below this a machine that has much else to do would end the healthy bots' sessions."""

_DELIVER_MAX = 1000
"""So often a short ack_wait may run out before a message is a dead letter: the account is not to depend on time."""

_WIDTH = 110
"""Of lines that go elsewhere than to a terminal."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of stall did, over all rounds. No stall: each phase without one against the one before."""

    stall: Stall | None
    p99_ratio: Spread
    p50_ratio: Spread
    p99_ms: Spread
    p50_ms: Spread
    delivered_per_second: Spread


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run found."""

    machine: dict[str, Any]
    versions: dict[str, str]
    plan: Plan
    settings: str
    goal: float
    goal_met: bool
    comparisons: list[Comparison]
    account: Account
    odd_account: Account
    phases: list[Phase]

    @property
    def is_clean(self) -> bool:
        """Whether everything came, in order, to every bot."""
        return self.account.is_clean and self.odd_account.is_clean

    @property
    def worst_ratio(self) -> float:
        """The largest of the medians that the goal is about."""
        return max(found.p99_ratio.median for found in self.comparisons if found.stall is not None)


def compare(phases: Sequence[Phase]) -> list[Comparison]:
    """Set each phase with a stall against the geometric mean of its neighbours, which have none.

    An arithmetic mean would make every ratio too small: it lies near the neighbour that was disturbed more. The
    neighbours are set against each other too: what differs there is the machine, and no stall.
    """
    pairs: dict[Stall | None, list[tuple[Phase, Sequence[Phase]]]] = {None: [], **{stall: [] for stall in Stall}}
    for before, phase, after in zip(phases[:-2:2], phases[1:-1:2], phases[2::2], strict=True):
        pairs[phase.stall].append((phase, (before, after)))
        pairs[None].append((after, (before,)))
    return [_comparison(stall, found) for stall, found in pairs.items()]


def _comparison(stall: Stall | None, pairs: Sequence[tuple[Phase, Sequence[Phase]]]) -> Comparison:
    def ratios(name: str) -> Spread:
        return spread([_mean([phase], name) / _mean(neighbours, name) for phase, neighbours in pairs])

    return Comparison(
        stall=stall,
        p99_ratio=ratios("p99_ms"),
        p50_ratio=ratios("p50_ms"),
        p99_ms=spread([phase.latency.p99_ms for phase, _ in pairs]),
        p50_ms=spread([phase.latency.p50_ms for phase, _ in pairs]),
        delivered_per_second=spread([phase.delivered_per_second for phase, _ in pairs]),
    )


def _mean(phases: Sequence[Phase], name: str) -> float:
    return statistics.geometric_mean([getattr(phase.latency, name) for phase in phases])


def measure(plan: Plan, settings: str, *, profile: Path | None, console: Console) -> Report:
    """Run all phases, and tell of each; raises BenchFailed or WireError where that cannot be done."""
    order = [None, *(each for _ in range(plan.rounds) for stall in Stall for each in (stall, None))]
    phases: list[Phase] = []
    with Worker(settings, profile=profile) as worker, Stage(plan, worker) as stage:
        versions = stage.versions()
        for index, stall in enumerate(order):
            phases.append(stage.run(1 + max(0, index - 1) // (2 * len(Stall)), stall))
            console.print(_line(index + 1, len(order), phases[-1]))
    comparisons = compare(phases)
    return Report(
        machine=machine.facts(),
        versions=versions,
        plan=plan,
        settings=settings,
        goal=_GOAL,
        goal_met=all(found.p99_ratio.median <= _GOAL for found in comparisons if found.stall is not None),
        comparisons=comparisons,
        account=total(phase.account for phase in phases),
        odd_account=total(phase.odd_account for phase in phases),
        phases=phases,
    )


# ── What people see ──────────────────────────────────────────────────────────────────────────────────────


def _line(number: int, count: int, phase: Phase) -> str:
    found = phase.latency
    text = (
        f"{number:>3}/{count}  {phase.stall or 'all are healthy':<15}"
        f"  p50 {found.p50_ms:6.2f} ms  p99 {found.p99_ms:6.2f} ms  load {phase.load_before:.2f}"
    )
    if phase.stall is not None:
        text += f"  is owed {phase.backlog}"
        if phase.unsent_bytes is not None:
            text += f", {phase.unsent_bytes / 2**20:.1f} MiB in the kernel"
    if not phase.account.is_clean:
        text += f"  LOST {phase.account.lost}, OUT OF ORDER {phase.account.out_of_order}"
    return text


def _show(report: Report, console: Console) -> None:
    plan, account, odd = report.plan, report.account, report.odd_account
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("the odd one out", no_wrap=True)
    for name in ("p99, times", "p50, times", "p99 ms", "p50 ms", "delivered a second"):
        table.add_column(name, justify="right", no_wrap=True)
    for found in report.comparisons:
        table.add_row(
            found.stall or "is healthy",
            _range(found.p99_ratio),
            _range(found.p50_ratio),
            f"{found.p99_ms.median:.2f}",
            f"{found.p50_ms.median:.2f}",
            f"{found.delivered_per_second.median:,.0f}",
        )
    console.print(table)
    console.print(
        f"The other {plan.bots - 1} bots, at {plan.rate:g} messages a second: the median of {plan.rounds} rounds"
        " (and the lowest to the highest). Times: against the neighbouring phases in which all are healthy; these"
        " themselves against the one before."
    )
    console.print(
        f"The others: {account.due:,} due, {account.delivered:,} delivered, {account.lost:,} lost,"
        f" {account.out_of_order:,} out of order, {account.repeated:,} repeated. The odd one out, once it went on:"
        f" {odd.due:,} due, {odd.delivered:,} delivered, {odd.lost:,} lost, {odd.out_of_order:,} out of order."
    )
    verdict = "met" if report.goal_met else "NOT MET"
    console.print(
        f"The goal, a p99 within {report.goal:g} times of what it is without a stalled bot, is {verdict}:"
        f" {report.worst_ratio:.2f} times at worst."
    )


def _range(found: Spread) -> str:
    return f"{found.median:.2f} ({found.lowest:.2f} to {found.highest:.2f})"


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    quick: bool
    as_shipped: bool
    rounds: int | None
    phase: float | None
    rate: float | None
    json_file: Path | None
    profile: Path | None

    def plan(self) -> Plan:
        """Give the plan, with what was asked for in place of its own."""
        plan = _QUICK if self.quick else _FULL
        default = _SHIPPED_PHASE_SECONDS if self.as_shipped else plan.phase_seconds
        return msgspec.structs.replace(
            plan,
            rounds=self.rounds or plan.rounds,
            phase_seconds=self.phase or default,
            rate=self.rate or plan.rate,
        )

    def settings(self) -> str:
        """Give a configuration in which the whole life of a stall fits into a phase; all else is as shipped."""
        if self.as_shipped:
            return ""
        seconds = max(_TIMEOUT_SECONDS_MIN, self.plan().phase_seconds / 3)
        return (
            "[delivery]\n"
            f"ack_wait_seconds = {seconds:.3f}\n"
            f"session_timeout_seconds = {seconds:.3f}\n"
            f"heartbeat_seconds = {seconds / 3:.3f}\n"
            f"max_deliver = {_DELIVER_MAX}\n"
        )


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--quick", is_flag=True, help="One round of short phases, in under a minute.")
@click.option("--as-shipped", is_flag=True, help="ack_wait and session timeout as shipped, and phases of 40 s.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each kind of stall is seen.  [default: 5]")
@click.option(
    "--phase", type=click.FloatRange(min=0.1), metavar="SECONDS", help="How long a phase is.  [default: 10]"
)
@click.option("--rate", type=click.FloatRange(min=1), help="Messages published a second.  [default: 50]")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Where to write all that was found.")
@click.option("--profile", type=_FILE, metavar="FILE", help="Where cProfile is to leave the worker's profile.")
def _main(**options: Any) -> None:
    """Measure what one stalled subscriber among fifty does to the others' delivery latency.

    Exits with 0 when the run is complete and nothing was lost or out of order, however long anything took.
    """
    signal.signal(signal.SIGTERM, _terminate)
    wanted = _Options(**options)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    try:
        report = measure(wanted.plan(), wanted.settings(), profile=wanted.profile, console=console)
    except (BenchFailed, WireError) as error:
        raise click.ClickException("\n".join([str(error), *getattr(error, "__notes__", [])])) from error
    _show(report, console)
    if wanted.json_file is not None:
        wanted.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    sys.exit(0 if report.is_clean else 1)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    _main(prog_name="python -m bench.stalled")
