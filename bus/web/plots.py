"""The lines of a plot, as points of an SVG: a browser draws them without a script.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["HEIGHT", "WIDTH", "Line", "Plot", "plot"]

WIDTH, HEIGHT = 600, 120
"""The inner coordinates; the page stretches them."""

_STEPS = (1.0, 2.0, 5.0, 10.0)


class Line(NamedTuple):
    """One line: its name, the points of each stretch without a gap, and its last value."""

    name: str
    stretches: list[str]
    last: float


class Plot(NamedTuple):
    """Lines over the same seconds, between 0 and `top`."""

    title: str
    seconds: float
    top: float
    lines: list[Line]
    is_size: bool


def plot(
    title: str,
    times: Sequence[float],
    values: Mapping[str, Sequence[float | None]],
    *,
    seconds: float,
    is_size: bool = False,
) -> Plot:
    """Draw values over the last so many seconds before the last of the times; None is a gap."""
    known = [value for line in values.values() for value in line if value is not None]
    top = _round_up(max(known, default=0.0))
    lines = [Line(name, _stretches(times, line, seconds, top), _last(line)) for name, line in values.items()]
    return Plot(title, seconds, top, lines, is_size)


def _last(values: Sequence[float | None]) -> float:
    return next((value for value in reversed(values) if value is not None), 0.0)


def _stretches(times: Sequence[float], values: Sequence[float | None], seconds: float, top: float) -> list[str]:
    stretches: list[list[str]] = [[]]
    for time, value in zip(times, values, strict=True):
        if value is None:
            stretches.append([])
        else:
            x = WIDTH * (1 - (times[-1] - time) / seconds)
            stretches[-1].append(f"{x:.1f},{HEIGHT * (1 - value / top):.1f}")
    return [" ".join(points) for points in stretches if points]


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 and so on."""
    scale = 1.0
    while scale * _STEPS[-1] < value:
        scale *= 10
    return next(scale * step for step in _STEPS if scale * step >= value)
