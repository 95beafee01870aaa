"""What pages say of a comparison's figures: sentences and tables made of the report, so that they agree with it.

Owns the wording. What stands between `<!-- begin NAME … -->` and `<!-- end NAME -->` in a page is replaced. What
was not measured is left out. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from . import names
from .causes import CAUSES
from .figures import Spread, spread
from .goals import BACKLOG, CONNECTED, EMPTY, FULL, RESTART, judge
from .results import Report

__all__ = ["fill_in", "words"]


_SYNCED = [names.FRAMES, names.BEFORE, names.BUS, names.JETSTREAM_SYNCING, names.REDIS_SYNCING, names.RABBITMQ]
_ALIKE = {
    "Single messages, many in flight": (names.PUBLISH_SINGLES, names.ONE_TO_ONE_SINGLES),
    "Batches of 100": (names.PUBLISH_100, names.ONE_TO_ONE_100),
    "Batches of 1,000": (names.PUBLISH_1000, names.ONE_TO_ONE_1000),
}
_CALLED = {names.JETSTREAM_SYNCING: "JetStream", names.REDIS_SYNCING: "Redis"}

_EQUAL = 1.1
"""Figures that are nearer than this are called equal."""


def words(report: Report) -> dict[str, str]:
    """Return each part's text in Markdown, by its name."""
    return {"headline": _headline(report), "short": _short(report), "missed": _missed(report)}


def fill_in(page: str, parts: Mapping[str, str]) -> str:
    """Return a page with each part that it has a place for."""
    for name, text in parts.items():
        place = re.search(rf"<!-- begin {name}\b[^>]*-->\n(.*?)<!-- end {name} -->", page, re.DOTALL)
        if place is not None:
            page = f"{page[: place.start(1)]}{text}\n{page[place.end(1) :]}"
    return page


# ── The headline ─────────────────────────────────────────────────────────────────────────────────────────


def _headline(report: Report) -> str:
    alike = [_alike(report, name) for name in _ALIKE]
    sentences = [*alike, _unsynced(report), _one(report), _before(report), _big(report)]
    return "\n".join([_run(report), "", _table(report), "", *(f"- {each}" for each in sentences if each)])


def _run(report: Report) -> str:
    options = f' OPTIONS="{report.options}"' if report.options else ""
    loads = spread([each.load_before for each in report.measured]) if report.measured else Spread(0.0, 0.0, 0.0)
    rows = ", ".join(f"{each.sqlite_rows:,.0f} at the {each.moment}" for each in report.calibrations)
    return (
        f"`make bench{options}`, on {report.machine.get('cpu_count', '?')} cores; load before a measurement: "
        f"{loads.median:.1f} ({loads.lowest:.1f} to {loads.highest:.1f})."
        + (f" Rows a second of SQLite alone: {rows}." if rows else "")
    )


