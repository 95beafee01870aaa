"""Whether the worker can hear its clients: no deadline may expire while what they sent waits in the socket.

Owns when it heard a frame, and when time last advanced. Pure: time is an argument.
"""

from __future__ import annotations

__all__ = ["Hearing"]

_LATE_SECONDS = 1.0
"""After a tick this late, frames may be waiting in the socket that must be read first."""


class Hearing:
    """See the module. `full` says whether the next batch is, so that the socket is not read."""

    def __init__(self, heartbeat_seconds: float) -> None:
        self._heartbeat_seconds = heartbeat_seconds
        self.ticked_at = 0.0
        """When time last advanced."""
        self._heard_at = 0.0
        self._was_late = False

    def __repr__(self) -> str:
        return f"<Hearing heard_at={self._heard_at} ticked_at={self.ticked_at}>"

    def heard(self, now: float) -> None:
        """Note that a frame was read."""
        self._heard_at = now

    def ticked(self, now: float) -> None:
        """Note that time advanced."""
        self.ticked_at = now

    def was_deaf(self, now: float, *, full: bool) -> bool:
        """Return True if the worker stood still, or a slow disk kept it from reading: then no client was silent.

        What waits in the socket is read before any deadline expires.
        """
        still = now - self.ticked_at > self._heartbeat_seconds
        return still or (full and now - self._heard_at > self._heartbeat_seconds)

    def is_late(self, now: float, *, full: bool) -> bool:
        """Return True if frames may be waiting that should be read before this tick."""
        self._was_late = now - self.ticked_at > _LATE_SECONDS and not self._was_late  # never twice in a row
        return self._heard_at <= self.ticked_at and (full or self._was_late)
