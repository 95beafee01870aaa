"""How a comparison's figures look: pictures for docs/performance/.

Owns their form. A bar is a median, its line reaches from the lowest round to the highest, and posthouse always has
the same colours. Needs matplotlib, which is loaded when something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import names
from .names import BEFORE, BUS, FRAMES
from .results import LIMITS, Report, Row

__all__ = ["PICTURES", "draw"]

PICTURES = ("throughput.png", "latency.png", "limits.png")

_COLOURS = {FRAMES: "#0b5fa5", BUS: "#6fa8d6", BEFORE: "#b5cde0"}
_OTHER, _LIMIT = "#9a9a9a", "#d0b060"

_RATES = [
    names.PUBLISH_SINGLES,
    names.PUBLISH_100,
    names.PUBLISH_1000,
    names.ONE_TO_ONE_SINGLES,
    names.ONE_TO_ONE_100,
    names.ONE_TO_ONE_1000,
    "one to ten",
    "one to a hundred",
    "a hundred bots in pairs",
    "draining a backlog",
    "request and reply, many",
]
_LATENCIES = [names.PUBLISH_ONE, "request and reply, 1 at a time"]
_LIMITS = ("SQLite, 4096", "SQLite, posthouse", "ROUTER to DEALER, 100")
_PARTS = [names.ONE_TO_ONE_100, names.PUBLISH_100]

_WIDTH_INCHES = 9.0
_BAR_INCHES = 0.26
_TITLE_INCHES = 0.75
_DOTS_AN_INCH = 130


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw everything that was measured, and give the files."""
    rows = report.rows
    limits = [row for row in rows if row.system == LIMITS and row.workload.startswith(_LIMITS)]
    ours = [row for row in rows if row.system == FRAMES and row.workload in _PARTS]
    pictures = [
        (PICTURES[0], "messages a second", "rate", _of(rows, _RATES)),
        (PICTURES[1], "milliseconds, p50", "p50_ms", _of(rows, _LATENCIES)),
        (PICTURES[2], "messages a second", "rate", [("posthouse, and what it is made of", [*ours, *limits])]),
    ]
    files: list[Path] = []
    for name, unit, figure, groups in pictures:
        if any(found for _, found in groups):
            files.append(folder / name)
            _draw(files[-1], unit, figure, groups)
    return files


def _of(rows: Sequence[Row], workloads: Sequence[str]) -> list[tuple[str, list[Row]]]:
    groups = [(name, [row for row in rows if row.workload == name]) for name in workloads]
    return [group for group in groups if group[1]]


def _draw(file: Path, unit: str, figure: str, groups: Sequence[tuple[str, Sequence[Row]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [len(rows) * _BAR_INCHES + _TITLE_INCHES for _, rows in groups]
    canvas, panels = pyplot.subplots(
        len(groups), 1, figsize=(_WIDTH_INCHES, sum(heights)), height_ratios=heights, squeeze=False
    )
    for panel, (title, rows) in zip(panels[:, 0], groups, strict=True):
        _panel(panel, title, figure, rows)
    panels[-1, 0].set_xlabel(unit)
    canvas.tight_layout()
    canvas.savefig(file, dpi=_DOTS_AN_INCH)
    pyplot.close(canvas)


def _panel(panel: Any, title: str, figure: str, rows: Sequence[Row]) -> None:
    mixed = len({row.workload for row in rows}) > 1
    labels = [
        f"{'' if row.system == LIMITS else 'posthouse: '}{row.workload}" if mixed else row.system for row in rows
    ]
    found = [row.figures[figure] for row in rows]
    colours = [_LIMIT if row.system == LIMITS else _COLOURS.get(row.system, _OTHER) for row in rows]
    places = range(len(rows))
    medians = [each.median for each in found]
    below = [each.median - each.lowest for each in found]
    above = [each.highest - each.median for each in found]
    panel.barh(places, medians, color=colours, height=0.72)
    panel.errorbar(medians, places, xerr=[below, above], fmt="none", ecolor="#303030", elinewidth=1, capsize=2)
    end = max(each.highest for each in found)
    for place, each in zip(places, found, strict=True):
        text = f"{each.median:,.0f}" if each.median >= 100 else f"{each.median:.2f}"
        panel.text(each.highest + end * 0.01, place, text, va="center", fontsize=8)
    panel.set_yticks(places, labels, fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.xaxis.set_major_formatter("{x:,.10g}")
    panel.set_xlim(0, end * 1.12)
    panel.invert_yaxis()
    panel.set_title(title, loc="left", fontsize=10, fontweight="bold")
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
