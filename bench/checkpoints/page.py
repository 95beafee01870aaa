"""How the benchmark of checkpoints tells what it found: on a terminal, its page, and the project's front page.

Owns the wording and the tables. They are made of the report alone, so that pages agree with it; what stands around
them is written by people. Pure, but for the figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ..figures import Spread, spread
from .figures import (
    DBOS,
    EIGHT,
    GRAPHS,
    LARGE,
    LARGER,
    LONG,
    OURS,
    QUIET,
    SAVERS,
    SHORT,
    STORE,
    TUNED,
    Judged,
    Report,
    Turn,
    judge,
)
from .loads import ALONE, LOADS

__all__ = ["draw", "line", "show", "words"]


def line(turn: Turn, counts: bool) -> str:
    """Tell of one turn."""
    told = "  ".join(f"{figures.rate:,.0f}/s {figures.cpu_ms:.2f} ms" for figures in turn.loads.values())
    text = f"round {turn.round}  {turn.system:<29} {told}"
    text += f"  others {turn.others_cores:.2f}, sync {turn.sync_ms:.2f} ms"
    text += "" if counts else "  DOES NOT COUNT"
    return text + (f"  LOST {turn.lost}" if turn.lost else "")


def show(report: Report, console: Console) -> None:
    """Tell of all that was found."""
    for title, name in (("processor time, ms", "cpu_ms"), ("a second", "rate")):
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
        table.add_column()
        for load in report.plan.loads:
            table.add_column(load, justify="right")
        for system in report.systems:
            cells = [report.figure(system.name, load, name) for load in report.plan.loads]
            table.add_row(system.name, *("" if found is None else _number(found.median) for found in cells))
        console.print(table)
    console.print(_account(report))
    for each in judge(report):
        if each.found is not None:
            met = "met" if each.met else "MISSED"
            console.print(f"{met:<7} {_number(each.found.median):>6}, {each.goal}: {each.name}")


def words(report: Report) -> dict[str, str]:
    """Return each generated part of the pages in Markdown, by its name."""
    return {
        "machine": _machine(report),
        "result": _result(report),
        "goals": _goals(report),
        "processor": _table(report, "cpu_ms"),
        "rates": _table(report, "rate"),
        "alone": _alone(report),
        "runs": _front(report),
    }


# ── Sentences ────────────────────────────────────────────────────────────────────────────────────────────


def _machine(report: Report) -> str:
    options = f' OPTIONS="{report.options}"' if report.options else ""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    others = spread([turn.others_cores for turn in report.turns])
    syncs = spread([turn.sync_ms for turn in report.turns])
    plan = report.plan
    counted = (
        f"Turns in which other programs took more than {plan.others_max:g} of them did not count ({report.dropped}"
        " were taken again or left out)."
        if plan.others_max is not None
        else "**Every turn counted, however busy other programs kept the machine**: so take rates as a rough guide."
    )
    lines = [
        f"`make bench-checkpoints{options}`, on {report.machine.get('cpu_count', '?')} cores"
        f" ({report.machine.get('architecture', '?')}, {report.machine.get('system', '?')}"
        f" {report.machine.get('kernel', '?')}), {plan.rounds} round{'s' if plan.rounds > 1 else ''} of"
        f" {plan.seconds:g} s a load. {counted} Others took {others.median:.2f} cores"
        f" ({others.lowest:.2f} to {others.highest:.2f}) in a turn; a sync of 4 KiB took {syncs.median:.2f} ms"
        f" ({syncs.lowest:.2f} to {syncs.highest:.2f}) before it. {_account(report)}",
        *(
            f"At the {each.moment}, SQLite alone stored {each.sqlite_rows:,.0f} rows a second, a turn of a loop of"
            f" Python took {each.loop_ns:.0f} ns, and a transaction of one row {each.commit_p50_ms:.2f} ms."
            for each in report.calibrations
        ),
        *(f"Failed: {each}." for each in report.failures),
        *(f"Not measured: {name}, since {why}." for name, why in report.absent.items()),
        f"Versions: {versions}.",
    ]
    return "\n\n".join(lines)


def _account(report: Report) -> str:
    steps, lost = sum(turn.steps for turn in report.turns), sum(turn.lost for turn in report.turns)
    return f"{steps:,} checkpoints were acknowledged, and {lost:,} of them are not stored."


# ── Tables ───────────────────────────────────────────────────────────────────────────────────────────────


def _result(report: Report) -> str:
    """Set every other system beside ours: above 1 is in our favour, in each column."""
    rows = []
    for system in report.systems:
        ours = (STORE,) if system.name in SAVERS else (OURS, QUIET)
        cells = [
            *(_beside([report.ratio(load, "cpu_ms", system.name, each) for each in ours]) for load in _COMPARED),
            *(_beside([report.ratio(load, "rate", each, system.name) for each in ours]) for load in _COMPARED),
        ]
        if any(cells) and system.name not in (OURS, QUIET, STORE) and not system.limit:
            rows.append([system.name, *cells])
    heads = [_SHORT_NAMES[load] for load in _COMPARED]
    return _markdown(
        ["", *(f"processor time, {each}" for each in heads), *(f"rate, {each}" for each in heads)], rows
    )


_COMPARED = (SHORT, LARGE, LARGER, LONG)

_SHORT_NAMES = {
    SHORT: "300 B",
    LARGE: "20 KB",
    LARGER: "200 KB",
    LONG: "long runs",
    EIGHT: "300 B, 8 side by side",
    ALONE: ALONE,
}


def _beside(found: list[Spread | None]) -> str:
    told = [_number(each.median) for each in found if each is not None]
    if len(told) != len(found):
        return ""
    return told[0] if len(told) == 1 else f"{told[0]} ({told[1]})"


def _goals(report: Report) -> str:
    return _markdown(["goal", "", "found", ""], [_goal(each) for each in judge(report)])


def _goal(judged: Judged) -> list[str]:
    met = {True: "met", False: "**missed**", None: "not measured"}[judged.met]
    return [judged.name, judged.goal, _spread(judged.found), met]


def _table(report: Report, name: str) -> str:
    """Show a figure of every system under every load but that of one run alone."""
    loads = [load for load in report.plan.loads if load != ALONE]
    rows = [
        [system.name, *(_spread(report.figure(system.name, load, name)) for load in loads)]
        for system in report.systems
    ]
    return _markdown(["", *(f"{_SHORT_NAMES[load]}, a {LOADS[load].unit}" for load in loads)], rows)


def _alone(report: Report) -> str:
    rows = [
        [
            system.name,
            _spread(report.figure(system.name, ALONE, "run_ms")),
            _spread(report.figure(system.name, ALONE, "cpu_ms")),
            system.promise,
        ]
        for system in report.systems
        if not system.limit
    ]
    return _markdown(["", "a run, ms", "its processor time, ms", "what is on disk when a step is over"], rows)


def _front(report: Report) -> str:
    """Say in a few lines what the front page needs to know, of each other system at its best."""
    rows: list[list[str]] = []
    for system in (OURS, report.better(DBOS, SHORT), report.better(GRAPHS, SHORT), TUNED):
        if system is None:
            continue
        figures = [report.figure(system, SHORT, "rate")]
        figures += [report.figure(system, load, "cpu_ms") for load in (SHORT, LARGE, LARGER)]
        if figures[0] is not None:
            rows.append([system, *("" if each is None else _number(each.median) for each in figures)])
    heads = ["runs a second", "processor time of a run, ms", "with 20 KB", "with 200 KB"]
    return _markdown(["five-step runs, 64 side by side", *heads], rows)


def _markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    rules = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rules, *rows))


def _spread(found: Spread | None) -> str:
    if found is None:
        return ""
    if found.lowest == found.highest:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.lowest)} to {_number(found.highest)})"


def _number(value: float) -> str:
    """Write a figure with as many digits as say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def draw(report: Report, file: Path) -> None:
    """Draw the processor time of short runs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [each.name for each in report.systems if report.figure(each.name, SHORT, "cpu_ms")]
    figure, axes = pyplot.subplots(figsize=(7.5, 3.8), layout="constrained")
    for load in (SHORT, LARGE, LARGER):
        found = {place: report.figure(name, load, "cpu_ms") for place, name in enumerate(shown)}
        points = [(each.median, place) for place, each in found.items() if each is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], "o", label=_SHORT_NAMES[load])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of the processors, for a run of five steps")
    axes.legend(fontsize="small", frameon=False, title="each step's output")
    figure.savefig(file, dpi=90)
    pyplot.close(figure)
