"""Letting runs go on that stopped, and beginning new ones with their records, in SQLite.

Owns the SQL of both. `bus.model.retrying` chooses the records, and `runs` changes runs. Every method is part of its
caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable

import aiosqlite

from bus.errors import Conflict
from bus.model.leases import retry
from bus.model.records import RunStatus, WorkflowRun
from bus.model.retrying import SET_ASIDE, StepMark, forked, set_aside
from bus.model.values import json_text

from .run_rows import RUN_COLUMNS, add_attributes
from .runs import Runs
from .signals import give_back
from .steps import STEP_ORDER

__all__ = ["Retrying"]

_MARKS = f"SELECT id, step_id, status, started_at, completed_at FROM workflow_steps WHERE run_id = ? {STEP_ORDER}"

# A question that is set aside must not be answered any more.
_SET_ASIDE = f"""
    UPDATE workflow_steps SET step_id = step_id || '{SET_ASIDE}',
        completed_at = CASE status WHEN 'waiting_approval' THEN ?1 ELSE completed_at END,
        status = CASE status WHEN 'waiting_approval' THEN 'skipped' ELSE status END
    WHERE id IN (SELECT value FROM json_each(?2))"""

_FORK = f"""
    INSERT INTO workflow_runs ({RUN_COLUMNS}, definition, forked_from, created_by_bot_id)
    SELECT ?1, workflow_id, workflow_name, 'pending', trigger_type, trigger_payload, context, ?2, NULL, NULL,
        concurrency_key, NULL, NULL, NULL, attributes, definition, ?3, ?5
    FROM workflow_runs WHERE id = ?4"""

# By its key (docs/workflows-how-to.md), or by its answer, for clients that write no keys.
_IS_APPROVAL = """
    CASE WHEN idempotency_key IS NULL AND json_valid(output) THEN json_type(output, '$.approved') IS NOT NULL
        ELSE COALESCE(idempotency_key = 'approval' OR idempotency_key GLOB 'approval until *', FALSE) END"""

# An approval is given for one run: a bot's fork asks again.
_FORK_STEPS = f"""
    INSERT INTO workflow_steps
        (id, run_id, step_id, step_name, status, attempt, idempotency_key, input, output, error, started_at,
         completed_at)
    SELECT ?1 || '/' || id, ?1, step_id, step_name, status, attempt, idempotency_key, input, output, error,
        started_at, completed_at
    FROM workflow_steps
    WHERE id IN (SELECT value FROM json_each(?2)) AND NOT (?3 AND {_IS_APPROVAL})
        AND error IS NOT 'cancelled'
    ORDER BY rowid"""

# Only a run that the mailbox's bots held: somebody else's message may have its id.
_RETRIABLE = """
    SELECT id FROM workflow_runs
    WHERE id = (SELECT id FROM bot_messages WHERE seq = ?1)
        AND (last_holder_bot_id = ?2 OR last_holder_bot_id IN (
            SELECT bot_id FROM bot_subscriptions WHERE channel_name || '/' || group_name = ?2))
        AND (status IN ('failed', 'crashed') OR (status = 'paused' AND error IS NOT NULL AND NOT stopped))"""


class Retrying:
    """See the module."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def __repr__(self) -> str:
        return f"<Retrying {self._runs}>"

    async def retry(
        self, connection: aiosqlite.Connection, run_id: str, from_step: str | None, *, now: str, lease_now: str
    ) -> WorkflowRun:
        """Resume a run, without the records that count no longer."""
        held = await self._runs.find(connection, run_id)
        marks = await _marks(connection, run_id)
        if held.run.status == RunStatus.PENDING:
            known = {mark.step_id for mark in marks}
            repeated = from_step is not None and from_step not in known and from_step + SET_ASIDE in known
            if from_step is None or repeated:
                return held.run
        after = retry(held, lease_now)
        ids = set_aside(marks, from_step, has_error=held.has_error)
        set_aside_ids = json_text(ids, "step log ids")
        await connection.execute(_SET_ASIDE, (now, set_aside_ids))
        await give_back(connection, run_id, set_aside_ids)
        await self._runs.write(connection, after)
        return after.run

    async def retry_of_messages(
        self, connection: aiosqlite.Connection, mailbox_id: str, seqs: Iterable[int], *, now: str, lease_now: str
    ) -> None:
        """Resume runs of a mailbox's bots whose ids are those of messages, if an error stopped them."""
        for seq in seqs:
            for (run_id,) in await connection.execute_fetchall(_RETRIABLE, (seq, mailbox_id)):
                await self.retry(connection, run_id, None, now=now, lease_now=lease_now)

    async def fork(
        self,
        connection: aiosqlite.Connection,
        run_id: str,
        new_id: str,
        before_step: str | None,
        now: str,
        *,
        by: str | None = None,
    ) -> WorkflowRun:
        """Create a run of the bot `by` with the records of another one; or return the one that this created."""
        origin = json_text({"run_id": run_id, "before_step": before_step}, "origin of a fork")
        for known, creator in await connection.execute_fetchall(
            "SELECT forked_from, created_by_bot_id FROM workflow_runs WHERE id = ?", (new_id,)
        ):
            if known != origin or by not in (None, creator):
                raise Conflict(f"run {new_id!r} exists, and is not this fork of run {run_id!r}")
            return (await self._runs.find(connection, new_id)).run
        held = await self._runs.find(connection, run_id)
        ids = forked(await _marks(connection, run_id), before_step, has_error=held.has_error)
        await connection.execute(_FORK, (new_id, now, origin, run_id, by))
        await connection.execute(_FORK_STEPS, (new_id, json_text(ids, "step log ids"), by is not None))
        created = (await self._runs.find(connection, new_id)).run
        await add_attributes(connection, created)
        self._runs.check_size(created, f"run {new_id!r}")
        await self._runs.events.created(connection, created)
        return created


async def _marks(connection: aiosqlite.Connection, run_id: str) -> list[StepMark]:
    return [StepMark(*row) for row in await connection.execute_fetchall(_MARKS, (run_id,))]
