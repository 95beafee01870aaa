"""What is to be known of runs that changed, for those who wait: whether they ended, and who is next for a slot."""

from __future__ import annotations

from collections.abc import Sequence

from bus.model.records import RunStatus
from bus.model.transitions import RUN_TRANSITIONS
from bus.model.values import json_text
from bus.model.workflows import RunNews

from ..file.reader import Reader, is_text

__all__ = ["find_news"]

_CHANGED = """
    SELECT id, workflow_id, concurrency_key, status, last_holder_bot_id FROM workflow_runs
    WHERE id IN (SELECT value FROM json_each(?))"""

# As many as there are free slots, which a claim counts in the same way; without a limit, all that wait.
_NEXT = """
    SELECT id FROM workflow_runs
    WHERE workflow_id = ?1 AND concurrency_key IS ?2 AND queue_place IS NOT NULL AND queued_until > ?3
    ORDER BY queue_place
    LIMIT (
        SELECT COALESCE(
            MAX(0, CASE WHEN json_valid(definition) THEN json_extract(definition, '$.concurrency') END - (
                SELECT COUNT(*) FROM workflow_runs
                WHERE workflow_id = ?1 AND concurrency_key IS ?2 AND status = 'running')),
            -1)
        FROM workflows WHERE id = ?1)"""


async def find_news(reader: Reader, run_ids: Sequence[str], now: str | None) -> list[RunNews]:
    """Return the news of runs, and at a time `now` also which runs have a slot next."""
    rows = [
        row
        for row in await reader.execute_fetchall(_CHANGED, (json_text(list(run_ids), "run ids"),))
        if is_text(row)
    ]
    next_runs: dict[tuple[str, str | None], tuple[str, ...]] = {}
    for _, workflow_id, key, status, _ in rows:
        if now is not None and status != RunStatus.RUNNING and (workflow_id, key) not in next_runs:
            found = await reader.execute_fetchall(_NEXT, (workflow_id, key, now))
            next_runs[workflow_id, key] = tuple(row[0] for row in found)
    return [
        RunNews(
            run_id,
            not RUN_TRANSITIONS[RunStatus(status)],
            last_holder,
            () if status == RunStatus.RUNNING else next_runs.get((workflow_id, key), ()),
        )
        for run_id, workflow_id, key, status, last_holder in rows
    ]
