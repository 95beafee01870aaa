"""What the worker itself does to runs in PostgreSQL: it ends lost holds, and finds what is due.

Owns the SQL of both. Every function needs a unit that was settled, and refuses nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import asyncpg

from bus.errors import RecordDamaged
from bus.model.leases import expire_cancel
from bus.model.records import RecoveredRun, parse_timestamp

from .rows import SUMMARY, error_text, summary_record
from .runs import Runs
from .unit import Unit

__all__ = ["expire_cancels", "find_due", "recover", "seconds_to_next_cancel"]

_LOST = f"""{SUMMARY}
    WHERE status = 'running' AND lease_expires_at <= $1 ORDER BY started_at, number LIMIT $2 OFFSET $3"""

_COUNTED = """
    SELECT COUNT(*) FROM workflow_steps AS step
    WHERE step.run_id = run.id AND step.status IN ('completed', 'skipped')"""

_INTERRUPT = """
    UPDATE workflow_steps SET status = 'failed', error = $2, completed_at = COALESCE(completed_at, $1)
    WHERE status = 'running' AND run_id = ANY($3::text[])"""

_CRASH = f"""
    UPDATE workflow_runs AS run
    SET status = 'crashed', completed_at = COALESCE(completed_at, $1), error = $2,
        fence = fence + 1, holder_bot_id = NULL, lease_expires_at = NULL,
        recoveries = CASE WHEN counted.steps > progress THEN 1 ELSE recoveries + 1 END, progress = counted.steps,
        claim_id = NULL, queue_place = NULL, queued_at = NULL, queued_until = NULL
    FROM (SELECT id, ({_COUNTED}) AS steps FROM workflow_runs AS run WHERE id = ANY($3::text[])) AS counted
    WHERE run.id = counted.id"""

_RECOVERED = f"{SUMMARY} WHERE id = ANY($1::text[]) ORDER BY started_at, number"

_CRASHED = "interrupted: nobody holds this run"

_EXPIRED = """
    SELECT id FROM workflow_runs WHERE cancel_by IS NOT NULL AND cancel_by <= $1 ORDER BY cancel_by LIMIT $2"""

_NEXT_CANCEL = "SELECT MIN(cancel_by) FROM workflow_runs WHERE cancel_by IS NOT NULL AND cancel_by > $1"

# The condition is the one of workflow_runs_not_before.
_DUE = """
    SELECT id, not_before FROM workflow_runs
    WHERE not_before IS NOT NULL AND status = 'pending' AND not_before > $1 AND not_before <= $2
    ORDER BY not_before LIMIT $3"""

_NEXT_DUE = """
    SELECT MIN(not_before) FROM workflow_runs
    WHERE not_before IS NOT NULL AND status = 'pending' AND not_before > $1"""


async def recover(unit: Unit, runs: Runs, limit: int | None) -> list[RecoveredRun]:
    """End the holds of runs whose lease has expired, except damaged runs."""
    lost = await _find_lost(unit, limit)
    if not lost:
        return []
    ids = [row[0] for row in lost]
    await unit.connection.execute(_INTERRUPT, unit.now, error_text("interrupted"), ids)
    await unit.connection.execute(_CRASH, unit.now, error_text(_CRASHED), ids)
    holders = {row[0]: row[9] for row in lost}
    crashed = [summary_record(row) for row in await unit.connection.fetch(_RECOVERED, ids)]
    recovered = [RecoveredRun(run=run, holder=holders[run.id]) for run in crashed]
    runs.events.crashed(unit, recovered)
    return recovered


async def _find_lost(unit: Unit, limit: int | None) -> list[asyncpg.Record]:
    """Return the oldest runs whose lease has expired.

    A damaged run is left as it is, because its holder could not be notified. It does not hide the others.
    """
    lost: list[Any] = []
    seen = 0
    while limit is None or len(lost) < limit:
        rows = await unit.connection.fetch(_LOST, unit.now, limit, seen)
        for row in rows:
            with suppress(RecordDamaged):
                summary_record(row)
                lost.append(row)
        seen += len(rows)
        if limit is None or len(rows) < limit:
            break
    return lost[:limit]


async def expire_cancels(unit: Unit, runs: Runs, limit: int | None) -> list[str]:
    """Cancel the runs whose programs had their time to clean up, and return their ids."""
    ids: list[str] = []
    for (id,) in await unit.connection.fetch(_EXPIRED, unit.now, limit):
        with suppress(RecordDamaged):
            held = await unit.held(id)
            runs.write(unit, held, expire_cancel(held, unit.now))
            ids.append(id)
    return ids


async def seconds_to_next_cancel(unit: Unit) -> float | None:
    """Return when the time of the next program will be over, if one cleans up."""
    [[cancel_by]] = await unit.connection.fetch(_NEXT_CANCEL, unit.now)
    return None if cancel_by is None else _seconds(unit.now, cancel_by)


async def find_due(unit: Unit, after: str, limit: int) -> tuple[list[str], str, float | None]:
    """Return the pending runs whose time to start has come since a time, until when, and when the next will."""
    rows = await unit.connection.fetch(_DUE, after, unit.now, limit)
    until = rows[-1][1] if len(rows) == limit else unit.now
    [[next_at]] = await unit.connection.fetch(_NEXT_DUE, until)
    return [row[0] for row in rows], until, None if next_at is None else _seconds(unit.now, next_at)


def _seconds(now: str, at: str) -> float:
    return (parse_timestamp(at) - parse_timestamp(now)).total_seconds()
