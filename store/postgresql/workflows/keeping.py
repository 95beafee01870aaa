"""Runs that have ended, as rows to be removed: retention, and deleting runs and workflows, in PostgreSQL.

Owns what belongs to a run and goes with it: the tables of it have no foreign keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from bus.errors import Conflict, DefinitionInUse
from bus.model.records import CONTINUED
from bus.model.repository import EndedRun, RemoveRuns, RunSurvey, Surveyed, SurveyedRuns

from ..server.reader import Reader

__all__ = ["delete_definition", "delete_run", "open_runs", "remove_runs", "survey_runs"]

# What a run that may go on has started: a retry would start it again. But what continued an earlier run of the same
# id is none of its children.
_FREE = f"""
    NOT EXISTS (SELECT 1 FROM workflow_runs AS parent
        WHERE parent.id = run.parent_run_id AND parent.status NOT IN ('completed', 'cancelled')
            AND (run.trigger_type <> '{CONTINUED}' OR parent.continued_as = run.id))"""

_DELETE = """
    WITH gone AS (DELETE FROM workflow_runs AS run WHERE {} RETURNING id),
        steps AS (DELETE FROM workflow_steps USING gone WHERE run_id = gone.id),
        signals AS (DELETE FROM workflow_signals USING gone WHERE run_id = gone.id),
        attributes AS (DELETE FROM workflow_run_attributes USING gone WHERE run_id = gone.id),
        commits AS (DELETE FROM workflow_commits USING gone WHERE run_id = gone.id)
    SELECT COUNT(*) FROM gone"""

_REMOVE = _DELETE.format(f"id = ANY($1::text[]) AND ended_at <= $2 AND {_FREE}")

_DELETE_ONE = _DELETE.format(f"id = $1 AND ended_at IS NOT NULL AND {_FREE}")

_DELETE_ALL = _DELETE.format("workflow_id = $1")

_OPEN = "SELECT id FROM workflow_runs WHERE id = ANY($1::text[]) AND ended_at IS NULL"

_FIRST_TO_GO = """
    SELECT ended_at, number FROM workflow_runs WHERE workflow_id = $1 AND ended_at IS NOT NULL
    ORDER BY ended_at DESC, number DESC LIMIT 1 OFFSET $2"""

_SURVEY = f"""
    SELECT id, ended_at, number, (SELECT COUNT(*) FROM workflow_steps WHERE run_id = run.id)
    FROM workflow_runs AS run
    WHERE workflow_id = $1 AND ended_at IS NOT NULL
        AND (ended_at, number) > ($2, $3) AND (ended_at, number) <= ($4, $5) AND {_FREE}
    ORDER BY ended_at, number LIMIT $6"""

# All messages with these ids, whoever sent them.
_MESSAGES = """
    SELECT id, seq, sender_bot_id, recipient_bot_id, recipient_channel, timestamp, 0, priority
    FROM bot_messages
    WHERE id = ANY($1::text[]) ORDER BY seq"""


async def survey_runs(reader: Reader, survey: RunSurvey) -> SurveyedRuns:
    """Return runs that retention may remove, with the messages of the same ids."""
    workflow_id = survey.workflow_id
    if workflow_id is None:
        [[workflow_id]] = await reader.fetch(
            "SELECT MIN(id) FROM workflows WHERE id > $1", survey.after_workflow_id
        )
        if workflow_id is None:
            return SurveyedRuns(None, [])
    last = (survey.before, -1)  # ended before it: no number is as small
    if survey.newest_max:
        for row in await reader.fetch(_FIRST_TO_GO, workflow_id, survey.newest_max):
            last = max(last, (row[0], row[1]))
    rows = await reader.fetch(_SURVEY, workflow_id, *survey.after, *last, survey.runs_max)
    messages: dict[str, list[Surveyed]] = {}
    for row in await reader.fetch(_MESSAGES, [row[0] for row in rows]) if rows else ():
        messages.setdefault(row[0], []).append(Surveyed(*row[1:]))
    runs = [EndedRun(row[0], (row[1], row[2]), row[3], tuple(messages.get(row[0], ()))) for row in rows]
    return SurveyedRuns(workflow_id, runs)


async def remove_runs(connection: asyncpg.Connection, change: RemoveRuns) -> int:
    """Remove runs that have ended, and have not been retried since; return how many those were."""
    [[removed]] = await connection.fetch(_REMOVE, list(change.run_ids), change.ended_until)
    return int(removed)


async def open_runs(connection: asyncpg.Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that are of runs that have not ended."""
    return {row[0] for row in await connection.fetch(_OPEN, ids)}


async def delete_run(connection: asyncpg.Connection, run_id: str) -> bool:
    """Delete a run that has ended; return False if it does not exist. Raise Conflict if it has not ended."""
    [[deleted]] = await connection.fetch(_DELETE_ONE, run_id)
    if deleted:
        return True
    rows = await connection.fetch("SELECT status, parent_run_id, ended_at FROM workflow_runs WHERE id = $1", run_id)
    for status, parent, ended_at in rows:
        if ended_at is not None:
            raise Conflict(f"run {run_id!r} was started by run {parent!r}, which may go on")
        raise Conflict(f"run {run_id!r} is {status}: only a run that has ended is deleted; cancel it first")
    return False


async def delete_definition(connection: asyncpg.Connection, definition_id: str, *, cascade: bool) -> bool:
    """Delete a definition, with its runs and schedules if `cascade` is set; return False if it does not exist."""
    if cascade:
        await connection.fetch(_DELETE_ALL, definition_id)
    else:
        [[runs, schedules]] = await connection.fetch(
            "SELECT (SELECT COUNT(*) FROM workflow_runs WHERE workflow_id = $1),"
            " (SELECT COUNT(*) FROM workflow_schedules WHERE workflow_id = $1)",
            definition_id,
        )
        if runs:
            raise DefinitionInUse(definition_id, runs)
        if schedules:
            raise Conflict(
                f"workflow {definition_id!r} has {schedules} schedules: delete them first, or use cascade"
            )
    return bool(await connection.fetch("DELETE FROM workflows WHERE id = $1 RETURNING id", definition_id))
