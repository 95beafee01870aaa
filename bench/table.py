"""How a comparison's figures are shown: tables for a terminal, and a page for docs/performance/.

Owns the wording and the columns. Nothing is measured or judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from .figures import Spread, spread
from .goals import Judged
from .names import FRAMES, SQLITE, SQLITE_ROW
from .results import LIMITS, Calibration, Report, Row
from .systems import EACH_SECOND, SYNCED, WRITTEN
from .workloads import MEANING

__all__ = ["page", "show", "show_speed"]

_SHOWN = {
    "rate": ("a second", "{:,.0f}"),
    "p50_ms": ("p50 ms", "{:,.2f}"),
    "p99_ms": ("p99 ms", "{:,.2f}"),
}
"""The figures that have a column; the others stand behind the row."""

_OTHERS = {
    "sent_rate": "sent {:,.0f}/s",
    "asked_rate": "at {:,.0f}/s",
    "late_p99_ms": "the sender itself late by {:.2f} ms (p99)",
    "batch_messages": "{:,.0f} messages a commit",
    "loop_us": "processor time of the loop {:.1f} µs a message",
    "threads_us": "of the other threads {:.1f} µs",
    "primary_us": "of the primary {:.1f} µs",
    "standby_us": "of each standby {:.1f} µs",
    "ready_seconds": "{:.2f} s until ready",
    "ready_in_order_seconds": "{:.2f} s after an orderly stop",
    "connect_seconds": "{:.1f} s until all are connected",
    "memory_mib": "{:,.0f} MiB",
    "memory_before_mib": "{:,.0f} MiB before",
    "memory_most_mib": "{:,.0f} MiB at most",
    "deliver_seconds": "{:.1f} s until each has a message",
    "file_mib": "a file of {:,.0f} MiB",
    "stored": "{:,.0f} stored",
    "repeated": "{:,.0f} repeated",
    "out_of_order": "{:,.0f} out of order",
}

_QUIET = {"repeated", "out_of_order", "sent_rate", "stored", "acknowledged"}
"""Not shown where they are 0, and not in the page at all: the JSON has them."""

_COLUMNS = [
    "workload",
    "system",
    "acknowledged is",
    *(title for title, _ in _SHOWN.values()),
    "times posthouse",
    "times SQLite",
    "other figures",
]
_RIGHT = {3, 4, 5, 6, 7}

_ONE_AT_A_TIME = ("1 in flight", "1 at a time")
"""What the workloads are called whose latency counts, and not their rate."""


_GOAL_COLUMNS = ["goal", "required", "result", ""]

_SPEEDS: dict[str, Callable[[Calibration], str]] = {
    "SQLite alone, 4,096 rows in a transaction, rows a second": lambda each: f"{each.sqlite_rows:,.0f}",
    "a turn of a fixed loop of Python, ns": lambda each: f"{each.loop_ns:.1f}",
    "fdatasync, p50 ms": lambda each: f"{each.fdatasync_p50_ms:.2f}",
    "a transaction of one row, p50 ms": lambda each: f"{each.commit_p50_ms:.2f}",
    "load": lambda each: f"{each.load:.1f}",
}
"""The machine's own speed."""

_PROMISES = {
    SYNCED: ("nothing", "nothing"),
    WRITTEN: ("nothing", "the last two minutes"),
    EACH_SECOND: ("nothing, or a second if the disk is slow", "the last second or two"),
}
"""What a killed server and a power cut may take of what was acknowledged."""

_SYSTEM_COLUMNS = ["system", "acknowledged is", "a killed server loses", "a power cut loses", "a batch is"]

_HEAD = """# posthouse compared with other systems

`make bench` generated this page. [How to read it](README.md) explains what is measured, how, and what the figures
do not show. [comparison.json](comparison.json) has all results."""


def show(report: Report, judged: Sequence[Judged], console: Console) -> None:
    """Show everything on a terminal."""
    console.print(_rich(_COLUMNS, _cells(report), right=_RIGHT))
    for each in report.not_run:
        console.print(f"{each.system}: not run: {each.why}")
    for failure in report.failures:
        console.print(f"FAILED: {failure.workload}, {failure.system}: {failure.why}")
    show_speed(report, console)
    console.print(_rich(_GOAL_COLUMNS, _goal_cells(judged), right={1, 2}))


def show_speed(report: Report, console: Console) -> None:
    """Show the machine's own speed, as far as it was measured."""
    console.print(_rich(_speed_columns(report), _speed_cells(report), right={1, 2}))


