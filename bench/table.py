"""How a comparison's figures are shown: tables for a terminal, and a page for docs/performance/.

Owns the wording and the columns. Nothing is measured or judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from .figures import Spread
from .goals import FRAMES, Judged
from .results import LIMITS, Report, Row

__all__ = ["page", "show"]

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

_QUIET = {"repeated", "out_of_order", "sent_rate", "stored"}
"""Not shown where they are 0, and not in the page at all: the JSON has them."""

_COLUMNS = ["workload", "system", *(title for title, _ in _SHOWN.values()), "times posthouse", "beside that"]


def show(report: Report, judged: Sequence[Judged], console: Console) -> None:
    """Show everything on a terminal."""
    console.print(_rich(_COLUMNS, _cells(report), right={2, 3, 4, 5}))
    for each in report.not_run:
        console.print(f"{each.system}: not run: {each.why}")
    for failure in report.failures:
        console.print(f"FAILED: {failure.workload}, {failure.system}: {failure.why}")
    console.print(_rich(["goal", "wanted", "found", ""], _goal_cells(judged), right={1, 2}))


def page(report: Report, judged: Sequence[Judged]) -> str:
    """Write the tables in Markdown."""
    parts = [
        "## Goals\n",
        _markdown(["goal", "wanted", "found", ""], _goal_cells(judged), right={1, 2}),
        "\n## Figures\n",
        _markdown(_COLUMNS, _cells(report), right={2, 3, 4, 5}),
        "\n## What an acknowledgement promises\n",
        _markdown(["system", "promise"], report.promises.items(), right=set()),
    ]
    if report.not_run:
        parts += [
            "\n## Not run\n",
            _markdown(["system", "why"], [(e.system, e.why) for e in report.not_run], set()),
        ]
    if report.failures:
        cells = [(each.workload, each.system, each.why) for each in report.failures]
        parts += ["\n## Failed\n", _markdown(["workload", "system", "why"], cells, set())]
    facts = " · ".join(f"{name} {value}" for name, value in (report.machine | report.versions).items())
    return "\n".join(parts) + f"\n\nThe machine and the versions: {facts}.\n"


def _cells(report: Report) -> list[tuple[str, ...]]:
    return [_row_cells(row, report) for row in report.rows]


def _row_cells(row: Row, report: Report) -> tuple[str, ...]:
    shown = [_range(row.figures.get(name), form) for name, (_, form) in _SHOWN.items()]
    return (row.workload, row.system, *shown, _times(row, report), _beside(row))


def _times(row: Row, report: Report) -> str:
    """Set a row's rate, or where that is not what it is about its p50, against posthouse's in the same workload."""
    if row.system in (FRAMES, LIMITS):
        return ""
    name = "p50_ms" if "1 " in row.workload.partition(",")[2] else "rate"
    ours = report.figure(row.workload, FRAMES, name)
    theirs = row.figures.get(name)
    return f"{theirs.median / ours:.2f}" if ours and theirs is not None else ""


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


def _markdown(titles: Sequence[str], cells: Iterable[Sequence[str]], right: set[int]) -> str:
    marks = ["---:" if index in right else "---" for index in range(len(titles))]
    lines = [titles, marks, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
