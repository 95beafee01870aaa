"""Events of workflows, as messages of the worker that are due at once.

`bus.model.run_events` and `bus.model.events` know what an event tells. It is written in the transaction of the
change, into the table of delayed messages, because only the log's own transactions append to the log.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import aiosqlite

from bus.model.events import EventBody, approval_waiting, due_event, runs_crashed
from bus.model.records import (
    EVENTS_CHANNEL,
    RUNS_CHANNEL,
    WORKER_CHANNELS,
    WORKER_ID,
    RecoveredRun,
    RunSummary,
    WorkflowRun,
    WorkflowStepLog,
)
from bus.model.run_events import event_of, run_event

from ..messages.arrivals import schedule

__all__ = ["EventWriting"]

_IS_KNOWN = """
    SELECT 1 FROM scheduled_messages WHERE id = ?1 AND sender_bot_id = ?2
    UNION ALL SELECT 1 FROM bot_messages WHERE id = ?1 AND sender_bot_id = ?2 AND copied = 0
    UNION ALL SELECT 1 FROM bot_messages WHERE id = ?1 AND sender_bot_id = ?2 AND copied = 1"""


class EventWriting:
    """Writes events while they are `wanted`, and tells that one `came`."""

    def __init__(self) -> None:
        self.wanted: Callable[[str], bool] = lambda channel: False
        self.came: Callable[[str], None] = lambda channel: None

    def __repr__(self) -> str:
        wanted = [channel for channel in WORKER_CHANNELS if self.wanted(channel)]
        return f"<EventWriting for {wanted}>"

    async def status(self, connection: aiosqlite.Connection, run_id: str) -> str | None:
        """Return the status of a run before a change; None if nobody is told of that."""
        if not self.wanted(RUNS_CHANNEL):
            return None
        rows = await connection.execute_fetchall("SELECT status FROM workflow_runs WHERE id = ?", (run_id,))
        return next((str(row[0]) for row in rows), None)

    async def changed(
        self, connection: aiosqlite.Connection, run: WorkflowRun | RunSummary, before: str | None
    ) -> None:
        """Record the event that a run has another status than before, which is None if it was not looked up."""
        if before is not None and before != run.status:
            await self._add(connection, event_of(run), run, {})

    async def created(self, connection: aiosqlite.Connection, run: WorkflowRun) -> None:
        """Record the event that a run was created."""
        if self.wanted(RUNS_CHANNEL):
            await self._add(connection, "created", run, {})

    async def crashed(self, connection: aiosqlite.Connection, recovered: Sequence[RecoveredRun]) -> None:
        """Record the events that runs lost their holders."""
        if self.wanted(RUNS_CHANNEL):
            for each in recovered:
                await self._add(connection, "crashed", each.run, {})
        if recovered and self.wanted(EVENTS_CHANNEL):
            await self._tell(connection, runs_crashed(recovered))

    async def asked(self, connection: aiosqlite.Connection, step: WorkflowStepLog) -> None:
        """Record the event that a step waits for an approval."""
        if self.wanted(EVENTS_CHANNEL):
            await self._tell(connection, approval_waiting(step))

    async def progress(
        self, connection: aiosqlite.Connection, run: WorkflowRun, value: Any, emit_id: str | None
    ) -> bool:
        """Record what a run's program emits, once for each id; return False if nobody is told."""
        if not self.wanted(RUNS_CHANNEL):
            return False
        id = None if emit_id is None else str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.id}/{emit_id}"))
        if id is None or not list(await connection.execute_fetchall(_IS_KNOWN, (id, WORKER_ID))):
            await self._add(connection, "progress", run, {"value": value}, id)
        return True

    async def _add(
        self,
        connection: aiosqlite.Connection,
        event: str,
        run: WorkflowRun | RunSummary,
        more: dict[str, Any],
        id: str | None = None,
    ) -> None:
        message = run_event(event, run, id or str(uuid.uuid4()), more)
        await schedule(connection, message)
        self.came(RUNS_CHANNEL)

    async def _tell(self, connection: aiosqlite.Connection, event: EventBody) -> None:
        await schedule(connection, due_event(event, str(uuid.uuid4())))
        self.came(EVENTS_CHANNEL)
