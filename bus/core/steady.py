"""The wall clock without its jumps, used for delays, ages of messages and the log's own time.

Owns by how much the wall clock was set since the worker started, compared to the monotonic clock. A restart begins
with the wall clock as it is then.

Pure: time is an argument.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..model.records import later, parse_timestamp, timestamp

__all__ = ["LogTime", "Steady"]

_JUMP = timedelta(seconds=0.1)
"""A larger jump between two readings means that the clock was set: slewing takes minutes for as much."""

_CATCH_UP_SECONDS = 86_400.0
"""How far the log's time may be ahead of the clock and still advance at half speed to let it catch up."""


class Steady:
    """See the module."""

    def __init__(self) -> None:
        self._now = 0.0
        self._wall: datetime | None = None
        self._set_by = timedelta()

    def __repr__(self) -> str:
        return f"<Steady set_by={self._set_by}>"

    def at(self, now: float, wall_text: str) -> str:
        """Return the wall-clock time of a moment, as if the clock had not been set since the first one."""
        wall = parse_timestamp(wall_text)
        if self._wall is not None:
            jump = wall - self._wall - timedelta(seconds=now - self._now)
            if abs(jump) > _JUMP:
                self._set_by += jump
        self._now, self._wall = now, wall
        return timestamp(wall - self._set_by) if self._set_by else wall_text


class LogTime:
    """The time of new messages in the log: it never goes back, and never stands still for long.

    It is the wall-clock time unless that is behind the last timestamp. Then the log's time continues from that
    timestamp: at half speed until the clock has caught up, or at full speed if catching up would take days.
    """

    def __init__(self, last: str) -> None:
        self.last = last
        """The last timestamp of the log, or an empty string."""
        self._now: float | None = None
        """When `last` was the time, by the monotonic clock."""

    def __repr__(self) -> str:
        return f"<LogTime last={self.last}>"

    def at(self, now: float, wall: str) -> str:
        """Return the log's time at a moment."""
        if self._now is None:
            self._now = now
        if wall >= self.last:
            return wall
        passed = max(now - self._now, 0.0)
        return later(self.last, passed if self.ahead(wall) > _CATCH_UP_SECONDS else passed / 2)

    def ahead(self, wall: str) -> float:
        """Return by how many seconds the log's last timestamp is ahead of the clock, or 0."""
        if wall >= self.last:
            return 0.0
        return (parse_timestamp(self.last) - parse_timestamp(wall)).total_seconds()

    def stamped(self, at: str, now: float) -> None:
        """Note the timestamp of messages, and when it was taken."""
        self.last, self._now = at, now
