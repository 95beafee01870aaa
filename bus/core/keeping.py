"""What leaves the store for good: messages and runs by the limits of the configuration, and keyed values.

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
from .keyed_sweeping import KeyedSweeping
from .retention import Retention
from .run_retention import RunRetention
from .waking import Waking

__all__ = ["Keeping"]


class Keeping:
    """See the module. Each of the three has a sweep of its own."""

    def __init__(
        self,
        settings: Settings,
        waking: Waking,
        batches: Batches,
        *,
        directory: Directory,
        dispatch: Dispatch,
        turn: Turn,
    ) -> None:
        self.keyed = KeyedSweeping(batches, waking.keyed, turn)
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
        self.keyed.tick()

    def surveyed(self, found: Sequence[Surveyed] | SurveyedRuns) -> None:
        """Continue with what was asked for."""
        if isinstance(found, SurveyedRuns):
            self._runs.surveyed(found)
        else:
            self._messages.surveyed(found)
