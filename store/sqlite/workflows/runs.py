"""Runs of workflows in SQLite: their changes within a transaction.

Owns the SQL of changing runs; `run_rows` reads their rows. `bus.model.transitions` decides which statuses may
follow, and `bus.model.leases` who may hold a run: here the run is read, and the result of the decision written.
Every method is part of its caller's transaction and may be run twice.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress

import aiosqlite
import msgspec

from bus.errors import Conflict, InvalidTransition, InvalidValue, NotFound, RecordDamaged, SlotsTaken
from bus.model.checked import NewRun, RunChange, check_record_size, run_change
from bus.model.leases import (
    Claimant,
    HeldRun,
    HoldState,
    Slots,
    cancel_error,
    check_fence,
    claim,
    move,
    release,
    renew,
)
from bus.model.records import Claim, Lease, RecoveredRun, RunStatus, RunSummary, WorkflowRun, later, parse_timestamp
from bus.model.repository import CommitWork
from bus.model.transitions import advance_run
from bus.model.values import check_texts, json_text, same_values
from bus.model.workflows import WorkflowRules

from ..file.failures import refusal
from ..file.reader import is_text
from .cancelling import CancelRequest, cancel_children, cancel_run, close_steps
from .events import EventWriting
from .run_rows import (
    RECORD_COLUMNS,
    RUN_COLUMNS,
    SUMMARY,
    add_attributes,
    find_run,
    run_record,
    summary_record,
)

__all__ = ["Runs"]

_HOLD_COLUMNS = (
    "fence, holder_bot_id, lease_expires_at, claim_id, recoveries, queue_place, queued_at, queued_until, stopped,"
    " last_holder_bot_id, progress, cleans_up, cancel_by, cancel_reason"
)

_INSERT = f"""
    INSERT INTO workflow_runs ({RUN_COLUMNS}, definition, created_by_bot_id)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15,
        (SELECT definition FROM workflows WHERE id = ?2), ?16)"""

_FIND = f"SELECT {RECORD_COLUMNS}, {_HOLD_COLUMNS} FROM workflow_runs WHERE id = ?"

_FIND_HOLD = f"SELECT status, {_HOLD_COLUMNS} FROM workflow_runs WHERE id = ?"

_UPDATE = """
    UPDATE workflow_runs
    SET status = ?, error = ?, completed_at = ?, context = COALESCE(?, context), result = COALESCE(?, result),
        fence = ?, holder_bot_id = ?, lease_expires_at = ?, claim_id = ?, recoveries = ?, queue_place = ?,
        queued_at = ?, queued_until = ?, stopped = ?, last_holder_bot_id = ?, progress = ?, cleans_up = ?,
        cancel_by = ?, cancel_reason = ?
    WHERE id = ?"""

_RECORDED = "SELECT COUNT(*) FROM workflow_steps WHERE run_id = ? AND status IN ('completed', 'skipped')"

# What a claim needs to know about other runs. The run itself is not running when this is queried.
_SLOTS = """
    SELECT
        CASE WHEN json_valid(workflow.definition) THEN json_extract(workflow.definition, '$.concurrency') END,
        (SELECT COUNT(*) FROM workflow_runs AS other
         WHERE other.workflow_id = run.workflow_id AND other.concurrency_key IS run.concurrency_key
            AND other.status = 'running'),
        (SELECT COUNT(*) FROM workflow_runs AS other
         WHERE other.workflow_id = run.workflow_id AND other.concurrency_key IS run.concurrency_key
            AND other.queue_place IS NOT NULL AND other.queued_until > ?2 AND other.id <> run.id
            AND (run.queue_place IS NULL OR other.queue_place < run.queue_place)),
        (SELECT COALESCE(MAX(other.queue_place), 0) + 1 FROM workflow_runs AS other
         WHERE other.workflow_id = run.workflow_id AND other.concurrency_key IS run.concurrency_key
            AND other.queue_place IS NOT NULL)
    FROM workflow_runs AS run JOIN workflows AS workflow ON workflow.id = run.workflow_id
    WHERE run.id = ?1"""

_INTERRUPT = """
    UPDATE workflow_steps SET status = 'failed', error = 'interrupted', completed_at = COALESCE(completed_at, ?1)
    WHERE status = 'running' AND run_id IN (SELECT value FROM json_each(?2))"""

# The condition is the one of idx_workflow_runs_not_before.
_DUE = """
    SELECT id, not_before FROM workflow_runs
    WHERE not_before IS NOT NULL AND status = 'pending' AND not_before > ?1 AND not_before <= ?2
    ORDER BY not_before LIMIT ?3"""

_NEXT_DUE = """
    SELECT MIN(not_before) FROM workflow_runs
    WHERE not_before IS NOT NULL AND status = 'pending' AND not_before > ?1"""

_LOST = f"""{SUMMARY}
    WHERE status = 'running' AND lease_expires_at <= ? ORDER BY started_at, rowid LIMIT ? OFFSET ?"""

_COUNTED = """
    SELECT COUNT(*) FROM workflow_steps AS step
    WHERE step.run_id = workflow_runs.id AND step.status IN ('completed', 'skipped')"""

_CRASH = f"""
    UPDATE workflow_runs
    SET status = 'crashed', completed_at = COALESCE(completed_at, ?1), error = 'interrupted: nobody holds this run',
        fence = fence + 1, holder_bot_id = NULL, lease_expires_at = NULL,
        recoveries = CASE WHEN ({_COUNTED}) > progress THEN 1 ELSE recoveries + 1 END, progress = ({_COUNTED}),
        claim_id = NULL, queue_place = NULL, queued_at = NULL, queued_until = NULL
    WHERE id IN (SELECT value FROM json_each(?2))"""


class Runs:
    """Changes of runs, by the store's rules."""

    def __init__(self, rules: WorkflowRules) -> None:
        self.rules = rules
        self.events = EventWriting()

    def __repr__(self) -> str:
        return f"<Runs {self.rules}>"

    async def create(
        self, connection: aiosqlite.Connection, new: NewRun, by: str | None = None, *, fence: int | None = None
    ) -> WorkflowRun:
        """Create a run with its workflow's definition, of the bot `by`; or return the equal one that exists.

        With a fence, that of its parent, the one that exists may have changed since it was created.
        """
        run = new.run
        if run.parent_run_id is not None:
            await self.check_fence(connection, run.parent_run_id, fence, by)
        elif fence is not None:
            raise InvalidValue("fence", "it is that of the parent, and this run has none")
        stored = await find_run(connection, run.id)
        if stored is not None:
            child = (run.parent_run_id, run.workflow_id)
            known = fence is not None and child == (stored.parent_run_id, stored.workflow_id)
            if known or same_values(stored, run):
                return stored
            raise Conflict(f"run {run.id!r} is stored with other fields")
        await self.insert(connection, new, by)
        return run

    async def insert(self, connection: aiosqlite.Connection, new: NewRun, by: str | None) -> None:
        """Create a run that does not exist. Raise NotFound if its workflow does not."""
        run = new.run
        try:
            await connection.execute(_INSERT, (*new.row, by))
            await add_attributes(connection, run)
        except sqlite3.IntegrityError as error:
            raise refusal(error, missing=NotFound("workflow", run.workflow_id)) from error
        await self.events.created(connection, run)

    async def move(
        self, connection: aiosqlite.Connection, change: RunChange, now: str, *, lease_now: str
    ) -> WorkflowRun:
        """Move a run to a status."""
        held = await self.find(connection, change.run_id)
        return await self._move(connection, held, change, now, lease_now=lease_now)

    async def _move(
        self, connection: aiosqlite.Connection, held: HeldRun, change: RunChange, now: str, *, lease_now: str
    ) -> WorkflowRun:
        _check_fence(held.run.status, held.hold, change.run_id, change.fence, change.by)
        error = change.error
        if change.status is RunStatus.CANCELLED:
            error = cancel_error(held.hold, error)
        after = advance_run(
            held.run, change.status, error=error, context=change.context, now=now, result=change.result
        )
        if change.context is not None or change.result is not None:
            self.check_size(after, f"run {change.run_id!r}")
        moved = move(held, after, fenced=change.fence is not None)
        if moved is not held:
            await self.write(connection, moved, change.context_text, change.result_text)
            if after.status is RunStatus.CANCELLED:
                await close_steps(connection, after.id, now)
                if held.hold.cancel_by is None:  # otherwise its children were asked with it
                    request = self.cancel_request(after.error, None, now=now, lease_now=lease_now)
                    await cancel_children(self, connection, after.id, request)
        return moved.run

    def cancel_request(
        self, reason: str | None, grace_seconds: float | None, *, now: str, lease_now: str
    ) -> CancelRequest:
        """Return what is asked of runs that are cancelled. Raises InvalidValue."""
        most = self.rules.lease_seconds_max
        seconds = self.rules.cancel_seconds if grace_seconds is None else grace_seconds
        if not 0 <= seconds <= most:
            raise InvalidValue("grace_seconds", f"must be 0 to {most:g}, not {seconds:g}")
        return CancelRequest(reason, later(lease_now, seconds), now, lease_now)

    async def cancel(self, connection: aiosqlite.Connection, run_id: str, request: CancelRequest) -> WorkflowRun:
        """Cancel a run and its children, or ask their programs to clean up."""
        return (await cancel_run(self, connection, run_id, request)).run

    async def checkpoint(
        self, connection: aiosqlite.Connection, work: CommitWork, now: str, *, lease_now: str
    ) -> HoldState:
        """Check a commit's fence, and write its context and status; without a status, that stays.

        Return the hold before.
        """
        run_id, by = work.run_id or "", work.bot_id if work.as_holder else None
        if work.status is None and work.context is None and work.result is None:
            current, hold = await self._find_hold(connection, run_id)
            _check_fence(current, hold, run_id, work.fence, by)
            return hold
        held = await self.find(connection, run_id)
        # A lost hold is reported first, whatever else is wrong with the commit.
        _check_fence(held.run.status, held.hold, run_id, work.fence, by)
        status, error = (held.run.status, held.run.error) if work.status is None else (work.status, work.error)
        change = run_change(
            run_id,
            status,
            error=error,
            context=work.context,
            fence=work.fence,
            by=by,
            result=work.result,
            result_bytes_max=self.rules.output_bytes_max,
        )
        await self._move(connection, held, change, now, lease_now=lease_now)
        return held.hold

    async def claim(
        self, connection: aiosqlite.Connection, run_id: str, claimant: Claimant
    ) -> Claim | SlotsTaken | InvalidTransition:
        """Claim a run. If there is no slot, SlotsTaken is returned, so that the place in the queue is stored.

        InvalidTransition is returned if the claim ends the run, which is to be cancelled.
        """
        return await self.claim_found(connection, await self.find(connection, run_id), claimant)

    async def claim_found(
        self, connection: aiosqlite.Connection, held: HeldRun, claimant: Claimant
    ) -> Claim | SlotsTaken | InvalidTransition:
        """Claim a run that was read in this transaction, like `claim`."""
        check_texts((claimant.holder, claimant.claim_id), "holder or id of a claim")
        run_id = held.run.id
        self.check_size(held.run, f"run {run_id!r}")
        slots = Slots(None, 0, 0, 0)
        if held.run.status != RunStatus.RUNNING:
            [row] = await connection.execute_fetchall(_SLOTS, (run_id, claimant.now))
            slots = Slots(*row)
        recorded = 0
        if held.hold.holder is not None:
            [[recorded]] = await connection.execute_fetchall(_RECORDED, (run_id,))
        after = claim(held, claimant, slots, recoveries_max=self.rules.recoveries_max, recorded=recorded)
        if after is not held:
            await self.write(connection, after)
        if after.run.status is RunStatus.CANCELLED:
            await close_steps(connection, run_id, claimant.wall)
            return InvalidTransition("run", run_id, RunStatus.CANCELLED, RunStatus.RUNNING)
        if after.hold.holder is None or after.hold.expires_at is None:
            return slots.refusal(run_id)
        if after.hold.fence != held.hold.fence:
            await connection.execute(_INTERRUPT, (claimant.now, json_text([run_id], "run ids")))
        return Claim(run=after.run, fence=after.hold.fence, expires_at=after.hold.expires_at)

    async def renew(
        self, connection: aiosqlite.Connection, run_id: str, fence: int, expires_at: str, *, by: str | None = None
    ) -> Lease:
        """Restart the lease of a run, without reading its context, which may be large."""
        status, hold = await self._find_hold(connection, run_id)
        hold = renew(run_id, status, hold, fence, expires_at, by=by)
        await connection.execute("UPDATE workflow_runs SET lease_expires_at = ? WHERE id = ?", (expires_at, run_id))
        holder, cancel_by = hold.holder or "", hold.cancel_by
        return Lease(run_id=run_id, holder=holder, fence=hold.fence, expires_at=expires_at, cancel_by=cancel_by)

    async def release(
        self,
        connection: aiosqlite.Connection,
        run_id: str,
        fence: int,
        status: RunStatus,
        now: str,
        *,
        by: str | None = None,
    ) -> WorkflowRun:
        """Release a run, as its holder asks."""
        held = await self.find(connection, run_id)
        after = release(held, fence, status, now=now, by=by)
        if after is not held:
            await self.write(connection, after)
        return after.run

    async def recover(
        self, connection: aiosqlite.Connection, limit: int, *, now: str, lease_now: str
    ) -> list[RecoveredRun]:
        """End the holds of runs whose lease has expired, except damaged runs."""
        lost = await _find_lost(connection, lease_now, limit)
        if not lost:
            return []
        ids = json_text([run.id for run in lost], "run ids")
        await connection.execute(_INTERRUPT, (now, ids))
        await connection.execute(_CRASH, (now, ids))
        holders = {run.id: run.holder for run in lost}
        rows = await connection.execute_fetchall(
            f"{SUMMARY} WHERE id IN (SELECT value FROM json_each(?)) ORDER BY started_at, rowid", (ids,)
        )
        crashed = [summary_record(row) for row in rows]
        recovered = [RecoveredRun(run=run, holder=holders[run.id]) for run in crashed]
        await self.events.crashed(connection, recovered)
        return recovered

    async def check_fence(
        self, connection: aiosqlite.Connection, run_id: str, fence: int | None, by: str | None
    ) -> None:
        """Raise Fenced if a write has another fence than the run's, and NotFound if there is no such run."""
        status, hold = await self._find_hold(connection, run_id)
        _check_fence(status, hold, run_id, fence, by)

    async def due(
        self, connection: aiosqlite.Connection, after: str, now: str, limit: int
    ) -> tuple[list[str], str, float | None]:
        """Return the pending runs whose time to start has come since a time, until when, and when the next will."""
        rows = list(await connection.execute_fetchall(_DUE, (after, now, limit)))
        until = rows[-1][1] if len(rows) == limit else now
        [[next_at]] = await connection.execute_fetchall(_NEXT_DUE, (until,))
        left = None if next_at is None else (parse_timestamp(next_at) - parse_timestamp(now)).total_seconds()
        return [row[0] for row in rows], until, left

    def check_size(self, record: msgspec.Struct, what: str, output: str | None = None) -> None:
        """Raise TooLarge for a record that could not be sent to its readers; `output` is a step log's, as JSON."""
        check_record_size(record, what, self.rules.record_bytes_max, output)

    async def find(self, connection: aiosqlite.Connection, run_id: str) -> HeldRun:
        """Return a run and its hold. Raise NotFound or RecordDamaged."""
        held = await self.look_up(connection, run_id)
        if held is None:
            raise NotFound("run", run_id)
        return held

    async def look_up(self, connection: aiosqlite.Connection, run_id: str) -> HeldRun | None:
        """Return a run and its hold, or None. Raise RecordDamaged."""
        rows = await connection.execute_fetchall(_FIND, (run_id,))
        return next((HeldRun(run_record(row), HoldState(*row[17:])) for row in rows), None)

    async def write(
        self,
        connection: aiosqlite.Connection,
        held: HeldRun,
        context_text: str | None = None,
        result_text: str | None = None,
    ) -> None:
        """Write a run's status and hold, and its context and result if they have changed."""
        run, hold = held.run, held.hold
        values = (run.status, run.error, run.completed_at, context_text, result_text)
        before = await self.events.status(connection, run.id)
        await connection.execute(_UPDATE, (*values, *msgspec.structs.astuple(hold), run.id))
        await self.events.changed(connection, run, before)

    async def _find_hold(self, connection: aiosqlite.Connection, run_id: str) -> tuple[str, HoldState]:
        """Return a run's status and hold, without its context, which may be large."""
        rows = await connection.execute_fetchall(_FIND_HOLD, (run_id,))
        row = next(iter(rows), None)
        if row is None:
            raise NotFound("run", run_id)
        if not is_text(row):
            raise RecordDamaged("workflow_runs", f"id {run_id}")
        return row[0], HoldState(*row[1:])


def _check_fence(status: str, hold: HoldState, run_id: str, fence: int | None, by: str | None) -> None:
    check_fence(run_id, status, hold.fence, fence, last_holder=hold.last_holder, by=by)


async def _find_lost(connection: aiosqlite.Connection, now: str, limit: int) -> list[RunSummary]:
    """Return the oldest runs whose lease has expired.

    A damaged run is left as it is, because its holder could not be notified. It does not hide the others.
    """
    lost: list[RunSummary] = []
    seen = 0
    while len(lost) < limit:
        rows = list(await connection.execute_fetchall(_LOST, (now, limit, seen)))
        for row in rows:
            with suppress(RecordDamaged):
                lost.append(summary_record(row))
        seen += len(rows)
        if len(rows) < limit:
            break
    return lost[:limit]
