"""posthouse on SQLite, on PostgreSQL, and with a quorum of standbys: rates, and processor time by process.

Owns the command, and the part of docs/performance/postgresql.md that is made of its results. In each round every
system is started anew, one after the other, and the next round takes them in the opposite order; ratios are those
of one round. Exits with 0 when all is carried through, and with 1 otherwise; how long anything took never decides.

Run as `python -m bench.engines`.
"""

from __future__ import annotations

import shlex
import sys

import msgspec
import rich_click as click
from rich.console import Console

from . import machine, names
from .comparison import Comparison, Plan
from .figures import Spread, spread
from .on_postgresql import OnOneNode, OnQuorum
from .processes import ROOT
from .results import Report
from .systems import WithFrames
from .words import fill_in
from .workloads import Scale

__all__ = ["words"]

_SYSTEMS = {names.FRAMES: "SQLite", names.ON_POSTGRESQL: "PostgreSQL alone", names.ON_QUORUM: "with a quorum"}

_PAGE = ROOT / "docs" / "performance" / "postgresql.md"
_JSON = _PAGE.with_suffix(".json")

_FIGURES = [
    (
        names.ONE_TO_ONE_100,
        "worker_us",
        "one to one in frames of 100, settled: processor time of the worker, µs a message",
        "{:.1f}",
    ),
    (names.ONE_TO_ONE_100, "primary_us", "of the primary", "{:.1f}"),
    (names.ONE_TO_ONE_100, "standby_us", "of each standby", "{:.1f}"),
    (names.ONE_TO_ONE_100, "rate", "messages a second", "{:,.0f}"),
    (names.ONE_TO_ONE_100, "batch_messages", "messages in a batch", "{:,.0f}"),
    (names.PUBLISH_ONE, "p50_ms", "one message in flight, p50 ms", "{:.2f}"),
    (names.PUBLISH_ONE, "p99_ms", "p99 ms", "{:.2f}"),
]
"""The figures that have a row: workload, name, title and form."""

_RATIOS = [
    ("rate", "rate, of SQLite's in the same round; at least 0.75 is the goal with a quorum"),
    ("worker_us", "the worker's time, of that with SQLite; below 1 is the goal"),
]
"""Figures that are divided by SQLite's, one to one."""


def words(report: Report) -> dict[str, str]:
    """Return the generated part of the page, by its name."""
    rows = [["", *_SYSTEMS.values()], ["---", *("---:" for _ in _SYSTEMS)]]
    for workload, name, title, form in _FIGURES:
        found = [_values(report, workload, system, name) for system in _SYSTEMS]
        rows.append([title, *(_told(list(each.values()), form) for each in found)])
        rows += [
            [title, *(_told(_ratios(found[0], each), "{:.2f}") for each in found)]
            for divided, title in _RATIOS
            if name == divided
        ]
    loads = spread([each.load_before for each in report.measured])
    rounds = max(each.round for each in report.measured)
    options = f' OPTIONS="{report.options}"' if report.options else ""
    versions = [f"{name} {report.versions.get(name, '?')}" for name in ("PostgreSQL", "asyncpg", "SQLite")]
    said = (
        f"`make bench-engines{options}`, on {report.machine.get('cpu_count', '?')} cores: medians of {rounds}"
        f" rounds, and between which values they lie. {', '.join(versions)}. Load before a measurement:"
        f" {loads.median:.1f} ({loads.lowest:.1f} to {loads.highest:.1f})."
    )
    return {"engines": "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", said])}


def _values(report: Report, workload: str, system: str, name: str) -> dict[int, float]:
    """Return a figure of each round."""
    found: dict[int, float] = {}
    for each in report.measured:
        figures = each.figures | {"worker_us": each.figures["loop_us"] + each.figures["threads_us"]}
        if (each.workload, each.system) == (workload, system) and name in figures:
            found[each.round] = figures[name]
    return found


def _ratios(of_sqlite: dict[int, float], found: dict[int, float]) -> list[float]:
    return [value / of_sqlite[at] for at, value in found.items() if of_sqlite.get(at)]


def _told(values: list[float], form: str) -> str:
    if not values:
        return ""
    summed: Spread = spread(values)
    median, lowest, highest = (form.format(each) for each in (summed.median, summed.lowest, summed.highest))
    return median if lowest == highest else f"{median} ({lowest} to {highest})"


def _rewrite(report: Report) -> None:
    _PAGE.write_text(fill_in(_PAGE.read_text(encoding="utf-8"), words(report)), encoding="utf-8")


@click.command()
@click.option(
    "--rounds", type=click.IntRange(min=1), default=6, show_default=True, help="How often all is measured."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.05), default=3.0, show_default=True, help="How long each sends."
)
@click.option("--system", multiple=True, metavar="TEXT", help="Only systems whose names have this in them.")
@click.option("--pages", is_flag=True, help="Write the page although options were given.")
@click.option("--rewrite", is_flag=True, help="Measure nothing; write the page's generated part from the JSON.")
def _main(rounds: int, seconds: float, system: tuple[str, ...], pages: bool, rewrite: bool) -> None:
    """Measure posthouse on SQLite and on PostgreSQL, in turns.

    Without options the results are written to docs/performance/postgresql.*.
    """
    if rewrite:
        _rewrite(msgspec.json.decode(_JSON.read_bytes(), type=Report))
        return
    machine.pin()
    options = [word for word in sys.argv[1:] if word != "--pages"]
    report = Report(machine=machine.facts(), versions={}, promises={}, options=shlex.join(options))
    plan = Plan(
        rounds=rounds,
        scale=Scale(seconds=seconds, latency_seconds=min(seconds, 2.0), deliveries=300_000),
        systems=[each for each in (WithFrames, OnOneNode, OnQuorum) if _is_wanted(each.name, system)],
        workloads=[names.ONE_TO_ONE_100, names.PUBLISH_ONE],
    )
    for number in Comparison(plan, report, Console(highlight=False, soft_wrap=True)).rounds():
        click.echo(f"  round {number} of {rounds} is done; the load is {machine.load():g}")
    click.echo(words(report)["engines"])
    if pages or not options:
        _JSON.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        _rewrite(report)
    sys.exit(1 if report.failures or report.not_run else 0)


def _is_wanted(name: str, parts: tuple[str, ...]) -> bool:
    return not parts or any(part in name for part in parts)


if __name__ == "__main__":
    _main(prog_name="python -m bench.engines")
