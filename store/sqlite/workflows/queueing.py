"""Runs that wait for a slot, and what is to be known of runs that changed, for those who wait for them.

Owns which runs are next, as a claim (`runs`) decides it, and how long their places are kept without one.
"""

from __future__ import annotations

from collections.abc import Sequence

import aiosqlite

from bus.model.records import RunStatus
from bus.model.transitions import RUN_TRANSITIONS
from bus.model.values import json_text
from bus.model.workflows import RunNews

from ..file.reader import Reader, is_text

__all__ = ["end_places", "find_news", "find_next"]

_CHANGED = """
    SELECT run.id, workflow_id, concurrency_key, status, last_holder_bot_id, workflow.name, owner_bot_id
    FROM workflow_runs AS run JOIN workflows AS workflow ON workflow.id = workflow_id
    WHERE run.id IN (SELECT value FROM json_each(?))"""

# As many as there are free slots, which a claim counts in the same way; without a limit, all that wait. None if the
# workflow was deleted meanwhile: a LIMIT that is NULL is an error.
_NEXT = """
    SELECT id FROM workflow_runs
    WHERE workflow_id = ?1 AND concurrency_key IS ?2 AND queue_place IS NOT NULL AND queued_until > ?3
    ORDER BY queue_place
    LIMIT COALESCE((
        SELECT COALESCE(
            MAX(0, CASE WHEN json_valid(definition) THEN json_extract(definition, '$.concurrency') END - (
                SELECT COUNT(*) FROM workflow_runs
                WHERE workflow_id = ?1 AND concurrency_key IS ?2 AND status = 'running')),
            -1)
        FROM workflows WHERE id = ?1), 0)"""

# The same of all workflows: the free slots of each that somebody waits for, and as many of those who wait.
_ALL_NEXT = """
    WITH queues AS (
        SELECT DISTINCT workflow_id, concurrency_key FROM workflow_runs
        WHERE queue_place IS NOT NULL AND queued_until > ?1
    ), free AS (
        SELECT queues.workflow_id, queues.concurrency_key,
            CASE WHEN json_valid(definition) THEN json_extract(definition, '$.concurrency') END - (
                SELECT COUNT(*) FROM workflow_runs AS run
                WHERE run.workflow_id = queues.workflow_id AND run.concurrency_key IS queues.concurrency_key
                    AND run.status = 'running') AS slots
        FROM queues JOIN workflows ON workflows.id = queues.workflow_id
    ), waiting AS (
        SELECT run.id, free.slots,
            ROW_NUMBER() OVER (PARTITION BY run.workflow_id, run.concurrency_key ORDER BY queue_place) AS turn
        FROM free JOIN workflow_runs AS run
            ON run.workflow_id = free.workflow_id AND run.concurrency_key IS free.concurrency_key
        WHERE COALESCE(free.slots, 1) > 0 AND run.queue_place IS NOT NULL AND run.queued_until > ?1
    )
    SELECT id FROM waiting WHERE turn <= COALESCE(slots, turn)"""

_END_PLACES = "UPDATE workflow_runs SET queued_until = ?1 WHERE queue_place IS NOT NULL AND queued_until > ?1"


async def end_places(connection: aiosqlite.Connection, run_ids: Sequence[str] | None, until: str) -> None:
    """Keep the places of these runs, None for all, until a time at most."""
    if run_ids is None:
        await connection.execute(_END_PLACES, (until,))
    else:
        named = f"{_END_PLACES} AND id IN (SELECT value FROM json_each(?2))"
        await connection.execute(named, (until, json_text(list(run_ids), "run ids")))


async def find_next(reader: Reader, now: str) -> list[str]:
    """Return the runs that wait for a slot and have one now, of all workflows."""
    return [row[0] for row in await reader.execute_fetchall(_ALL_NEXT, (now,))]


async def find_news(reader: Reader, run_ids: Sequence[str], now: str | None) -> list[RunNews]:
    """Return the news of runs, and at a time `now` also which runs have a slot next."""
    rows = [
        row
        for row in await reader.execute_fetchall(_CHANGED, (json_text(list(run_ids), "run ids"),))
        if is_text(row)
    ]
    next_runs: dict[tuple[str, str | None], tuple[str, ...]] = {}
    for _, workflow_id, key, status, *_ in rows:
        if now is not None and status != RunStatus.RUNNING and (workflow_id, key) not in next_runs:
            found = await reader.execute_fetchall(_NEXT, (workflow_id, key, now))
            next_runs[workflow_id, key] = tuple(row[0] for row in found)
    return [
        RunNews(
            run_id,
            not RUN_TRANSITIONS[RunStatus(status)],
            last_holder,
            () if status == RunStatus.RUNNING else next_runs.get((workflow_id, key), ()),
            is_open=status in (RunStatus.PENDING, RunStatus.CRASHED),
            workflow=(workflow_id, name),
            owner=owner,
        )
        for run_id, workflow_id, key, status, last_holder, name, owner in rows
    ]
