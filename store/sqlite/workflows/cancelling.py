"""Cancelling runs in SQLite: with a request that their programs may clean up, and with all their children.

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

__all__ = [
    "CancelRequest",
    "RunRows",
    "cancel_children",
    "cancel_run",
    "close_steps",
    "expire_cancels",
    "next_cancel_by",
]

_CLOSE = """
    UPDATE workflow_steps SET status = 'failed', error = 'cancelled', completed_at = COALESCE(completed_at, ?1)
    WHERE run_id = ?2 AND status IN ('pending', 'running', 'waiting_approval')"""

# A child that continued as a new run is completed, and has its successor as its child.
_CHILDREN = f"""
    WITH RECURSIVE child (id, status) AS (
        SELECT id, status FROM workflow_runs WHERE parent_run_id = ?
        UNION
        SELECT next.id, next.status
        FROM child JOIN workflow_runs AS next ON next.parent_run_id = child.id AND next.trigger_type = '{CONTINUED}'
        WHERE child.status = 'completed')
    SELECT id FROM child WHERE status NOT IN ('completed', 'failed', 'cancelled')"""

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
    """Cancel the children of a run, and theirs; one that is damaged is left as it is."""
    why = f"run {run_id} was cancelled" + ("" if request.reason is None else f": {request.reason}")
    waiting = [run_id]
    while waiting:
        for (id,) in list(await connection.execute_fetchall(_CHILDREN, (waiting.pop(),))):
            with suppress(RecordDamaged):
                held = await runs.find(connection, id)
                if not RUN_TRANSITIONS[held.run.status]:
                    continue
                after = cancel(held, why, request.cancel_by, now=request.now, lease_now=request.lease_now)
                if after is held:
                    continue
                await runs.write(connection, after)
                if after.run.status is RunStatus.CANCELLED:
                    await close_steps(connection, id, request.now)
                waiting.append(id)


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
