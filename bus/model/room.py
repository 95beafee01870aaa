"""How much room a store has left, and when that is little: one rule for the worker and `posthouse doctor`.

Owns the bounds that nobody configures.

Pure.
"""

from __future__ import annotations

import enum

import msgspec

__all__ = ["Room", "RoomLevel", "RoomRule"]

_VERY_LOW_BYTES = 64 * 1024**2
"""The free room that erasing, compacting and a busy WAL need."""

_PART = 10
"""Room is also low if less than this part of the database's size is free, as a large database grows faster."""

_ENOUGH_AGAIN = 1.25
"""A level ends only when free room exceeds its bound, or the bound exceeds the database's size, by this factor.
Otherwise a size that varies around a bound would be reported again and again."""


class Room(msgspec.Struct, frozen=True):
    """How large a store is, and how much its disk has free; None if that is not known.

    `wal_bytes` is the size of a write-ahead log beside it.
    """

    database_bytes: int
    free_bytes: int | None = None
    wal_bytes: int = 0


class RoomLevel(enum.StrEnum):
    """How much room is left, the most first."""

    ENOUGH = "enough"
    LOW = "low"
    VERY_LOW = "very_low"

    @property
    def in_words(self) -> str:
        """For people."""
        return self.replace("_", " ")

    @property
    def rank(self) -> int:
        """How bad that is: 0 is good."""
        return list(RoomLevel).index(self)


class RoomRule(msgspec.Struct, frozen=True):
    """What is configured: how much should be free, and how large the database may become; 0 for no such bound."""

    free_bytes: int
    size_bytes: int

    def level(self, room: Room, before: RoomLevel = RoomLevel.ENOUGH) -> RoomLevel:
        """Return how much room is left; `before` is the level until now."""

        def factor(level: RoomLevel) -> float:
            return _ENOUGH_AGAIN if before.rank >= level.rank else 1.0

        bounds = {
            RoomLevel.VERY_LOW: min(self.free_bytes, _VERY_LOW_BYTES),
            RoomLevel.LOW: max(self.free_bytes, room.database_bytes // _PART),
        }
        if self.free_bytes and room.free_bytes is not None:
            for level, bound in bounds.items():
                if room.free_bytes < bound * factor(level):
                    return level
        if self.size_bytes and room.database_bytes * factor(RoomLevel.LOW) >= self.size_bytes:
            return RoomLevel.LOW
        return RoomLevel.ENOUGH

    def can_tell(self, room: Room) -> bool:
        """Return True if a bound is configured that the room can be compared with."""
        return bool(self.size_bytes or (self.free_bytes and room.free_bytes is not None))
