"""Lists of runs in SQLite, and their numbers.

Owns the SQL of what a filter means. Each filter alone is a range of an index that is read newest first, so that a
list takes no longer than what it returns: status, workflow, concurrency key, attribute, time. Of several, SQLite
chooses one, and looks through what that finds for the others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from bus.errors import NotFound
from bus.model.filters import RunCount, RunCounts, RunFilter, checked_filter
from bus.model.records import RunStatus, RunSummary, WorkflowRun
from bus.model.values import json_text, row_range, status_value

from ..file.reader import Reader
from .definitions import SqliteDefinitions
from .opening import find_open
from .run_rows import RECORD_COLUMNS, SUMMARY_COLUMNS, run_record, summary_record

__all__ = ["SqliteRunLists"]

COUNTED_MAX = 100_000
"""Runs that are counted at most: some tenths of a second of the thread that reads for everybody."""

_CRASHED = "WHERE status = 'running' AND (lease_expires_at IS NULL OR lease_expires_at <= ?)"

_PLACE = "SELECT started_at, rowid FROM workflow_runs WHERE id = ?"

# The index of ids is named, because SQLite would rather read all runs in the order of the list.
_BY_ID = "workflow_runs INDEXED BY sqlite_autoindex_workflow_runs_1"

# In the order of the list, if that is asked for first.
_BY_ATTRIBUTE = """
    (SELECT run_id AS found_id, started_at AS found_at FROM workflow_run_attributes WHERE name = ? AND value = ?)
    CROSS JOIN workflow_runs ON id = found_id"""

_HAS_ATTRIBUTE = """
    EXISTS (SELECT 1 FROM workflow_run_attributes AS other
        WHERE other.name = ? AND other.value = ? AND other.started_at = workflow_runs.started_at
            AND other.run_id = workflow_runs.id)"""

_WORKFLOWS = "SELECT id FROM workflows WHERE id = ?1 OR name = ?1"


class _Selection(NamedTuple):
    """The part of a statement that chooses runs and puts them into order, and its values."""

    sql: str
    values: list[Any]


class SqliteRunLists(SqliteDefinitions):
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
        selected = await _select(self._database.read, where, after, workflow_ids=[workflow_id])
        return await self._runs(
            f"FROM {selected.sql} LIMIT ? OFFSET ?", (*selected.values, *row_range(limit, offset))
        )

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
        wanted = None if status is None else status_value(status, RunStatus)
        selected = await _select(self._database.read, where, after, status=wanted)
        rows = await self._database.read.execute_fetchall(
            f"SELECT {SUMMARY_COLUMNS} FROM {selected.sql} LIMIT ? OFFSET ?",
            (*selected.values, *row_range(limit, offset)),
        )
        return [summary_record(row) for row in rows]

    async def count_runs(self, where: RunFilter | None = None) -> RunCounts:
        """Count runs by workflow and status."""
        selected = await _select(self._database.read, where, None)
        rows = await self._database.read.execute_fetchall(
            f"SELECT workflow_id, status, COUNT(*) FROM (SELECT workflow_id, status FROM {selected.sql} LIMIT ?)"
            " GROUP BY 1, 2 ORDER BY 1, 2",
            (*selected.values, COUNTED_MAX + 1),
        )
        counts = [RunCount(workflow_id=row[0], status=RunStatus(row[1]), runs=row[2]) for row in rows]
        return RunCounts(counts=tuple(counts), more=sum(count.runs for count in counts) > COUNTED_MAX)

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
        return await find_open(
            self._database.read,
            workflow,
            holder,
            resting=resting,
            now=self.now(),
            run_ids=run_ids,
            limit=limit,
            offset=offset,
        )

    async def list_crashed_runs(self, limit: int | None = None, *, offset: int = 0) -> list[WorkflowRun]:
        """List the runs that are `running` without a live lease, oldest first."""
        return await self._runs(
            f"FROM workflow_runs {_CRASHED} ORDER BY started_at, rowid LIMIT ? OFFSET ?",
            (self.lease_now(), *row_range(limit, offset)),
        )

    async def _runs(self, sql: str, parameters: Sequence[Any]) -> list[WorkflowRun]:
        rows = await self._database.read.execute_fetchall(f"SELECT {RECORD_COLUMNS} {sql}", parameters)
        return [run_record(row) for row in rows]


async def _select(
    reader: Reader,
    where: RunFilter | None,
    after: str | None,
    *,
    status: RunStatus | None = None,
    workflow_ids: Sequence[str] | None = None,
) -> _Selection:
    """Return which runs a filter means, newest first, from the one after another on."""
    where = RunFilter() if where is None else checked_filter(where)
    source, values = "workflow_runs", []
    conditions: list[str] = []
    order, place = ("started_at", "rowid"), await _place(reader, after)
    attributes = list(where.attributes.items())
    if attributes:
        (name, value), *attributes = attributes
        source, order = _BY_ATTRIBUTE, ("found_at", "found_id")
        values += [name, value]
        place = place and (place[0], after)
    elif where.id_prefix is not None:
        source = _BY_ID

    def add(condition: str, *given: Any) -> None:
        conditions.append(condition)
        values.extend(given)

    if workflow_ids is not None:
        add("workflow_id = ?", *workflow_ids)
    for each in (status, where.status):
        if each is not None:
            add("status = ?", each)
    if where.workflow is not None:
        rows: Iterable[sqlite3.Row] = await reader.execute_fetchall(_WORKFLOWS, (where.workflow,))
        named = [row[0] for row in rows]
        if len(named) == 1:
            add("workflow_id = ?", named[0])
        else:
            add("workflow_id IN (SELECT value FROM json_each(?))", json_text(named, "workflow ids"))
    for condition, given in (
        ("started_at >= ?", where.since),
        ("started_at < ?", where.until),
        ("concurrency_key = ?", where.concurrency_key),
        ("id >= ?", where.id_prefix),
        ("id < ?", None if where.id_prefix is None else f"{where.id_prefix}\U0010ffff"),
    ):
        if given is not None:
            add(condition, given)
    for pair in attributes:
        add(_HAS_ATTRIBUTE, *pair)
    if place is not None:
        add(f"{order[0]} <= ? AND ({order[0]}, {order[1]}) < (?, ?)", place[0], *place)
    chosen = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    return _Selection(f"{source} {chosen}ORDER BY {order[0]} DESC, {order[1]} DESC", values)


async def _place(reader: Reader, after: str | None) -> tuple[str, Any] | None:
    """Return the place of a run in the order of the lists. Raise NotFound if it does not exist."""
    if after is None:
        return None
    for started_at, rowid in await reader.execute_fetchall(_PLACE, (after,)):
        return started_at, rowid
    raise NotFound("run", after)
