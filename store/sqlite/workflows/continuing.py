"""Runs that continue as new ones, in SQLite.

Owns the SQL of it. A run knows its successor, which is created in the transaction that completes the run. Every
function that writes is part of its caller's transaction.
"""

from __future__ import annotations

import aiosqlite

from bus.errors import Conflict
from bus.model.records import CONTINUED, WorkflowRun

from ..file.reader import Reader
from .run_rows import RECORD_COLUMNS, run_record

__all__ = ["continue_run", "find_latest", "refuse_taken"]

_HOPS_MAX = 1000
"""How far a chain of runs is followed at once: some milliseconds."""

_TAKEN = """
    SELECT 1 FROM workflow_runs
    WHERE id = ?2 AND NOT EXISTS (SELECT 1 FROM workflow_runs WHERE id = ?1 AND continued_as = ?2)"""

_CONTINUE = "UPDATE workflow_runs SET continued_as = ?2 WHERE id = ?1"

_INHERIT = """
    UPDATE workflow_runs SET created_by_bot_id = COALESCE(
        (SELECT created_by_bot_id FROM workflow_runs WHERE id = ?1), created_by_bot_id)
    WHERE id = ?2"""

# A run that was created later with the id of one that was deleted is no successor.
_LATEST = f"""
    WITH RECURSIVE chain (hop, id, next) AS (
        SELECT 0, id, CASE status WHEN 'completed' THEN continued_as END FROM workflow_runs WHERE id = ?1
        UNION ALL
        SELECT hop + 1, run.id, CASE run.status WHEN 'completed' THEN run.continued_as END
        FROM chain JOIN workflow_runs AS run ON run.id = chain.next
        WHERE run.parent_run_id = chain.id AND run.trigger_type = '{CONTINUED}' AND hop < {_HOPS_MAX})
    SELECT {RECORD_COLUMNS} FROM workflow_runs WHERE id = (SELECT id FROM chain ORDER BY hop DESC LIMIT 1)"""


async def refuse_taken(connection: aiosqlite.Connection, run_id: str, successor_id: str) -> None:
    """Raise Conflict if the id of a run's successor is that of another run."""
    for _ in await connection.execute_fetchall(_TAKEN, (run_id, successor_id)):
        raise Conflict(
            f"run {run_id!r} cannot continue as {successor_id!r}, which is another run: delete that one, and retry"
            " this one"
        )


async def continue_run(connection: aiosqlite.Connection, run_id: str, successor_id: str) -> None:
    """Continue a run as another one, which belongs to the bot that created the first one."""
    await connection.execute(_CONTINUE, (run_id, successor_id))
    await connection.execute(_INHERIT, (run_id, successor_id))


async def find_latest(reader: Reader, run_id: str) -> WorkflowRun | None:
    """Return the last run as which a run continued, after at most 1,000 hops; None if the run does not exist."""
    rows = await reader.execute_fetchall(_LATEST, (run_id,))
    return next((run_record(row) for row in rows), None)
