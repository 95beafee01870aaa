"""Cancelling runs in SQLite: with a request that their programs may clean up, and with all their children.

A run may have many children. They are cancelled in portions, between which others write: the first one in the
transaction of the run itself. What is left is on disk, and goes on after a crash.

Owns the SQL of it. `bus.model.leases` decides whether a run is cancelled at once. Every function is part of its
caller's transaction.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import aiosqlite
import msgspec

from bus.errors import RecordDamaged
from bus.model.leases import HeldRun, cancel, expire_cancel
from bus.model.records import CONTINUED, RunStatus
from bus.model.transitions import RUN_TRANSITIONS

from ...portions import CANCELLED_RUNS

__all__ = [
    "CancelRequest",
    "RunRows",
    "cancel_children",
    "cancel_more",
    "cancel_run",
    "close_steps",
    "expire_cancels",
    "more_to_cancel",
    "next_cancel_by",
]

_CLOSE = """
    UPDATE workflow_steps SET status = 'failed', error = 'cancelled', completed_at = COALESCE(completed_at, ?1)
    WHERE run_id = ?2 AND status IN ('pending', 'running', 'waiting_approval')"""

# The children that are there now. A request with a shorter time takes the place of one before.
_REMEMBER = """
    INSERT OR REPLACE INTO workflow_cancellations (run_id, reason, cancel_by, after_id, last_id)
    SELECT ?1, ?2, ?3, NULL, id FROM workflow_runs WHERE parent_run_id = ?1 ORDER BY rowid DESC LIMIT 1"""

# The newest first: what somebody waits for.
_PENDING = """
    SELECT run_id, reason, cancel_by, after_id, last_id FROM workflow_cancellations ORDER BY rowid DESC LIMIT 1"""

_IS_SUCCESSOR_OF = f"next.trigger_type = '{CONTINUED}' AND next.parent_run_id ="

# A child that continued as a new run is completed, and has its successor as its child.
_CHILDREN = f"""
    WITH RECURSIVE child (place, id, status) AS (
        SELECT * FROM (
            SELECT id AS place, id, status FROM workflow_runs AS run
            WHERE parent_run_id = ?1 AND status NOT IN ('failed', 'cancelled')
                AND rowid > COALESCE((SELECT rowid FROM workflow_runs WHERE id = ?2), 0)
                AND rowid <= COALESCE((SELECT rowid FROM workflow_runs WHERE id = ?3), {2**63 - 1})
                AND (status <> 'completed' OR EXISTS (
                    SELECT 1 FROM workflow_runs AS next WHERE {_IS_SUCCESSOR_OF} run.id))
            ORDER BY rowid LIMIT ?4)
        UNION
        SELECT child.place, next.id, next.status
        FROM child JOIN workflow_runs AS next ON {_IS_SUCCESSOR_OF} child.id
        WHERE child.status = 'completed')
    SELECT place, id FROM child"""

_EXPIRED = """
    SELECT id FROM workflow_runs WHERE cancel_by IS NOT NULL AND cancel_by <= ? ORDER BY cancel_by LIMIT ?"""

_NEXT = "SELECT MIN(cancel_by) FROM workflow_runs WHERE cancel_by IS NOT NULL AND cancel_by > ?"


class RunRows(Protocol):
    """Reads and writes runs."""

    async def find(self, connection: aiosqlite.Connection, run_id: str) -> HeldRun:
        """Return a run and its hold."""

    async def write(self, connection: aiosqlite.Connection, held: HeldRun) -> None:
        """Write its status and hold."""


class CancelRequest(msgspec.Struct, frozen=True):
    """Why runs are cancelled, and until when their programs may clean up, by the clock of leases."""

    reason: str | None
    cancel_by: str
    now: str
    lease_now: str


async def cancel_run(
    runs: RunRows, connection: aiosqlite.Connection, run_id: str, request: CancelRequest
) -> HeldRun:
    """Cancel a run and its children, or ask their programs to clean up, and return the run."""
    held = await runs.find(connection, run_id)
    after = cancel(held, request.reason, request.cancel_by, now=request.now, lease_now=request.lease_now)
    if after is held:
        return held
    await runs.write(connection, after)
    if after.run.status is RunStatus.CANCELLED:
        await close_steps(connection, run_id, request.now)
    await cancel_children(runs, connection, run_id, request)
    return after


async def cancel_children(
    runs: RunRows, connection: aiosqlite.Connection, run_id: str, request: CancelRequest
) -> None:
    """Cancel the children of a run, and theirs: a portion now, the others by `cancel_more`, even after a crash."""
    why = f"run {run_id} was cancelled" + ("" if request.reason is None else f": {request.reason}")
    await connection.execute(_REMEMBER, (run_id, why, request.cancel_by))
    await cancel_more(runs, connection, now=request.now, lease_now=request.lease_now)


async def cancel_more(runs: RunRows, connection: aiosqlite.Connection, *, now: str, lease_now: str) -> list[str]:
    """Cancel a portion of the runs that are to be cancelled with others, and return the ids of those that were.

    One that is damaged is left as it is.
    """
    changed: list[str] = []
    room = CANCELLED_RUNS
    while room > 0:
        pending = list(await connection.execute_fetchall(_PENDING))
        if not pending:
            break
        run_id, why, cancel_by, after_id, last_id = pending[0]
        found = list(await connection.execute_fetchall(_CHILDREN, (run_id, after_id, last_id, room)))
        places = list(dict.fromkeys(row[0] for row in found))
        if len(places) < room:
            await connection.execute("DELETE FROM workflow_cancellations WHERE run_id = ?", (run_id,))
        else:
            await connection.execute(
                "UPDATE workflow_cancellations SET after_id = ? WHERE run_id = ?", (places[-1], run_id)
            )
        room -= max(1, len(places))
        for _, id in found:
            with suppress(RecordDamaged):
                held = await runs.find(connection, id)
                if not RUN_TRANSITIONS[held.run.status]:
                    continue
                after = cancel(held, why, cancel_by, now=now, lease_now=lease_now)
                if after is held:
                    continue
                await runs.write(connection, after)
                if after.run.status is RunStatus.CANCELLED:
                    await close_steps(connection, id, now)
                await connection.execute(_REMEMBER, (id, why, cancel_by))
                changed.append(id)
    return changed


async def more_to_cancel(connection: aiosqlite.Connection) -> bool:
    """Return True if `cancel_more` has something to do."""
    return bool(list(await connection.execute_fetchall(_PENDING)))


async def close_steps(connection: aiosqlite.Connection, run_id: str, now: str) -> None:
    """End the steps of a run that was cancelled: nothing is done, waited for or asked any more."""
    await connection.execute(_CLOSE, (now, run_id))


async def expire_cancels(
    runs: RunRows, connection: aiosqlite.Connection, limit: int, *, now: str, lease_now: str
) -> list[str]:
    """Cancel the runs whose programs had their time to clean up, and return their ids."""
    ids: list[str] = []
    for (id,) in list(await connection.execute_fetchall(_EXPIRED, (lease_now, limit))):
        with suppress(RecordDamaged):
            await runs.write(connection, expire_cancel(await runs.find(connection, id), now))
            await close_steps(connection, id, now)
            ids.append(id)
    return ids


async def next_cancel_by(connection: aiosqlite.Connection, lease_now: str) -> str | None:
    """Return when the time of the next program will be over, if one cleans up."""
    [[cancel_by]] = await connection.execute_fetchall(_NEXT, (lease_now,))
    return None if cancel_by is None else str(cancel_by)
