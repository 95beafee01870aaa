"""Ended runs in the log in memory: retention finds and removes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus.model.repository import EndedRun, RemoveRuns, RunSurvey, SurveyedRuns

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["remove_runs", "survey_runs"]


def remove_runs(log: FakeLog, change: RemoveRuns) -> int:
    old = [id for id in change.run_ids if id in log.runs and log.runs[id][1] <= change.ended_until]
    for id in old:
        del log.runs[id]
    return len(old)


def survey_runs(log: FakeLog, survey: RunSurvey) -> SurveyedRuns:
    workflows = sorted({workflow for workflow, _, _ in log.runs.values()})
    later = (each for each in workflows if each > survey.after_workflow_id)
    workflow_id = survey.workflow_id or next(later, None)
    if workflow_id is None:
        return SurveyedRuns(None, [])
    numbers = {id: number for number, id in enumerate(log.runs)}
    theirs = sorted(
        (ended_at, numbers[id], id, steps)
        for id, (workflow, ended_at, steps) in log.runs.items()
        if workflow == workflow_id
    )
    newest = theirs[-survey.newest_max :] if survey.newest_max else theirs
    found = [
        EndedRun(id, (ended_at, number), steps, log.of_id(id))
        for ended_at, number, id, steps in theirs
        if (ended_at, number) > survey.after
        and (ended_at < survey.before or (ended_at, number, id, steps) not in newest)
    ]
    return SurveyedRuns(workflow_id, found[: survey.runs_max])
