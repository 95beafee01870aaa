"""Statements that are the same in every backend.

Owns how they are written: in SQL that all backends know, with the parameters `?1`, `?2` and so on. `IN [?1]` takes
a list, and booleans are compared with TRUE or FALSE, so that their indexes are found. They are for what happens
rarely; what happens with every message has statements of its own in each backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Statements"]


class Statements(Protocol):
    """Runs statements on a connection: in its transaction, if it has one."""

    async def __call__(self, sql: str, *values: Any) -> Sequence[Sequence[Any]]:
        """Run a statement, and return its rows."""

    async def each(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of values, in one turn. Only for a connection that writes."""