def _table(report: Report) -> str:
    rows = [name for pair in zip(*_ALIKE.values(), strict=True) for name in pair]
    systems = [each for each in _SYNCED if any(report.figure(workload, each, "rate") for workload in rows)]
    lines = [["messages a second, synced", *systems], ["---", *("---:" for _ in systems)]]
    for workload in rows:
        rates = [report.figure(workload, system, "rate") for system in systems]
        lines.append([workload, *("" if rate is None else f"{rate:,.0f}" for rate in rates)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _alike(report: Report, name: str) -> str:
    said: list[str] = []
    for system in _CALLED:
        found = [
            f"{what} {_against(report, workload, system)}"
            for what, workload in zip(("publishing,", "one to one,"), _ALIKE[name], strict=True)
            if _ratio(report, workload, system, names.BUS) is not None
        ]
        if found:
            said.append("; ".join(found))
    return f"**{name}**, through the Python clients: {'. '.join(_capital(each) for each in said)}." if said else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _against(report: Report, workload: str, system: str) -> str:
    """Say how posthouse's Python client stands beside another system's."""
    return _compared(_ratio(report, workload, system, names.BUS), _CALLED[system])


def _compared(ratio: float | None, other: str) -> str:
    assert ratio is not None
    if max(ratio, 1 / ratio) < _EQUAL:
        return f"posthouse and {other} are equal within a tenth"
    if ratio > 1:
        return f"posthouse is {ratio:.1f} times as fast as {other}"
    return f"{other} is {1 / ratio:.1f} times as fast as posthouse"


def _ratio(report: Report, workload: str, system: str, ours: str, figure: str = "rate") -> float | None:
    upper, lower = report.figure(workload, ours, figure), report.figure(workload, system, figure)
    return upper / lower if upper and lower else None


def _unsynced(report: Report) -> str:
    ratio = _ratio(report, names.PUBLISH_1000, names.JETSTREAM, names.BUS)
    if ratio is None:
        return ""
    told = f"publishing in batches of 1,000, {_compared(ratio, 'JetStream')}"
    return f"**JetStream with its default settings**, which does not sync before it answers: {told}."


def _one(report: Report) -> str:
    found = {
        name: report.figure(names.PUBLISH_ONE, system, "p50_ms")
        for name, system in {"posthouse": names.BUS, **{_CALLED[each]: each for each in _CALLED}}.items()
    }
    told = [f"{name} {figure:.2f} ms" for name, figure in found.items() if figure is not None]
    return f"**One message at a time**, p50 until it is acknowledged: {', '.join(told)}." if told else ""


def _before(report: Report) -> str:
    workloads = (names.PUBLISH_100, names.ONE_TO_ONE_100, names.ONE_TO_TEN, names.PAIRS, names.ASK_MANY, BACKLOG)
    ratios = {each: _ratio(report, each, names.BEFORE, names.FRAMES) for each in workloads}
    told = [f"{workload}: {ratio:.2f}" for workload, ratio in ratios.items() if ratio is not None]
    if not told:
        return ""
    commit = report.versions.get(names.BEFORE, "?")
    return f"**Today's rate divided by that of the version before**, commit {commit}: {'; '.join(told)}."


def _big(report: Report) -> str:
    full, empty = (report.figure(each, names.FRAMES, "rate") for each in (FULL, EMPTY))
    ready = report.figure(RESTART, names.FRAMES, "ready_seconds")
    memory = report.figure(CONNECTED, names.FRAMES, "memory_mib")
    told: list[str] = []
    if full and empty:
        told.append(f"with ten million messages stored posthouse has {full / empty:.2f} of its rate one to one")
    if ready is not None:
        told.append(f"after a kill it is ready in {ready:.1f} s")
    if memory is not None:
        told.append(f"it holds 10,000 bots in {memory:,.0f} MiB")
    return f"**Size:** {'; '.join(told)}." if told else ""


# ── The other parts ──────────────────────────────────────────────────────────────────────────────────────


def _short(report: Report) -> str:
    """Say in a few lines what the front page needs to know."""
    parts: list[str] = []
    for name, (publish, _) in _ALIKE.items():
        ours, theirs = (report.figure(publish, each, "rate") for each in (names.BUS, names.JETSTREAM_SYNCING))
        if ours and theirs:
            parts.append(f"| {name.lower()} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.1f} |")
    head = ["| published a second, synced | posthouse | JetStream | ratio |", "| --- | ---: | ---: | ---: |"]
    return "\n".join([*head, *parts])


def _missed(report: Report) -> str:
    loop, threads = (report.figure(names.ONE_TO_ONE_100, names.FRAMES, each) for each in ("loop_us", "threads_us"))
    lines: list[str] = []
    if loop is not None and threads is not None:
        lines += [
            f"One to one, in frames of a hundred, a message takes {loop:.0f} µs of processor time of the",
            f"worker's loop and {threads:.0f} µs of its other threads.",
            "",
        ]
    lines += ["| missed goal | goal | result | cause |", "| --- | ---: | ---: | --- |"]
    for each in judge(report):
        if each.met is False and each.figure is not None:
            form = "{:,.0f}" if each.figure >= 100 else "{:.2f}"
            cause = CAUSES.get(each.name, "")
            lines.append(f"| {each.name} | {each.goal} | {form.format(each.figure)} | {cause} |")
    return "\n".join(lines)
