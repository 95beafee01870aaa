"""Retention of runs: which runs that have ended are removed, by age and number.

Owns the progress through the workflows. The runs of each are looked at in small portions, in the order in which
they ended. At most one portion is read or removed at a time, in the same batches as all other changes. Its rules:

- Only runs that have ended are removed, each with all that belongs to it.
- A run stays while a message with its id is not settled everywhere, or is a dead letter: that message began the
  run, and if it were delivered again, it would begin another one with the same id.

Pure.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from ..model.records import later
from ..model.repository import EndedRun, RemoveRuns, RunSurvey, SurveyedRuns
from ..settings import RetentionSettings, Workflows
from ..wire.frames import Code
from .batches import Batches, Job
from .directory import Directory
from .effects import Survey, Turn
from .needing import holders, wanting

__all__ = ["RunRetention"]

_RUNS_AT_ONCE = 100
"""Runs looked at, and removed, at once: some milliseconds of the writer's time."""

_STEPS_AT_ONCE = 2000
"""Step logs that are removed at once with their runs; those of one run in any case."""

_FIRST = ("", -1)


class RunRetention:
    """See the module. `tick` begins a sweep when it is due, and `surveyed` continues it."""

    def __init__(
        self,
        settings: Workflows,
        retention: RetentionSettings,
        *,
        directory: Directory,
        batches: Batches,
        turn: Turn,
    ) -> None:
        self._age_seconds = settings.ended_age_seconds
        self._newest_max = settings.ended_runs_max
        self._sweep_seconds = retention.sweep_seconds
        self._directory = directory
        self._batches = batches
        self._turn = turn
        self._sweep: _Sweep | None = None
        self._due = 0.0
        self._removed = 0

    def __repr__(self) -> str:
        return f"<RunRetention {'idle' if self._sweep is None else 'sweeping'}>"

    def tick(self) -> None:
        """Begin a sweep when it is due."""
        if not (self._age_seconds or self._newest_max) or self._sweep is not None:
            return
        if self._turn.moment.now >= self._due:
            self._sweep = self._walk()
            self._go_on(None)

    def surveyed(self, found: SurveyedRuns) -> None:
        """Continue with the runs that were asked for."""
        self._go_on(found)

    def removed(self, count: int) -> None:
        """Note that runs are removed, and continue."""
        self._removed += count
        self._go_on(SurveyedRuns(None, []))

    def retained(self) -> None:
        """Note that nothing was removed, and end the sweep."""
        self._end()

    def _go_on(self, found: SurveyedRuns | None) -> None:
        assert self._sweep is not None
        try:
            step = self._sweep.send(found) if found is not None else next(self._sweep)
        except StopIteration:
            self._end()
            return
        if isinstance(step, RunSurvey):
            self._turn.add(Survey(step))
        else:
            self._batches.add(_RemoveRunsJob(self, step))

    def _end(self) -> None:
        if self._removed:
            self._turn.note("runs_removed", runs=self._removed)
        self._sweep, self._removed = None, 0
        self._due = self._turn.moment.now + self._sweep_seconds

    def _walk(self) -> _Sweep:
        """Go through the runs of every workflow: ask for portions, receive them, and yield the removals."""
        before = later(self._turn.steady(), -self._age_seconds) if self._age_seconds else ""
        workflow_id: str | None = None
        after_workflow_id, after = "", _FIRST
        while True:
            survey = RunSurvey(workflow_id, after_workflow_id, after, before, self._newest_max, _RUNS_AT_ONCE)
            found = yield survey
            if found.workflow_id is None:
                return
            yield from _portions(self._removable(found.runs))
            if len(found.runs) < _RUNS_AT_ONCE:
                workflow_id, after_workflow_id, after = None, found.workflow_id, _FIRST
            else:
                workflow_id, after = found.workflow_id, found.runs[-1].place

    def _removable(self, runs: Sequence[EndedRun]) -> list[EndedRun]:
        """Return the runs whose messages nobody needs any more."""
        held = holders(self._directory, frozenset(row.seq for run in runs for row in run.messages))
        return [
            run
            for run in runs
            if not any(
                row.seq in held
                or any(
                    mailbox.leaving.needs(row.seq, row.sender_bot_id, row.source)
                    for mailbox in wanting(self._directory, row)
                )
                for row in run.messages
            )
        ]


def _portions(runs: Sequence[EndedRun]) -> _Sweep:
    """Yield the removals of some runs: each takes some milliseconds of the writer's time."""
    portion: list[EndedRun] = []
    for run in runs:
        if portion and sum(each.steps for each in portion) + run.steps > _STEPS_AT_ONCE:
            yield _removal(portion)
            portion = []
        portion.append(run)
    if portion:
        yield _removal(portion)


def _removal(runs: Sequence[EndedRun]) -> RemoveRuns:
    return RemoveRuns(tuple(run.id for run in runs), runs[-1].place[0])


class _RemoveRunsJob(Job[int]):
    """A removal of runs."""

    def __init__(self, retention: RunRetention, change: RemoveRuns) -> None:
        super().__init__(changes=[change])
        self._retention = retention

    def done(self, answers: Sequence[int], at: str) -> None:
        """Continue."""
        self._retention.removed(answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Leave it to the next sweep."""
        self._retention.retained()


_Sweep = Generator[RunSurvey | RemoveRuns, SurveyedRuns, None]
