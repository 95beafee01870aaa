"""Rows of the keyed store: their columns, their checksum, and conditions that every backend has.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bus.errors import RecordDamaged
from bus.model.keyed import StoredValue, ValueState
from bus.model.keyed_unit import KeyedRow
from bus.model.repository import FoundValue, SearchRequest
from bus.model.searching import value_contains

from .seals import is_sealed, seal

__all__ = [
    "BEFORE_NAMES",
    "CURRENT",
    "KEYED_COLUMNS",
    "KEYED_VALUES",
    "KEYS_COUNT",
    "VALUED",
    "altered_keys",
    "found_values",
    "keyed_values",
    "row_without_value",
    "sealed_row",
]

KEYED_COLUMNS = "revision, store, key, state, value, write_id, bot_id, digest, written_at, expires_at, checksum"

KEYED_VALUES = f"SELECT {KEYED_COLUMNS} FROM keyed_values"

CURRENT = "state IN ('json', 'bytes', 'deleted', 'expired')"
"""The condition of the index of keys."""

VALUED = f"{CURRENT} AND state IN ('json', 'bytes')"

BEFORE_NAMES = "/"
"""What is before all names of stores that clients can name, and after the others."""

KEYS_COUNT = f"SELECT COUNT(*) FROM keyed_values WHERE {VALUED}"


def sealed_row(row: KeyedRow) -> tuple[Any, ...]:
    """Return the columns of a row."""
    return (*row, seal(*row))


def row_without_value(columns: Sequence[Any]) -> KeyedRow:
    """Return a row that was read with its value left out."""
    revision, store, key, state, *rest = columns
    return KeyedRow(revision, store, key, state, None, *rest)


def keyed_values(rows: Iterable[Sequence[Any]], now: str | None = None) -> list[StoredValue]:
    """Return rows of KEYED_VALUES as they are read; `now`, values that have expired are so. Raise RecordDamaged."""
    found: list[StoredValue] = []
    for columns in rows:
        if not is_sealed(columns):
            raise RecordDamaged("keyed_values", f"{columns[2]!r} of {columns[1]!r}")
        row = KeyedRow(*columns[:-1])
        if now is not None and row.value is not None and not row.is_live(now):
            row = row.emptied(ValueState.EXPIRED)
        found.append(row.stored_value())
    return found


def found_values(request: SearchRequest, rows: Iterable[Sequence[Any]]) -> list[FoundValue]:
    """Return which rows of KEYED_VALUES have what is searched for; also damaged ones, which are to go as well."""
    found = [KeyedRow(*columns[:-1]) for columns in rows]
    return [
        FoundValue(row.store, row.key, row.revision)
        for row in found
        if value_contains(request, row.stored_value(), row.store)
    ]


def altered_keys(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return what a check says of rows of KEYED_VALUES that are not as they were stored."""
    return [
        f"key {row[2]!r} of {row[1]!r}: not as stored: the checksum differs" for row in rows if not is_sealed(row)
    ]
