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

    def tick(self, now: float, *, full: bool) -> tuple[bool, bool]:
        """Let time advance. Return whether the worker was deaf until now, and whether it has to read first.

        It was deaf if it stood still, or if a slow disk kept it from reading: then no client was silent, and what
        waits in the socket is read before any deadline expires.
        """
        deaf, late = self._was_deaf(now, full=full), self._is_late(now, full=full)
        self.ticked(now)
        return deaf, late

    def _was_deaf(self, now: float, *, full: bool) -> bool:
        still = now - self.ticked_at > self._heartbeat_seconds
        return still or (full and now - self._heard_at > self._heartbeat_seconds)

    def _is_late(self, now: float, *, full: bool) -> bool:
        self._was_late = now - self.ticked_at > _LATE_SECONDS and not self._was_late  # never twice in a row
        return self._heard_at <= self.ticked_at and (full or self._was_late)
