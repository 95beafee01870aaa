"""Answers that have as many rows as fit into a frame.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from ..wire.codec import encode
from ..wire.limits import FRAME_ROOM_BYTES

__all__ = ["AnswerPage"]

R = TypeVar("R")


class AnswerPage(Generic[R]):
    """The rows of an answer, as many as fit into a frame, and at most `limit`; at least one."""

    def __init__(self, kind: type[R], frame_bytes_max: int, limit: int | None = None) -> None:
        self.rows: list[R] = []
        self.more = False
        """Whether there was a row that did not fit."""
        self._room_bytes = frame_bytes_max - FRAME_ROOM_BYTES
        self._limit = limit

    def add(self, rows: Iterable[R]) -> bool:
        """Add rows; return False if one did not fit."""
        for row in rows:
            self._room_bytes -= len(encode(row)) + 1
            self.more = len(self.rows) == self._limit or (bool(self.rows) and self._room_bytes < 0)
            if self.more:
                return False
            self.rows.append(row)
        return True
