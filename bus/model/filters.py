"""Which runs are listed or counted, and by which texts they are found.

Owns these values, and their limits. Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..errors import InvalidValue
from .records import Record, RunStatus, parse_timestamp, timestamp

__all__ = [
    "ATTRIBUTES_MAX",
    "ATTRIBUTE_CHARACTERS_MAX",
    "RunCount",
    "RunCounts",
    "RunFilter",
    "checked_attributes",
    "checked_filter",
]

ATTRIBUTES_MAX = 16
"""Attributes of a run: each is a row of an index of its own."""

ATTRIBUTE_CHARACTERS_MAX = 256
"""Characters of an attribute's name, and of its value: it is to be found by, and not to be read."""


class RunFilter(Record, frozen=True, omit_defaults=True):
    """Which runs are listed or counted: those to which all of it applies. None and `{}` mean any.

    `workflow` is the name or the id of a definition. Runs started at `since` or later, and before `until`, RFC 3339
    times. They have all `attributes`, with just these values, and ids that begin with `id_prefix`.
    """

    status: RunStatus | None = None
    workflow: str | None = None
    since: str | None = None
    until: str | None = None
    concurrency_key: str | None = None
    attributes: dict[str, str] = msgspec.field(default_factory=dict)
    id_prefix: str | None = None


class RunCount(Record, frozen=True):
    """How many runs of a workflow have a status."""

    workflow_id: str
    status: RunStatus
    runs: int


class RunCounts(Record, frozen=True):
    """Numbers of runs; `more` if there are so many that not all were counted, but only some."""

    counts: tuple[RunCount, ...]
    more: bool = False


def checked_filter(where: RunFilter) -> RunFilter:
    """Return a filter with its times in the stored form. Raise InvalidValue if one is none."""
    return msgspec.structs.replace(
        where,
        since=_stored("since", where.since),
        until=_stored("until", where.until),
        attributes=checked_attributes(where.attributes),
    )


def _stored(what: str, text: str | None) -> str | None:
    try:
        return None if text is None else timestamp(parse_timestamp(text))
    except (OverflowError, ValueError) as error:
        raise InvalidValue(what, f"{error}; write a time such as 2026-11-22T18:00:00Z") from None


def checked_attributes(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return a run's attributes. Raise InvalidValue if they are not few short texts."""
    if len(attributes) > ATTRIBUTES_MAX:
        raise InvalidValue("attributes", f"a run has at most {ATTRIBUTES_MAX}, not {len(attributes)}")
    for name, value in attributes.items():
        for what, text in (("name", name), ("value", value)):
            if not isinstance(text, str):
                raise InvalidValue("attributes", f"the {what} {text!r} is not text")
            if not 1 <= len(text) <= ATTRIBUTE_CHARACTERS_MAX or not text.isprintable():
                shown = f"{text[:64]!r} must have 1 to {ATTRIBUTE_CHARACTERS_MAX} printable characters"
                raise InvalidValue("attributes", f"the {what} {shown}; put longer texts into the context")
    return dict(attributes)