def page(report: Report, judged: Sequence[Judged], pictures: Sequence[str]) -> str:
    """Write the tables in Markdown, with links to pictures in the same folder."""
    parts = [_HEAD, "## Goals"]
    if report.calibrations:
        parts.append(_markdown(_speed_columns(report), _speed_cells(report), right={1, 2}))
    parts.append(_markdown(_GOAL_COLUMNS, _goal_cells(judged), right={1, 2}))
    parts += ["## Systems", _markdown(_SYSTEM_COLUMNS, _system_cells(report))]
    parts += ["## Workloads", _markdown(["workload", "what is done"], list(MEANING.items()))]
    parts += ["## Figures", _markdown(_COLUMNS, _cells(report), right=_RIGHT)]
    if report.earlier:
        parts.append(f"From an earlier run: {'; '.join(report.earlier)}.")
    parts += [f"![{name.partition('.')[0]}]({name})" for name in pictures]
    if report.not_run:
        parts += ["## Not run", _markdown(["system", "why"], [(each.system, each.why) for each in report.not_run])]
    if report.failures:
        cells = [(each.workload, each.system, each.why) for each in report.failures]
        parts += ["## Failed", _markdown(["workload", "system", "why"], cells)]
    facts = [("options", report.options)] if report.options else []
    facts += [(name, str(value)) for name, value in (report.machine | report.versions).items()]
    loads = spread([each.load_before for each in report.measured]) if report.measured else None
    if loads is not None:
        facts.append(("load before a measurement", _range(loads, "{:.1f}")))
    parts += ["## The machine, and the versions", _markdown(["", ""], facts)]
    return "\n\n".join(parts) + "\n"


def _system_cells(report: Report) -> list[tuple[str, ...]]:
    return [
        (name, promise, *_PROMISES.get(promise, ("", "")), report.batches.get(name, ""))
        for name, promise in report.promises.items()
    ]


def _cells(report: Report) -> list[tuple[str, ...]]:
    return [_row_cells(row, report) for row in report.rows]


def _row_cells(row: Row, report: Report) -> tuple[str, ...]:
    shown = [_range(row.figures.get(name), form) for name, (_, form) in _SHOWN.items()]
    one_at_a_time = row.workload.endswith(_ONE_AT_A_TIME)
    name = "p50_ms" if one_at_a_time else "rate"
    ours = None if row.system in (FRAMES, LIMITS) else report.figure(row.workload, FRAMES, name)
    bare = SQLITE_ROW if one_at_a_time else SQLITE
    limit = None if row.system == LIMITS else report.figure(bare, LIMITS, name)
    times = [_times(row.figures.get(name), other) for other in (ours, limit)]
    return (row.workload, row.system, report.promises.get(row.system, ""), *shown, *times, _beside(row))


def _times(found: Spread | None, other: float | None) -> str:
    return f"{found.median / other:.2f}" if found is not None and other else ""


def _beside(row: Row) -> str:
    parts: list[str] = []
    for name, form in _OTHERS.items():
        found = row.figures.get(name)
        if found is not None and name not in _QUIET:
            parts.append(form.format(found.median))
    return ", ".join(parts)


def _range(found: Spread | None, form: str) -> str:
    if found is None:
        return ""
    text = form.format(found.median)
    if found.lowest == found.highest:
        return text
    return f"{text} ({form.format(found.lowest)} to {form.format(found.highest)})"


def _speed_columns(report: Report) -> list[str]:
    return ["the machine by itself", *(f"at the {each.moment}" for each in report.calibrations)]


def _speed_cells(report: Report) -> list[tuple[str, ...]]:
    return [(title, *map(tell, report.calibrations)) for title, tell in _SPEEDS.items()]


def _goal_cells(judged: Sequence[Judged]) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for each in judged:
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[each.met]
        form = "{:,.0f}" if each.figure is not None and each.figure >= 100 else "{:.2f}"
        cells.append((each.name, each.goal, "" if each.figure is None else form.format(each.figure), verdict))
    return cells


def _rich(titles: Sequence[str], cells: Iterable[Sequence[str]], right: set[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for index, title in enumerate(titles):
        table.add_column(title, justify="right" if index in right else "left")
    for row in cells:
        table.add_row(*row)
    return table


def _markdown(titles: Sequence[str], cells: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    marks = ["---:" if index in right else "---" for index in range(len(titles))]
    lines = [titles, marks, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
