"""How the benchmark of checkpoints tells what it found: on a terminal, and on its page under docs/performance.

Owns the table between the page's two marks and the figure beside it; what people wrote around them stays.
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ..figures import Spread
from .figures import GOAL, GOAL_RUNS, Report, Summary, Turn

__all__ = ["line", "show", "table_lines", "verdict", "write"]

_BEGIN, _END = "<!-- begin of the figures -->", "<!-- end of the figures -->"


def line(turn: Turn) -> str:
    """Tell of one turn."""
    rates = "  ".join(f"{runs}: {rate:7,.0f}/s" for runs, rate in turn.per_second.items())
    text = f"round {turn.round}  {turn.system!s:<35} step {turn.alone.step.p50_ms:6.2f} ms  {rates}"
    text += f"  load {turn.load_before:.2f}"
    return text + (f"  LOST {turn.lost}" if turn.lost else "")


def show(report: Report, console: Console) -> None:
    """Tell of all that was found."""
    head, *rows = _cells(report)
    table = Table(box=box.SIMPLE_HEAD)
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(
        f"Medians of {report.plan.rounds} rounds; in brackets, how many times as many the first one keeps in the"
        " same round, or the one that the goal names."
    )
    console.print(_account(report))
    if (told := verdict(report)) is not None:
        console.print(told)


def verdict(report: Report) -> str | None:
    """Say whether the goal is met; None where no rival was measured beside its like."""
    ratio = report.goal_ratio
    if ratio is None:
        return None
    met = "met" if ratio >= GOAL else "NOT MET"
    found = "; ".join(
        f"{each.ratio[GOAL_RUNS].median:.1f} times {each.system} (by {each.against.way})" for each in report.rivals
    )
    return (
        f"The goal, {GOAL:g} times as many checkpoints with {GOAL_RUNS} runs as others by the same means, is {met}:"
        f" {found}."
    )


def _account(report: Report) -> str:
    steps, lost = sum(turn.steps for turn in report.turns), sum(turn.lost for turn in report.turns)
    return f"{steps:,} checkpoints were said to be kept, and {lost:,} of them are not in their files."


def _cells(report: Report) -> list[list[str]]:
    counts = report.plan.runs
    rows = [["", *(f"{runs} run{'s' if runs > 1 else ''}" for runs in counts), "a step alone", "ten steps alone"]]
    rows += [
        [str(each.system), *(_rate(each, runs) for runs in counts), f"{each.step_ms.median:.2f} ms", _run(each)]
        for each in report.summary
    ]
    return rows


def _rate(summary: Summary, runs: int) -> str:
    if runs not in summary.per_second:
        return ""
    return f"{summary.per_second[runs].median:,.0f} ({summary.ratio[runs].median:.1f})"


def _run(summary: Summary) -> str:
    return f"{summary.run_ms.median:.1f} ms"


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────


def table_lines(report: Report) -> list[str]:
    """Give the page's tables."""
    counts = report.plan.runs
    names = [f"{runs} run{'s' if runs > 1 else ''}" for runs in counts]
    loads = sorted(turn.load_before for turn in report.turns)
    lines = [
        f"{report.plan.rounds} rounds, {report.plan.seconds:g} s a load; the load average was {loads[0]:.1f} to"
        f" {loads[-1]:.1f} before a turn (median {loads[len(loads) // 2]:.1f}). {_account(report)}",
        "",
        "Checkpoints a second: median (lowest to highest).",
        "",
        _row("", *names, "what is on disk when a step is over"),
        _row(*["---"] * (len(names) + 2)),
        *(
            _row(str(each.system), *(_many(each.per_second.get(runs)) for runs in counts), each.system.promise)
            for each in report.summary
        ),
        "",
        f"How many times as many {report.summary[0].system.name} keeps, in the same round: median (lowest to"
        " highest).",
        "",
        _row("by", "against", *names),
        _row(*["---"] * (len(names) + 2)),
        *(
            _row(each.against.way, str(each.system), *(_times(each.ratio.get(runs)) for runs in counts))
            for each in report.summary[1:]
        ),
        "",
        "Microseconds of the processors for a checkpoint, of all processes of a system together: median (lowest to"
        " highest). Of all figures this one depends least on what else the machine does.",
        "",
        _row("", *names),
        _row(*["---"] * (len(names) + 1)),
        *(_row(str(each.system), *(_many(each.cpu_us.get(runs)) for runs in counts)) for each in report.summary),
        "",
        "One run alone: median (lowest to highest) of the rounds' medians.",
        "",
        _row("", "from a step to the next", "a whole run of ten steps"),
        _row(*["---"] * 3),
        *(
            _row(str(each.system), _milliseconds(each.step_ms), _milliseconds(each.run_ms))
            for each in report.summary
        ),
    ]
    if (told := verdict(report)) is not None:
        lines += ["", told]
    return lines


def write(report: Report, page: Path) -> None:
    """Write the tables into a page, between its marks, and the figure beside it."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Checkpoints\n\n{_BEGIN}\n{_END}\n"
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    tables = "\n".join(table_lines(report))
    page.write_text(f"{before}{_BEGIN}\n\n{tables}\n\n{_END}{after}", encoding="utf-8")
    _draw(report, page.with_suffix(".png"))


def _draw(report: Report, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [each for each in report.summary if not each.system.limit]
    counts = report.plan.runs
    figure, axes = pyplot.subplots(figsize=(7.5, 3.6), layout="constrained")
    width = 0.8 / len(shown)
    for index, each in enumerate(shown):
        places = [place + (index - (len(shown) - 1) / 2) * width for place in range(len(counts))]
        axes.bar(places, [each.per_second[runs].median for runs in counts], width, label=str(each.system))
    axes.set_yscale("log")
    axes.set_xticks(range(len(counts)), [f"{runs} run{'s' if runs > 1 else ''}" for runs in counts])
    axes.set_ylabel("durable checkpoints a second")
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(file, dpi=90)
    pyplot.close(figure)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _many(found: Spread | None) -> str:
    return "" if found is None else f"{found.median:,.0f} ({found.lowest:,.0f} to {found.highest:,.0f})"


def _times(found: Spread | None) -> str:
    return "" if found is None else f"{found.median:.1f} ({found.lowest:.1f} to {found.highest:.1f})"


def _milliseconds(found: Spread) -> str:
    return f"{found.median:.2f} ms ({found.lowest:.2f} to {found.highest:.2f})"
