"""What leaves the store for good, by the limits of the configuration: messages, and runs that have ended.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.repository import Surveyed, SurveyedRuns
from ..settings import Settings
from .batches import Batches
from .directory import Directory
from .dispatch import Dispatch
from .effects import Turn
from .retention import Retention
from .run_retention import RunRetention

__all__ = ["Keeping"]


class Keeping:
    """See the module. Each of the two has a sweep of its own."""

    def __init__(
        self, settings: Settings, *, directory: Directory, batches: Batches, dispatch: Dispatch, turn: Turn
    ) -> None:
        self._messages = Retention(
            settings.retention, settings.events, directory=directory, batches=batches, dispatch=dispatch, turn=turn
        )
        self._runs = RunRetention(
            settings.workflows, settings.retention, directory=directory, batches=batches, turn=turn
        )

    def __repr__(self) -> str:
        return f"<Keeping {self._messages} {self._runs}>"

    def tick(self) -> None:
        """Begin the sweeps that are due."""
        self._messages.tick()
        self._runs.tick()

    def surveyed(self, found: Sequence[Surveyed] | SurveyedRuns) -> None:
        """Continue with what was asked for."""
        if isinstance(found, SurveyedRuns):
            self._runs.surveyed(found)
        else:
            self._messages.surveyed(found)
