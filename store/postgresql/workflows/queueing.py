"""Runs that wait for a slot, and what is to be known of runs that changed, for those who wait for them.

Owns which runs are next, as a claim (`runs`) decides it, and how long their places are kept without one.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from bus.model.owners import RunOwners
from bus.model.records import RunStatus
from bus.model.transitions import RUN_TRANSITIONS
from bus.model.workflows import RunNews

from ..server.reader import Reader

__all__ = ["end_places", "find_news", "find_next", "find_owners"]

_OWNERS = """
    SELECT run.id, workflow.name, workflow.owner_bot_id, run.created_by_bot_id, run.holder_bot_id,
        run.last_holder_bot_id
    FROM workflow_runs AS run JOIN workflows AS workflow ON workflow.id = run.workflow_id
    WHERE run.id = ANY($1::text[])"""

_CHANGED = """
    SELECT run.id, workflow_id, queue, status, last_holder_bot_id, workflow.name, owner_bot_id
    FROM workflow_runs AS run JOIN workflows AS workflow ON workflow.id = workflow_id
    WHERE run.id = ANY($1::text[])"""

# The free slots of each queue that somebody waits for, which a claim counts in the same way, and as many of those
# who wait; without a limit, all of them.
_NEXT = """
    SELECT free.workflow_id, free.queue, waiting.id
    FROM ({queues}) AS queues
        JOIN workflows ON workflows.id = queues.workflow_id
        CROSS JOIN LATERAL (
            SELECT queues.workflow_id, queues.queue, workflows.concurrency - (
                SELECT COUNT(*) FROM workflow_runs AS run
                WHERE run.workflow_id = queues.workflow_id AND run.queue = queues.queue
                    AND run.status = 'running') AS slots) AS free
        CROSS JOIN LATERAL (
            SELECT run.id, run.queue_place FROM workflow_runs AS run
            WHERE run.workflow_id = free.workflow_id AND run.queue = free.queue
                AND run.queue_place IS NOT NULL AND run.queued_until > $1
            ORDER BY run.queue_place
            LIMIT CASE WHEN free.slots IS NOT NULL THEN GREATEST(free.slots, 0) END) AS waiting
    ORDER BY free.workflow_id, free.queue, waiting.queue_place"""

_ALL_NEXT = _NEXT.format(
    queues="""
        SELECT DISTINCT workflow_id, queue FROM workflow_runs WHERE queue_place IS NOT NULL AND queued_until > $1"""
)

_NEXT_OF = _NEXT.format(queues="SELECT * FROM unnest($2::text[], $3::text[]) AS asked (workflow_id, queue)")

_END_PLACES = """
    UPDATE workflow_runs SET queued_until = $1
    WHERE queue_place IS NOT NULL AND queued_until > $1 AND ($2::text[] IS NULL OR id = ANY($2::text[]))"""


async def find_owners(reader: Reader, run_ids: Sequence[str]) -> dict[str, RunOwners]:
    """Return whose runs are, by their ids."""
    rows = await reader.fetch(_OWNERS, [id for id in run_ids if "\0" not in id])
    return {row[0]: RunOwners(*row) for row in rows}


async def end_places(connection: asyncpg.Connection, run_ids: Sequence[str] | None, until: str) -> None:
    """Keep the places of these runs, None for all, until a time at most."""
    ids = None if run_ids is None else [id for id in run_ids if "\0" not in id]
    await connection.execute(_END_PLACES, until, ids)


async def find_next(reader: Reader, now: str) -> list[str]:
    """Return the runs that wait for a slot and have one now, of all workflows."""
    return [row[2] for row in await reader.fetch(_ALL_NEXT, now)]


async def find_news(reader: Reader, run_ids: Sequence[str], now: str | None) -> list[RunNews]:
    """Return the news of runs, and at a time `now` also which runs have a slot next."""
    found = {row[0]: row for row in await reader.fetch(_CHANGED, [id for id in run_ids if "\0" not in id])}
    rows = [found[id] for id in dict.fromkeys(run_ids) if id in found]
    next_runs: dict[tuple[str, str], list[str]] = {}
    queues = {(row[1], row[2]) for row in rows if row[3] != RunStatus.RUNNING}
    if now is not None and queues:
        for workflow_id, queue, id in await reader.fetch(_NEXT_OF, now, *map(list, zip(*queues, strict=True))):
            next_runs.setdefault((workflow_id, queue), []).append(id)
    return [
        RunNews(
            run_id,
            not RUN_TRANSITIONS[RunStatus(status)],
            last_holder,
            () if status == RunStatus.RUNNING else tuple(next_runs.get((workflow_id, queue), ())),
            is_open=status in (RunStatus.PENDING, RunStatus.CRASHED),
            workflow=(workflow_id, name),
            owner=owner,
        )
        for run_id, workflow_id, queue, status, last_holder, name, owner in rows
    ]
