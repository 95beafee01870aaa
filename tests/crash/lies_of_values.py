"""Workers that are broken on purpose in their keyed store: `counters` has to find it.

Owns the lies, as `lies_of_mailboxes` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from bus.model.keyed import KeyedWrite, ValueState
from bus.model.keyed_unit import KeyedRow, KeyedUnit

from .lies_of_mailboxes import replace

__all__ = ["LIES_OF_VALUES", "TELLERS_OF_VALUES"]


def _expected_revision_ignored() -> None:
    def make(honest: Any) -> Any:
        def write(unit: KeyedUnit, asked: KeyedWrite) -> int:
            return int(honest(unit, msgspec.structs.replace(asked, expected=None)))

        return write

    replace(KeyedUnit, "write", make)


def _expired_values_return() -> None:
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        def is_live(row: KeyedRow, now: str) -> bool:
            return bool(honest(row, now)) or (ValueState(row.state).has_value and next(turn) % 4 == 0)

        return is_live

    replace(KeyedRow, "is_live", make)
    replace(KeyedUnit, "expire", lambda _: lambda unit, row: None)


TELLERS_OF_VALUES: dict[str, Callable[[], None]] = {
    "expected_revision_ignored": _expected_revision_ignored,
    "expired_values_return": _expired_values_return,
}

LIES_OF_VALUES = tuple(TELLERS_OF_VALUES)
