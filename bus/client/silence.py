"""When a worker that says nothing is taken for gone.

Owns two rules. The client leaves a worker that is silent for `session_timeout`, as the worker ends such a session.
If another address may be the right one, it leaves earlier: when a ping was not answered for a part of that time, as
the worker may be frozen or cut off, and another one lead. That counts from the ping, not from what was heard last:
a program that keeps the loop busy asks nothing meanwhile.

Pure.
"""

from __future__ import annotations

import math

__all__ = ["WorkerSilence"]

_UNANSWERED_FRACTION = 0.4
"""With a timeout of 15 s a leader that is frozen is left within 10 s, when by default its lease is over, too."""


class WorkerSilence:
    """That of one session's worker. Times are seconds of a monotonic clock."""

    def __init__(self, now: float) -> None:
        self.heard_at = now
        self._asked_at = math.inf
        """When the first ping was sent after that."""

    def __repr__(self) -> str:
        return f"<WorkerSilence since {self.heard_at}>"

    def heard(self, now: float) -> None:
        """Note that something came."""
        self.heard_at, self._asked_at = now, math.inf

    def asked(self, now: float) -> None:
        """Note that a ping was sent."""
        self._asked_at = min(self._asked_at, now)

    def over_at(self, session_timeout: float, *, several: bool) -> float:
        """Return when the worker is taken for gone if nothing comes; `several` addresses may be the right one."""
        over_at = self.heard_at + session_timeout
        return min(over_at, self._asked_at + _UNANSWERED_FRACTION * session_timeout) if several else over_at
