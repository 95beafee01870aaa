"""Checks of what callers pass before it is stored: JSON values, records, row limits.

Owns the size limits of workflow records and the conversion of values to JSON text. What is stored is what will be
read back: a value that JSON would silently lose is refused (`exact`).

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from ..errors import InvalidValue, TooLarge
from .exact import Encode, Exact, exact, exact_json
from .zeros import ESCAPED_ZERO, zero_in

__all__ = [
    "CONTEXT_BYTES_MAX",
    "EMITTED_BYTES_MAX",
    "OUTPUT_BYTES_MAX",
    "SIGNAL_BYTES_MAX",
    "STEP_VALUE_BYTES_MAX",
    "check_id",
    "check_texts",
    "exact_value",
    "finite_seconds",
    "json_bytes",
    "json_text",
    "json_value",
    "normal_record",
    "row_limit",
    "row_range",
    "same_json",
    "same_values",
    "status_value",
]

STEP_VALUE_BYTES_MAX = 1024 * 1024
"""A step's input, or what it asks: it is compared and shown; larger data belongs in a file (docs/design.md)."""

OUTPUT_BYTES_MAX = 16 * 1024 * 1024
"""A step's output, unless the store's rules say otherwise: pages and answers of models are of that size."""

SIGNAL_BYTES_MAX = 256 * 1024
"""A signal's payload, which waits beside others until a run takes it: as much as a message's body."""

EMITTED_BYTES_MAX = 16 * 1024
"""A value that a run's program emits: it tells people how far it is, and is kept in the log."""

CONTEXT_BYTES_MAX = 10 * 1024 * 1024
"""A run's context, which every step may add to."""

_T = TypeVar("_T")
_Record = TypeVar("_Record", bound=msgspec.Struct)
_Status = TypeVar("_Status", bound=StrEnum)


def json_bytes(value: Any, what: str, *, bytes_max: int | None = None, encode: Encode | None = None) -> bytes:
    """Return a value as JSON, with a hook for types that JSON does not know.

    Raise InvalidValue if JSON cannot hold it, TooLarge above the limit.
    """
    encoded = _exactly(exact_json, value, what, encode)
    if bytes_max is not None and len(encoded) > bytes_max:
        raise TooLarge(what, len(encoded), bytes_max)
    return encoded


def json_text(value: Any, what: str, *, bytes_max: int | None = None) -> str:
    """Return a value as JSON text; raise as `json_bytes` does."""
    return json_bytes(value, what, bytes_max=bytes_max).decode()


def exact_value(value: Any, what: str, *, bytes_max: int | None = None, encode: Encode | None = None) -> Exact:
    """Return a value as JSON and as it will be read back; raise as `json_bytes` does."""
    found = _exactly(exact, value, what, encode)
    if bytes_max is not None and len(found.json) > bytes_max:
        raise TooLarge(what, len(found.json), bytes_max)
    return found


def json_value(value: Any, what: str) -> Any:
    """Return a value as it will be read back: tuples as lists, times as text. Raise InvalidValue as above."""
    return exact_value(value, what).value


def normal_record(record: _Record, what: str) -> _Record:
    """Return a record as it will be read back.

    Raise InvalidValue also if a field is not of its type, or has a zero character where that must not be.
    """
    encoded = _exactly(exact_json, record, what, None)
    try:
        normal: _Record = msgspec.json.decode(encoded, type=type(record))
    except msgspec.MsgspecError as error:
        raise InvalidValue(what, str(error)) from error
    if ESCAPED_ZERO in encoded and (where := zero_in(normal)) is not None:
        raise InvalidValue(what, f"{where} must not contain a zero character")
    return normal


def finite_seconds(seconds: float | None, what: str) -> float | None:
    """Return a time, or None. Raise InvalidValue for one that JSON would write as null, which means none at all."""
    if seconds is not None and not math.isfinite(seconds):
        raise InvalidValue(what, f"must be a number of seconds, not {seconds!r}")
    return seconds


def check_id(id: str, what: str) -> None:
    """Raise InvalidValue for an empty id, or one with a zero character, at which SQLite ends a text in a list."""
    if not id:
        raise InvalidValue(what, "must not be empty")
    check_texts((id,), what)


def check_texts(texts: Iterable[Any], what: str) -> None:
    """Raise InvalidValue if one of the values is a text with a zero character."""
    for text in texts:
        if isinstance(text, str) and "\0" in text:
            raise InvalidValue(what, f"must not contain a zero character, as {text[:64]!r} does")


def same_json(one: Any, other: Any) -> bool:
    """Return True if two values are the same JSON, in any order of keys."""
    return msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(other, order="deterministic")


def same_values(one: msgspec.Struct, other: msgspec.Struct) -> bool:
    """Return True if two records are the same JSON, in any order of keys; 1, 1.0 and true are three values."""
    return msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(other, order="deterministic")


def status_value(status: _Status, kind: type[_Status]) -> _Status:
    """Return a status as its enum. Raise InvalidValue for an unknown status."""
    try:
        return kind(status)
    except ValueError:
        raise InvalidValue("status", f"{status!r} is not one of {', '.join(kind)}") from None


def row_limit(limit: int) -> int:
    """Return the limit. Raise InvalidValue below 0, which SQLite would treat as no limit."""
    if limit < 0:
        raise InvalidValue("limit", f"must be 0 or more, not {limit}")
    return limit


def row_range(limit: int | None, offset: int) -> tuple[int, int]:
    """Return a limit and offset for SQL; None means no limit. Raise InvalidValue outside 0 to 2**63 - 1."""
    for what, number in (("limit", limit or 0), ("offset", offset)):
        if not 0 <= number < 2**63:
            raise InvalidValue(what, f"must be 0 or more, not {number}")
    return -1 if limit is None else limit, offset


def _exactly(write: Callable[[Any, Encode | None], _T], value: Any, what: str, encode: Encode | None) -> _T:
    try:
        return write(value, encode)
    except (TypeError, ValueError, RecursionError) as error:  # msgspec's and Unicode errors are ValueErrors
        raise InvalidValue(what, str(error)) from error
