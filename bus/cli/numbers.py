"""Numbers on the command line: whole ones, and spans of time. A wrong one is refused in one sentence."""

from __future__ import annotations

import re
from typing import Any

import rich_click as click

from ..wire.limits import NUMBER_MAX, WAIT_SECONDS_MAX

__all__ = ["WholeNumber", "seconds", "seconds_or_none", "span_seconds"]

_SPAN = re.compile(r"(\d{1,9})([smhd])")

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_EXAMPLE = 20


def span_seconds(text: str) -> int | None:
    """Return the seconds of a span such as 90s, 30m, 1h or 7d; None if a text is none."""
    span = _SPAN.fullmatch(text)
    return None if span is None else int(span[1]) * _UNIT_SECONDS[span[2]]


class _Seconds(click.ParamType[float]):
    """Seconds up to ten years, as a number or a span."""

    name = "span"

    def __init__(self, *, least: str, zero: bool) -> None:
        self._least = least
        self._zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds. Fail with what to write instead."""
        try:
            span = span_seconds(str(value))
            seconds = float(value if span is None else span)
        except ValueError:
            seconds = -1.0
        if 0 < seconds <= WAIT_SECONDS_MAX or (self._zero and seconds == 0):  # NaN is neither
            return seconds
        most = f"{WAIT_SECONDS_MAX // _UNIT_SECONDS['d']:,} days"
        return self.fail(
            f"{str(value)!r} is not a span of time {self._least}, and at most {most}: write 90s, 30m, 1h or 7d,"
            " or a number of seconds",
            param,
            ctx,
        )


seconds = _Seconds(least="of more than 0 seconds", zero=False)
seconds_or_none = _Seconds(least="of 0 seconds or more", zero=True)


class WholeNumber(click.ParamType[int]):
    """A whole number within bounds."""

    name = "number"

    def __init__(self, least: int = 1, most: int = NUMBER_MAX) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Fail with what to write instead."""
        try:
            number = int(value)
        except ValueError:
            number = self._least - 1
        if self._least <= number <= self._most:
            return number
        example = min(max(self._least, _EXAMPLE), self._most)
        return self.fail(
            f"{str(value)!r} is not a whole number from {self._least:,} to {self._most:,}, such as {example}",
            param,
            ctx,
        )
