"""Runs that have ended, as rows to be removed.

Owns the SQL of retention and of deleting runs. Step logs, commits and attributes go with their run, because their
tables refer to it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import aiosqlite

from bus.errors import Conflict
from bus.model.records import CONTINUED
from bus.model.repository import EndedRun, RemoveRuns, RunSurvey, Surveyed, SurveyedRuns
from bus.model.values import json_text

from ..file.reader import Reader

__all__ = ["SURVEY", "delete_run", "open_runs", "remove_runs", "survey_runs"]

_ENDED = "status IN ('completed', 'failed', 'cancelled')"

# The expression is the one of idx_workflow_runs_ended.
_ENDED_AT = "COALESCE(completed_at, started_at)"

# What a run that may go on has started: a retry would start it again. But what continued an earlier run of the same
# id is none of its children.
_FREE = f"""
    NOT EXISTS (SELECT 1 FROM workflow_runs AS parent
        WHERE parent.id = run.parent_run_id AND parent.status NOT IN ('completed', 'cancelled')
            AND (run.trigger_type <> '{CONTINUED}' OR parent.continued_as = run.id))"""

_FIRST_TO_GO = f"""
    SELECT {_ENDED_AT}, rowid FROM workflow_runs WHERE workflow_id = ? AND {_ENDED}
    ORDER BY {_ENDED_AT} DESC, rowid DESC LIMIT 1 OFFSET ?"""

SURVEY = f"""
    SELECT id, {_ENDED_AT}, rowid, (SELECT COUNT(*) FROM workflow_steps WHERE run_id = run.id)
    FROM workflow_runs AS run
    WHERE workflow_id = ?1 AND {_ENDED} AND {_ENDED_AT} BETWEEN ?2 AND ?4
        AND ({_ENDED_AT}, rowid) > (?2, ?3) AND ({_ENDED_AT}, rowid) <= (?4, ?5)
        AND {_FREE}
    ORDER BY {_ENDED_AT}, rowid LIMIT ?6"""

# The log's first messages with these ids, and those of other senders.
_MESSAGES = """
    SELECT id, seq, sender_bot_id, recipient_bot_id, recipient_channel, timestamp, 0, priority
    FROM bot_messages
    WHERE id IN (SELECT value FROM json_each(?1)) AND copied = {copied}"""

_MESSAGES_OF_RUNS = f"{_MESSAGES.format(copied=0)} UNION ALL {_MESSAGES.format(copied=1)}"

_REMOVE = f"""
    DELETE FROM workflow_runs AS run
    WHERE id IN (SELECT value FROM json_each(?1)) AND {_ENDED} AND {_ENDED_AT} <= ?2 AND {_FREE}"""

_OPEN = f"SELECT id FROM workflow_runs WHERE id IN (SELECT value FROM json_each(?)) AND {_ENDED} IS NOT TRUE"

_DELETE = f"DELETE FROM workflow_runs AS run WHERE id = ? AND {_ENDED} AND {_FREE}"


async def survey_runs(reader: Reader, survey: RunSurvey) -> SurveyedRuns:
    """Return runs that retention may remove, with the messages of the same ids."""
    workflow_id = survey.workflow_id
    if workflow_id is None:
        [[workflow_id]] = await reader.execute_fetchall(
            "SELECT MIN(id) FROM workflows WHERE id > ?", (survey.after_workflow_id,)
        )
        if workflow_id is None:
            return SurveyedRuns(None, [])
    last = (survey.before, -1)  # ended before it: no rowid is as small
    if survey.newest_max:
        for row in await reader.execute_fetchall(_FIRST_TO_GO, (workflow_id, survey.newest_max)):
            last = max(last, (row[0], row[1]))
    rows = await reader.execute_fetchall(SURVEY, (workflow_id, *survey.after, *last, survey.runs_max))
    messages: dict[str, list[Surveyed]] = {}
    ids = json_text([row[0] for row in rows], "run ids")
    for row in await reader.execute_fetchall(_MESSAGES_OF_RUNS, (ids,)) if rows else ():
        messages.setdefault(row[0], []).append(Surveyed(*row[1:]))
    runs = [EndedRun(row[0], (row[1], row[2]), row[3], tuple(messages.get(row[0], ()))) for row in rows]
    return SurveyedRuns(workflow_id, runs)


async def remove_runs(connection: aiosqlite.Connection, change: RemoveRuns) -> int:
    """Remove runs that have ended, and have not been retried since; return how many those were."""
    cursor = await connection.execute(_REMOVE, (json_text(list(change.run_ids), "run ids"), change.ended_until))
    return cursor.rowcount


async def open_runs(connection: aiosqlite.Connection, ids: Iterable[str]) -> set[str]:
    """Return those of the ids that are of runs that have not ended."""
    return {row[0] for row in await connection.execute_fetchall(_OPEN, (json_text(list(ids), "run ids"),))}


async def delete_run(connection: aiosqlite.Connection, run_id: str) -> bool:
    """Delete a run that has ended; return False if it does not exist. Raise Conflict if it has not ended."""
    cursor = await connection.execute(_DELETE, (run_id,))
    if cursor.rowcount:
        return True
    rows: Iterable[sqlite3.Row] = await connection.execute_fetchall(
        "SELECT status, parent_run_id FROM workflow_runs WHERE id = ?", (run_id,)
    )
    for status, parent in rows:
        if status in ("completed", "failed", "cancelled"):
            raise Conflict(f"run {run_id!r} was started by run {parent!r}, which may go on")
        raise Conflict(f"run {run_id!r} is {status}: only a run that has ended is deleted; cancel it first")
    return False
