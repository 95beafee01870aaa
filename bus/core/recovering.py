"""Runs whose holder is gone: their holds are ended, soon after the start and then periodically.

Owns when. The store decides which runs those are, by its clock; their last holders are notified by a message that
enters the log in the same transaction. A run that never had a lease is left alone: it is executed by other means,
and a restart of the worker says nothing about its executor. The first sweep comes a little after the start, so that
holders that outlived a worker's long downtime can return first and renew their lease.

The same sweep cancels the runs whose programs had their time to clean up, and the children of cancelled runs that
are left, for instance by a crash. It finds the runs whose time to start has come, and starts those of schedules.
Those who wait for any of them are told.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..model.events import runs_crashed
from ..model.records import WORKER_ID, WORKER_NAME
from ..model.repository import Recovered, RecoverRuns, Started, StartScheduled, stored_lots
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
        self._patient_until: float | None = None
        """Before this time, no hold is ended."""
        self._due_after = ""
        """The time until which the runs that may start are known."""

    def __repr__(self) -> str:
        return f"<Recovering {'asked' if self._asked else 'idle'}>"

    def tick(self) -> None:
        """End the holds whose lease has expired, when a sweep is due."""
        now = self._turn.moment.now
        if self._due is None:
            self._due = now + self._settings.sweep_seconds
        if self._patient_until is None:
            self._patient_until = now + self._settings.sweep_seconds
        if self._asked or now < self._due:
            return
        self._asked = True
        holds_max = _RUNS_AT_ONCE if now >= self._patient_until else 0
        change = RecoverRuns(holds_max, WORKER_ID, WORKER_NAME, timestamp="", due_after=self._due_after)
        start = StartScheduled(_RUNS_AT_ONCE, WORKER_ID, WORKER_NAME, timestamp="")
        self._batches.add(_RecoverJob(self, change, start))

    def recovered(self, recovered: Recovered, started: Started) -> None:
        """Notify the last holders, and who waits for the runs; sweep again at once if there may be more."""
        self._dispatch.enter(*stored_lots([*recovered.messages, *started.messages]))
        if recovered.runs:
            crashed = runs_crashed(recovered.runs)
            self._turn.recent.keep(
                crashed, crashed.listed[0].run_id, at=self._turn.moment.wall, now=self._turn.moment.now
            )
        for lost in recovered.runs:
            self._waking.happened(lost.run.id)
        for run_id in recovered.due:
            self._waking.happened(run_id, stopped=False)
        for run_id in recovered.cancelled:
            self._waking.happened(run_id)
        for run_id in started.run_ids:
            self._waking.happened(run_id, stopped=False)
        self._due_after = recovered.due_until
        counts = (len(recovered.runs), len(recovered.due), len(recovered.cancelled))
        more = _RUNS_AT_ONCE in counts or recovered.more or started.more
        self._rest(0.0 if more else self._settings.sweep_seconds)
        for seconds in (recovered.next_seconds, started.next_seconds):
            if seconds is not None:
                self.expect(seconds)

    def hurry(self) -> None:
        """Sweep now, and end holds even soon after the start: for a clock that was moved, whose holders know it."""
        self._patient_until = self._turn.moment.now
        self.expect(0.0)

    def expect(self, seconds: float) -> None:
        """Sweep in so many seconds at the latest: a run may start then."""
        due = self._turn.moment.now + max(seconds, 0.0)
        self._due = due if self._due is None else min(self._due, due)

    def not_recovered(self) -> None:
        """Note that nothing was recovered: the next sweep tries again."""
        self._rest(self._settings.sweep_seconds)

    def _rest(self, seconds: float) -> None:
        self._asked = False
        self._due = self._turn.moment.now + seconds


class _RecoverJob(Job[Any]):
    """The end of holds whose lease has expired, and the start of runs that are due."""

    def __init__(self, recovering: Recovering, *changes: RecoverRuns | StartScheduled) -> None:
        super().__init__(changes=changes)
        self._recovering = recovering

    def done(self, answers: Sequence[Any], at: str) -> None:
        """Send the messages."""
        recovered, started = answers
        self._recovering.recovered(recovered, started)

    def failed(self, code: Code, message: str) -> None:
        """Leave it to the next sweep."""
        self._recovering.not_recovered()
