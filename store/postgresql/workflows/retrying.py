"""Letting runs go on that stopped, and beginning new ones with their records, in PostgreSQL.

Owns the SQL of both. `bus.model.retrying` chooses the records. Every method needs a unit that was settled, and
decides before it writes.
"""

from __future__ import annotations

from collections.abc import Iterable

import asyncpg
import msgspec

from bus.errors import Conflict
from bus.model.leases import retry
from bus.model.records import RunStatus, WorkflowRun
from bus.model.retrying import SET_ASIDE, StepMark, forked, set_aside
from bus.model.values import json_text

from .rows import RUN_COLUMNS, STEP_ORDER
from .runs import Runs
from .unit import Unit

__all__ = ["Retrying"]

_MARKS = f"SELECT id, step_id, status, started_at, completed_at FROM workflow_steps WHERE run_id = $1 {STEP_ORDER}"

# A question that is set aside must not be answered any more. Signals that these steps had wait again.
_SET_ASIDE = f"""
    WITH returned AS (
        UPDATE workflow_signals SET taken_by = NULL WHERE run_id = $3 AND taken_by = ANY($2::text[]))
    UPDATE workflow_steps SET step_id = step_id || '{SET_ASIDE}',
        completed_at = CASE status WHEN 'waiting_approval' THEN $1 ELSE completed_at END,
        status = CASE status WHEN 'waiting_approval' THEN 'skipped' ELSE status END
    WHERE id = ANY($2::text[])"""

_FIND_ORIGIN = "SELECT forked_from, created_by_bot_id FROM workflow_runs WHERE id = $1"

_FORK = f"""
    INSERT INTO workflow_runs ({RUN_COLUMNS}, definition, forked_from, created_by_bot_id)
    SELECT $1, workflow_id, workflow_name, 'pending', trigger_type, trigger_payload, context, $2, NULL, NULL,
        concurrency_key, NULL, NULL, NULL, attributes, definition, $3, $5
    FROM workflow_runs WHERE id = $4"""

_FORK_ATTRIBUTES = """
    INSERT INTO workflow_run_attributes (name, value, started_at, run_id)
    SELECT name, value, $2, $1 FROM workflow_run_attributes WHERE run_id = $3"""

# By its key (docs/workflows-how-to.md), or by its answer, for clients that write no keys.
_IS_APPROVAL = """
    CASE WHEN idempotency_key IS NULL
        THEN CASE WHEN output LIKE '{%' THEN output::json -> 'approved' IS NOT NULL ELSE FALSE END
        ELSE idempotency_key = 'approval' OR idempotency_key LIKE 'approval until %' END"""

# An approval is given for one run: a bot's fork asks again.
_FORK_STEPS = f"""
    INSERT INTO workflow_steps
        (id, run_id, step_id, step_name, status, attempt, idempotency_key, input, output, error, started_at,
         completed_at)
    SELECT $1 || '/' || id, $1, step_id, step_name, status, attempt, idempotency_key, input, output, error,
        started_at, completed_at
    FROM workflow_steps
    WHERE id = ANY($2::text[]) AND NOT ($3 AND {_IS_APPROVAL})
        AND error IS DISTINCT FROM '"cancelled"'
    ORDER BY number"""

# Only a run that the mailbox's bots held: somebody else's message may have its id.
_RETRIABLE = """
    SELECT id FROM workflow_runs
    WHERE id IN (SELECT id FROM bot_messages WHERE seq = ANY($1::bigint[]))
        AND (last_holder_bot_id = $2 OR last_holder_bot_id IN (
            SELECT bot_id FROM bot_subscriptions WHERE channel_name || '/' || group_name = $2))
        AND (status IN ('failed', 'crashed') OR (status = 'paused' AND error IS NOT NULL AND NOT stopped))"""


class Retrying:
    """See the module."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def __repr__(self) -> str:
        return f"<Retrying {self._runs}>"

    async def retry(self, unit: Unit, run_id: str, from_step: str | None) -> WorkflowRun:
        """Resume a run, without the records that count no longer."""
        held = await unit.held(run_id)
        marks = await _marks(unit.connection, run_id)
        if held.run.status == RunStatus.PENDING:
            known = {mark.step_id for mark in marks}
            repeated = from_step is not None and from_step not in known and from_step + SET_ASIDE in known
            if from_step is None or repeated:
                return held.run
        after = retry(held, unit.now)
        ids = set_aside(marks, from_step, has_error=held.has_error)
        if ids:
            await unit.connection.execute(_SET_ASIDE, unit.now, ids, run_id)
        self._runs.write(unit, held, after)
        return after.run

    async def retry_of_messages(self, unit: Unit, mailbox_id: str, seqs: Iterable[int]) -> None:
        """Resume runs of a mailbox's bots whose ids are those of messages, if an error stopped them."""
        for (run_id,) in await unit.connection.fetch(_RETRIABLE, list(seqs), mailbox_id):
            await self.retry(unit, run_id, None)

    async def fork(
        self, unit: Unit, run_id: str, new_id: str, before_step: str | None, *, by: str | None = None
    ) -> WorkflowRun:
        """Create a run of the bot `by` with the records of another one; or return the one that this created."""
        origin = json_text({"run_id": run_id, "before_step": before_step}, "origin of a fork")
        for known, creator in await unit.connection.fetch(_FIND_ORIGIN, new_id):
            if known != origin or by not in (None, creator):
                raise Conflict(f"run {new_id!r} exists, and is not this fork of run {run_id!r}")
            return (await unit.held(new_id)).run
        held = await unit.held(run_id)
        ids = forked(await _marks(unit.connection, run_id), before_step, has_error=held.has_error)
        created = msgspec.structs.replace(
            held.run,
            id=new_id,
            status=RunStatus.PENDING,
            started_at=unit.now,
            completed_at=None,
            error=None,
            result=None,
            parent_run_id=None,
            not_before=None,
            cancel_by=None,
            continued_as=None,
        )
        self._runs.check_size(created, f"run {new_id!r}")
        await unit.connection.execute(_FORK, new_id, unit.now, origin, run_id, by)
        await unit.connection.execute(_FORK_STEPS, new_id, ids, by is not None)
        if created.attributes:
            await unit.connection.execute(_FORK_ATTRIBUTES, new_id, unit.now, run_id)
        self._runs.events.created(unit, created)
        return created


async def _marks(connection: asyncpg.Connection, run_id: str) -> list[StepMark]:
    return [StepMark(*row) for row in await connection.fetch(_MARKS, run_id)]
