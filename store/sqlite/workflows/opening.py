"""The runs that a bot is to open: nobody is at work on them, and it is the one that executes them."""

from __future__ import annotations

from collections.abc import Sequence

from bus.model.records import RunSummary
from bus.model.values import json_text, row_range

from ..file.reader import Reader
from .run_rows import SUMMARY, summary_record

__all__ = ["find_open"]

# What was paused with a reason waits for a person, and what is not due yet for its time.
_OPEN = f"""{SUMMARY} AS run
    WHERE workflow_id IN (SELECT id FROM workflows WHERE id = ?1 OR name = ?1)
        AND (status IN ('pending', 'crashed') OR (?3 AND status = 'paused' AND error IS NULL AND NOT stopped))
        AND (last_holder_bot_id = ?2 OR (last_holder_bot_id IS NULL AND COALESCE(
            (SELECT owner_bot_id FROM workflows WHERE id = run.workflow_id), ?2) = ?2))
        AND (not_before IS NULL OR not_before <= ?4)
        AND (?5 IS NULL OR id IN (SELECT value FROM json_each(?5)))
    ORDER BY started_at, rowid LIMIT ?6 OFFSET ?7"""


async def find_open(
    reader: Reader,
    workflow: str,
    bot_id: str,
    *,
    resting: bool,
    now: str,
    run_ids: Sequence[str] | None,
    limit: int | None,
    offset: int,
) -> list[RunSummary]:
    """Return the runs of a workflow that a bot is to open at a time, oldest first."""
    ids = None if run_ids is None else json_text(list(run_ids), "run ids")
    rows = await reader.execute_fetchall(_OPEN, (workflow, bot_id, resting, now, ids, *row_range(limit, offset)))
    return [summary_record(row) for row in rows]
