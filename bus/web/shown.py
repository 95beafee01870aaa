"""How values look on a page: texts of others, bodies, times, amounts.

Owns what of a foreign text is shown. Jinja escapes what means something to a browser; here, characters that are not
seen, or that turn the order of others around, become escapes as in JSON, so that a name looks like what it is.

Pure.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from ..model.records import parse_timestamp

__all__ = [
    "BODY_CHARACTERS_MAX",
    "Text",
    "amount",
    "block",
    "body",
    "clock",
    "link",
    "one_line",
    "seconds_between",
    "size",
    "span",
    "visible",
    "whole",
]

BODY_CHARACTERS_MAX = 20_000
"""More of a body is shown in a page of its own."""

_LINE_CHARACTERS_MAX = 200

_INDENTED_BYTES_MAX = 100_000
"""A longer body is shown as it was sent: to indent it would take long."""


class Text(NamedTuple):
    """A text to show, and how many characters were left out of it."""

    text: str
    left_out: int


def link(path: str, **parameters: Any) -> str:
    """Return an address of this site, with those of the parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def visible(text: Any, *, lines: bool = False) -> str:
    """Return a text with escapes for what is not visible; with `lines`, its ends of line remain."""
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() or (lines and c == "\n") else json.dumps(c)[1:-1] for c in found)


def whole(value: Any) -> str:
    """Return a JSON value as text, indented unless it is long."""
    encoded = msgspec.json.encode(value)
    if len(encoded) <= _INDENTED_BYTES_MAX:
        encoded = msgspec.json.format(encoded, indent=2)
    return encoded.decode()


def body(value: Any) -> Text:
    """Return the beginning of a JSON value as it is shown in a block."""
    text = whole(value)
    shown = text[:BODY_CHARACTERS_MAX]
    return Text(visible(shown, lines=True), len(text) - len(shown))


def block(value: Any, characters: int) -> str:
    """Return the beginning of a JSON value, or of a text, with its lines."""
    text = value if isinstance(value, str) else whole(value)
    cut = text[: characters + 1]
    return visible(cut if len(cut) <= characters else f"{cut[:characters]}…", lines=True)


def one_line(value: Any, characters: int = _LINE_CHARACTERS_MAX) -> str:
    """Return the beginning of a JSON value, or of a text, in one line."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    cut = text[: characters + 1]
    return visible(cut if len(cut) <= characters else f"{cut[:characters]}…")


def clock(text: str | None) -> str:
    """Return a time of the bus to the second; an author's text that is not a time is unchanged."""
    try:
        return "" if text is None else f"{parse_timestamp(text):%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return visible(text)


def seconds_between(begin: str | None, end: str | None, now: datetime) -> float | None:
    """Return the seconds between two times, the second of which may be missing: then it is now. None if unknown."""
    try:
        if begin is None:
            return None
        until = now if end is None else parse_timestamp(end)
        return max(0.0, (until - parse_timestamp(begin)).total_seconds())
    except ValueError:
        return None


def span(seconds: float | None) -> str:
    """Return a time span in the two largest units that it has, or the only one."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if not minutes and hours < 48:
        return f"{hours} h"
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def amount(value: float | None) -> str:
    """Return a number with its thousands apart; a hyphen for one that is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:,.1f}"


def size(value: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
