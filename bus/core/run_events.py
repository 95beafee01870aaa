"""Events of runs: whether anybody is told of them.

Owns who makes them be written: a setting, a subscription to their channel, or a listener at the tap. Otherwise
nothing is written, and nothing looked up. The store writes an event in the transaction of what it tells of, beside
the log, as a message that is due at once; `scheduling` moves it into the log.

Pure.
"""

from __future__ import annotations

from ..model.records import RUNS_CHANNEL
from ..settings import Settings
from .directory import Directory
from .scheduling import Scheduling
from .tapping import Tapping

__all__ = ["RunEvents"]


class RunEvents:
    """See the module."""

    def __init__(self, settings: Settings, directory: Directory, tapping: Tapping, scheduling: Scheduling) -> None:
        self._always = settings.workflows.events
        self._directory = directory
        self._tapping = tapping
        self._scheduling = scheduling

    def __repr__(self) -> str:
        return f"<RunEvents {'wanted' if self.wanted() else 'not wanted'}>"

    def wanted(self) -> bool:
        """Return True if events are to be written."""
        if self._always or self._tapping.has_listener(RUNS_CHANNEL):
            return True
        entry = self._directory.channels.get(RUNS_CHANNEL)
        return entry is not None and bool(entry.mailboxes)

    def came(self) -> None:
        """Note that an event was written: it enters the log with the next tick."""
        self._scheduling.expect_events()
