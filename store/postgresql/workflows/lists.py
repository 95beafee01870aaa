"""Lists of runs in PostgreSQL, and their numbers.

Owns the SQL of what a filter means. Each filter alone is a range of an index that is read newest first, so that a
list takes no longer than what it returns: status, workflow, concurrency key, attribute, time. Of several,
PostgreSQL chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bus.errors import NotFound
from bus.model.filters import RunCount, RunCounts, RunFilter, checked_filter
from bus.model.records import RunStatus, RunSummary, WorkflowRun
from bus.model.values import status_value

from .definitions import PostgresqlDefinitions
from .rows import RECORD_COLUMNS, SUMMARY, SUMMARY_COLUMNS, part, run_record, summary_record

__all__ = ["PostgresqlRunLists"]

_COUNTED_MAX = 100_000
"""Runs that are counted at most: some tenths of a second of a connection that others wait for."""

_CRASHED = f"""
    SELECT {RECORD_COLUMNS} FROM workflow_runs AS run
    WHERE status = 'running' AND (lease_expires_at IS NULL OR lease_expires_at <= $1)
    ORDER BY started_at, number LIMIT $2 OFFSET $3"""

_PLACE = "SELECT started_at, number FROM workflow_runs WHERE id = $1"

# What was paused with a reason waits for a person, and what is not due yet for its time.
_OPEN = f"""{SUMMARY}
    WHERE workflow_id IN (SELECT id FROM workflows WHERE id = $1 OR name = $1)
        AND (status IN ('pending', 'crashed') OR ($3 AND status = 'paused' AND error IS NULL AND NOT stopped))
        AND (last_holder_bot_id = $2 OR (last_holder_bot_id IS NULL AND COALESCE(
            (SELECT owner_bot_id FROM workflows WHERE id = run.workflow_id), $2) = $2))
        AND (not_before IS NULL OR not_before <= $4)
        AND ($5::text[] IS NULL OR id = ANY($5::text[]))
    ORDER BY started_at, number LIMIT $6 OFFSET $7"""

_BY_ATTRIBUTE = """
    JOIN workflow_run_attributes AS attribute ON attribute.run_id = run.id
        AND attribute.name = {} AND attribute.value = {}"""

_HAS_ATTRIBUTE = """
    EXISTS (SELECT 1 FROM workflow_run_attributes AS other
        WHERE other.name = {} AND other.value = {} AND other.started_at = run.started_at
            AND other.run_id = run.id)"""


class _Selection(NamedTuple):
    """The part of a statement that chooses runs, their order, and its values."""

    sql: str
    order: str
    values: list[Any]

    def limited(self, limit: int | None, offset: int) -> tuple[str, list[Any]]:
        """Return it with a limit and an offset."""
        count = len(self.values)
        return f"{self.sql} {self.order} LIMIT ${count + 1} OFFSET ${count + 2}", [*self.values, limit, offset]


class PostgresqlRunLists(PostgresqlDefinitions):
    """The lists of runs of a WorkflowRepository."""

    async def list_runs(
        self,
        workflow_id: str,
        limit: int | None = 50,
        *,
        offset: int = 0,
        where: RunFilter | None = None,
        after: str | None = None,
    ) -> list[WorkflowRun]:
        """List a workflow's runs, newest first."""
        chosen = part(limit, offset)
        selected = await self._select(where, after, workflow_id=workflow_id)
        sql, values = selected.limited(*chosen)
        return [run_record(row) for row in await self._fetch(f"SELECT {RECORD_COLUMNS} {sql}", *values)]

    async def list_all_runs(
        self,
        status: RunStatus | None = None,
        limit: int | None = 50,
        *,
        offset: int = 0,
        where: RunFilter | None = None,
        after: str | None = None,
    ) -> list[RunSummary]:
        """List runs of all workflows, newest first."""
        chosen = part(limit, offset)
        wanted = None if status is None else status_value(status, RunStatus)
        selected = await self._select(where, after, status=wanted)
        sql, values = selected.limited(*chosen)
        return [summary_record(row) for row in await self._fetch(f"SELECT {SUMMARY_COLUMNS} {sql}", *values)]

    async def count_runs(self, where: RunFilter | None = None) -> RunCounts:
        """Count runs by workflow and status."""
        sql, values = (await self._select(where, None)).limited(_COUNTED_MAX + 1, 0)
        rows = await self._fetch(
            f"SELECT workflow_id, status, COUNT(*) FROM (SELECT run.workflow_id, run.status {sql}) AS chosen"
            " GROUP BY 1, 2 ORDER BY 1, 2",
            *values,
        )
        counts = [RunCount(workflow_id=row[0], status=RunStatus(row[1]), runs=row[2]) for row in rows]
        return RunCounts(counts=tuple(counts), more=sum(count.runs for count in counts) > _COUNTED_MAX)

    async def list_open_runs(
        self,
        workflow: str,
        holder: str,
        *,
        resting: bool = False,
        run_ids: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[RunSummary]:
        """List the runs of a workflow that a bot is to open, oldest first."""
        ids = None if run_ids is None else [id for id in run_ids if "\0" not in id]
        chosen = part(limit, offset)
        rows = await self._fetch(_OPEN, workflow, holder, resting, await self._now(), ids, *chosen)
        return [summary_record(row) for row in rows]

    async def list_crashed_runs(self, limit: int | None = None, *, offset: int = 0) -> list[WorkflowRun]:
        """List the runs that are `running` without a live lease, oldest first."""
        chosen = part(limit, offset)
        return [run_record(row) for row in await self._fetch(_CRASHED, await self._now(), *chosen)]

    async def _select(
        self,
        where: RunFilter | None,
        after: str | None,
        *,
        status: RunStatus | None = None,
        workflow_id: str | None = None,
    ) -> _Selection:
        """Return which runs a filter means, newest first, from the one after another on."""
        where = RunFilter() if where is None else checked_filter(where)
        values: list[Any] = []

        def value(given: Any) -> str:
            values.append(given)
            return f"${len(values)}"

        source, order = "FROM workflow_runs AS run", ("run.started_at", "run.number")
        conditions: list[str] = []
        attributes = list(where.attributes.items())
        place = await self._place(after)
        if attributes:
            (name, text), *attributes = attributes
            source += _BY_ATTRIBUTE.format(value(name), value(text))
            order = ("attribute.started_at", "attribute.run_id")
            place = place and (place[0], after)
        if where.workflow is not None:
            rows = await self._fetch("SELECT id FROM workflows WHERE id = $1 OR name = $1", where.workflow)
            named = [row[0] for row in rows]
            one = len(named) == 1
            conditions.append(f"run.workflow_id = {value(named[0]) if one else f'ANY({value(named)}::text[])'}")
        for condition, given in (
            ("run.status =", status),
            ("run.status =", where.status),
            ("run.workflow_id =", workflow_id),
            ("run.started_at >=", where.since),
            ("run.started_at <", where.until),
            ("run.concurrency_key =", where.concurrency_key),
            ("run.id >=", where.id_prefix),
            ("run.id <", None if where.id_prefix is None else f"{where.id_prefix}\U0010ffff"),
        ):
            if given is not None:
                conditions.append(f"{condition} {value(given)}")
        conditions += [_HAS_ATTRIBUTE.format(value(name), value(text)) for name, text in attributes]
        if place is not None:
            conditions.append(f"({order[0]}, {order[1]}) < ({value(place[0])}, {value(place[1])})")
        chosen = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return _Selection(f"{source}{chosen}", f"ORDER BY {order[0]} DESC, {order[1]} DESC", values)

    async def _place(self, after: str | None) -> tuple[str, Any] | None:
        """Return the place of a run in the order of the lists. Raise NotFound if it does not exist."""
        if after is None:
            return None
        for started_at, number in await self._fetch(_PLACE, after):
            return started_at, number
        raise NotFound("run", after)
