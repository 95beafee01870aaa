"""How much room the store has left: checked periodically, and noted when the level changes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio

from ..errors import StoreError
from ..model.repository import MessageLog
from ..model.room import RoomLevel, RoomRule

__all__ = ["RoomWatch"]

_LOOK_SECONDS = 5.0
"""A busy worker writes some hundred megabytes meanwhile."""


class RoomWatch:
    """See the module. `note` is called with an event and its fields."""

    def __init__(self, log: MessageLog, rule: RoomRule, note: Callable[..., None]) -> None:
        self.level = RoomLevel.ENOUGH
        """The level at the last check."""
        self.wal_bytes = 0
        """The size of the write-ahead log at the last check, if the store has one of its own."""
        self._log = log
        self._rule = rule
        self._note = note

    def __repr__(self) -> str:
        return f"<RoomWatch {self.level}>"

    async def run(self) -> None:
        """Check until cancelled, or only once if there is nothing to compare with a bound."""
        while True:
            if not await self.look():
                return
            await anyio.sleep(_LOOK_SECONDS)

    async def look(self) -> bool:
        """Check once. Return False if checking again is pointless."""
        with suppress(StoreError, OSError):  # its writer finds out what is wrong
            room = await self._log.room()
            before, self.level = self.level, self._rule.level(room, self.level)
            self.wal_bytes = room.wal_bytes
            if self.level is not before:
                event = "storage_filling" if self.level.rank > before.rank else "storage_drained"
                sizes = {"database_bytes": room.database_bytes, "free_bytes": room.free_bytes}
                self._note(event, storage=self.level, **sizes)
            return self._rule.can_tell(room) or room.wal_bytes > 0
        return True
