"""Times on the command line: as they are written, or so long ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import rich_click as click

from ..model.records import parse_timestamp, timestamp
from .numbers import span_seconds

__all__ = ["TimeOption"]


class TimeOption(click.ParamType[str]):
    """A time as text, in the stored form: given in RFC 3339, or as a span of time before now."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, context: click.Context | None) -> str:
        """Return the time. Fail with what to write instead if it is none."""
        text = str(value)
        ago = span_seconds(text)
        try:
            if ago is not None:
                return timestamp(datetime.now(UTC) - timedelta(seconds=ago))
            return timestamp(parse_timestamp(text))
        except (OverflowError, ValueError):
            now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            self.fail(
                f"{text!r} is neither a span of time before now, as 90s, 30m, 1h or 7d, nor a time with its zone,"
                f" as {now}",
                param,
                context,
            )
