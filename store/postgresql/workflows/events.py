"""Events of runs, as messages of the worker that are due at once.

They are stored in the transaction of the change, beside the log: only the log's own transactions append to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from bus.model.records import WORKER_ID, RunSummary, WorkflowRun
from bus.model.repository import NewMessage
from bus.model.run_events import event_of, run_event

from .unit import Unit

__all__ = ["EventWriting", "Schedule"]

_IS_KNOWN = """
    SELECT EXISTS (SELECT 1 FROM scheduled_messages WHERE id = $1 AND sender_bot_id = $2)
        OR EXISTS (SELECT 1 FROM bot_messages WHERE id = $1 AND sender_bot_id = $2)"""


Schedule = Callable[[asyncpg.Connection, Sequence[NewMessage]], Awaitable[None]]
"""Stores messages beside the log until they are due."""


class EventWriting:
    """Writes events while they are `wanted`, and tells that some `came`."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.wanted: Callable[[], bool] = lambda: False
        self.came: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<EventWriting {'wanted' if self.wanted() else 'not wanted'}>"

    async def store(self, unit: Unit) -> None:
        """Store the events of a unit."""
        if unit.events:
            await self._schedule(unit.connection, unit.events)
            unit.events.clear()
            self.came()

    def changed(self, unit: Unit, before: WorkflowRun, after: WorkflowRun) -> None:
        """Record the event that a run has another status than before."""
        if before.status != after.status:
            self._add(unit, event_of(after), after)

    def created(self, unit: Unit, run: WorkflowRun) -> None:
        """Record the event that a run was created."""
        self._add(unit, "created", run)

    def crashed(self, unit: Unit, run: RunSummary) -> None:
        """Record the event that a run lost its holder."""
        self._add(unit, "crashed", run)

    async def progress(self, unit: Unit, run: WorkflowRun, value: Any, emit_id: str | None) -> bool:
        """Record what a run's program emits, once for each id; return False if nobody is told."""
        if not self.wanted():
            return False
        id = None if emit_id is None else str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.id}/{emit_id}"))
        if id is not None:
            if any(event.id == id for event in unit.events):
                return True
            [[known]] = await unit.connection.fetch(_IS_KNOWN, id, WORKER_ID)
            if known:
                return True
        self._add(unit, "progress", run, {"value": value}, id)
        return True

    def _add(
        self,
        unit: Unit,
        event: str,
        run: WorkflowRun | RunSummary,
        more: dict[str, Any] | None = None,
        id: str | None = None,
    ) -> None:
        if self.wanted():
            unit.events.append(run_event(event, run, id or str(uuid.uuid4()), more or {}))
