"""Cancelling runs in PostgreSQL with all their children, of which there may be many.

They are cancelled in portions, between which others write: the first one in the transaction of the run itself. What
is left is in a table, and goes on after a crash (docs/decisions/0069-cancelling-many-children.md).

Owns the SQL of it. `bus.model.leases` decides whether a run is cancelled at once.
"""

from __future__ import annotations

from contextlib import suppress

import asyncpg

from bus.errors import RecordDamaged
from bus.model.records import CONTINUED
from bus.model.transitions import RUN_TRANSITIONS

from ...portions import CANCELLED_RUNS
from .runs import Runs
from .unit import Needs, Unit

__all__ = ["cancel_more", "more_to_cancel"]

# The newest first: what somebody waits for.
_PENDING = """
    SELECT run_id, reason, cancel_by, after_id, last_id FROM workflow_cancellations ORDER BY number DESC LIMIT 1"""

_GO_ON = "UPDATE workflow_cancellations SET after_id = $2 WHERE run_id = $1"

_FINISH = "DELETE FROM workflow_cancellations WHERE run_id = $1"

_IS_SUCCESSOR_OF = f"next.trigger_type = '{CONTINUED}' AND next.parent_run_id ="

# A child that continued as a new run is completed, and has its successor as its child.
_CHILDREN = f"""
    WITH RECURSIVE child (number, place, id, status) AS (
        (SELECT number, id, id, status FROM workflow_runs AS run
            WHERE parent_run_id = $1 AND status NOT IN ('failed', 'cancelled')
                AND number > COALESCE((SELECT number FROM workflow_runs WHERE id = $2), 0)
                AND number <= COALESCE((SELECT number FROM workflow_runs WHERE id = $3), {2**63 - 1})
                AND (status <> 'completed' OR EXISTS (
                    SELECT FROM workflow_runs AS next WHERE {_IS_SUCCESSOR_OF} run.id))
            ORDER BY number LIMIT $4)
        UNION
        SELECT child.number, child.place, next.id, next.status
        FROM child JOIN workflow_runs AS next ON {_IS_SUCCESSOR_OF} child.id
        WHERE child.status = 'completed')
    SELECT place, id FROM child ORDER BY number"""


async def cancel_more(unit: Unit, runs: Runs) -> list[str]:
    """Cancel a portion of the runs that are to be cancelled with others, and return the ids of those that were.

    One that is damaged is left as it is. The unit was settled before, and is afterwards.
    """
    changed: list[str] = []
    room = CANCELLED_RUNS
    while room > 0:
        pending = await unit.connection.fetchrow(_PENDING)
        if pending is None:
            break
        run_id, why, cancel_by, after_id, last_id = pending
        found = await unit.connection.fetch(_CHILDREN, run_id, after_id, last_id, room)
        places = list(dict.fromkeys(row[0] for row in found))
        if len(places) < room:
            await unit.connection.execute(_FINISH, run_id)
        else:
            await unit.connection.execute(_GO_ON, run_id, places[-1])
        room -= max(1, len(places))
        await unit.load([Needs(records=tuple(row[1] for row in found))])
        for _, id in found:
            with suppress(RecordDamaged):
                held = await unit.held(id)
                if RUN_TRANSITIONS[held.run.status] and runs.cancel_with(unit, held, why, cancel_by) is not held:
                    changed.append(id)
        await unit.settle()
    unit.cancels = False
    return changed


async def more_to_cancel(connection: asyncpg.Connection) -> bool:
    """Return True if `cancel_more` has something to do."""
    return await connection.fetchrow(_PENDING) is not None
