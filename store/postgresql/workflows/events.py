"""Events of workflows, as messages of the worker that are due at once.

They are stored in the transaction of the change, beside the log: only the log's own transactions append to it.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg

from bus.model.events import EventBody, approval_waiting, due_event, runs_crashed
from bus.model.records import (
    EVENTS_CHANNEL,
    RUNS_CHANNEL,
    WORKER_CHANNELS,
    WORKER_ID,
    RecoveredRun,
    RunSummary,
    StepStatus,
    WorkflowRun,
    WorkflowStepLog,
)
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
        self.wanted: Callable[[str], bool] = lambda channel: False
        self.came: Callable[[str], None] = lambda channel: None

    def __repr__(self) -> str:
        wanted = [channel for channel in WORKER_CHANNELS if self.wanted(channel)]
        return f"<EventWriting for {wanted}>"

    async def store(self, unit: Unit) -> None:
        """Store the events of a unit."""
        if unit.events:
            await self._schedule(unit.connection, unit.events)
            channels = {event.recipient_channel or "" for event in unit.events}
            unit.events.clear()
            for channel in channels:
                self.came(channel)

    def changed(self, unit: Unit, before: WorkflowRun, after: WorkflowRun) -> None:
        """Record the event that a run has another status than before."""
        if before.status != after.status:
            self._add(unit, event_of(after), after)

    def created(self, unit: Unit, run: WorkflowRun) -> None:
        """Record the event that a run was created."""
        self._add(unit, "created", run)

    def crashed(self, unit: Unit, recovered: Sequence[RecoveredRun]) -> None:
        """Record the events that runs lost their holders."""
        for each in recovered:
            self._add(unit, "crashed", each.run)
        if recovered and self.wanted(EVENTS_CHANNEL):
            self._tell(unit, runs_crashed(recovered))

    def asked(self, unit: Unit, step: WorkflowStepLog) -> None:
        """Record the event that a step waits for an approval."""
        if step.status is StepStatus.WAITING_APPROVAL and self.wanted(EVENTS_CHANNEL):
            self._tell(unit, approval_waiting(step))

    async def progress(self, unit: Unit, run: WorkflowRun, value: Any, emit_id: str | None) -> bool:
        """Record what a run's program emits, once for each id; return False if nobody is told."""
        if not self.wanted(RUNS_CHANNEL):
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
        if self.wanted(RUNS_CHANNEL):
            unit.events.append(run_event(event, run, id or str(uuid.uuid4()), more or {}))

    def _tell(self, unit: Unit, event: EventBody) -> None:
        unit.events.append(due_event(event, str(uuid.uuid4())))
