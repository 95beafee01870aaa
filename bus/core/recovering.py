"""Runs whose holder is gone: their holds are ended, soon after the start and then periodically.

Owns when. The store decides which runs those are, by its clock; their last holders are notified by a message that
enters the log in the same transaction. A run that never had a lease is left alone: it is executed by other means,
and a restart of the worker says nothing about its executor. The first sweep comes a little after the start, so that
holders that outlived a worker's long downtime can return first and renew their lease.

The same sweep cancels the runs whose programs had their time to clean up, and finds those whose time to start has
come. Who waits for them is told.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model.records import WORKER_ID, WORKER_NAME
from ..model.repository import Recovered, RecoverRuns, stored_lots
from ..settings import Workflows
from ..wire.frames import Code
from .batches import Batches, Job
from .dispatch import Dispatch
from .effects import Turn
from .waking import Waking

__all__ = ["Recovering"]

_RUNS_AT_ONCE = 100
"""Runs recovered in one transaction: some milliseconds of the writer's time."""


class Recovering:
    """See the module."""

    def __init__(
        self, settings: Workflows, batches: Batches, dispatch: Dispatch, waking: Waking, turn: Turn
    ) -> None:
        self._settings = settings
        self._batches = batches
        self._dispatch = dispatch
        self._waking = waking
        self._turn = turn
        self._asked = False
        self._due: float | None = None
        self._due_after = ""
        """The time until which the runs that may start are known."""

    def __repr__(self) -> str:
        return f"<Recovering {'asked' if self._asked else 'idle'}>"

    def tick(self) -> None:
        """End the holds whose lease has expired, when a sweep is due."""
        if self._due is None:
            self._rest(self._settings.sweep_seconds)
        if self._asked or (self._due is not None and self._turn.moment.now < self._due):
            return
        self._asked = True
        change = RecoverRuns(_RUNS_AT_ONCE, WORKER_ID, WORKER_NAME, timestamp="", due_after=self._due_after)
        self._batches.add(_RecoverJob(self, change))

    def recovered(self, recovered: Recovered) -> None:
        """Tell the last holders, and who waits for the runs, and sweep again at once if there may be more."""
        self._dispatch.enter(*stored_lots(recovered.messages))
        for lost in recovered.runs:
            self._waking.happened(lost.run.id)
        for run_id in recovered.due:
            self._waking.happened(run_id, stopped=False)
        for run_id in recovered.cancelled:
            self._waking.happened(run_id)
        self._due_after = recovered.due_until
        more = _RUNS_AT_ONCE in (len(recovered.runs), len(recovered.due), len(recovered.cancelled))
        self._rest(0.0 if more else self._settings.sweep_seconds)
        if recovered.next_seconds is not None:
            self.expect(recovered.next_seconds)

    def expect(self, seconds: float) -> None:
        """Sweep in so many seconds at the latest: a run may start then."""
        if self._due is not None:
            self._due = min(self._due, self._turn.moment.now + max(seconds, 0.0))

    def not_recovered(self) -> None:
        """Note that nothing was recovered: the next sweep tries again."""
        self._rest(self._settings.sweep_seconds)

    def _rest(self, seconds: float) -> None:
        self._asked = False
        self._due = self._turn.moment.now + seconds


class _RecoverJob(Job[Recovered]):
    """The end of holds whose lease has expired."""

    def __init__(self, recovering: Recovering, change: RecoverRuns) -> None:
        super().__init__(changes=[change])
        self._recovering = recovering

    def done(self, answers: Sequence[Recovered], at: str) -> None:
        """Send each last holder its message."""
        self._recovering.recovered(answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Leave it to the next sweep."""
        self._recovering.not_recovered()
