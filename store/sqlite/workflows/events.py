"""Events of runs, as messages of the worker that are due at once.

Owns what an event tells. It is written in the transaction of the change, into the table of delayed messages,
because only the log's own transactions append to the log.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import aiosqlite

from bus.model.records import (
    RUNS_CHANNEL,
    WORKER_ID,
    WORKER_NAME,
    RunStatus,
    RunSummary,
    WorkflowRun,
)
from bus.model.repository import DUE_AT_ONCE, NewMessage
from bus.model.values import json_text

from ..messages.arrivals import schedule

__all__ = ["EventWriting"]

_IS_KNOWN = """
    SELECT 1 FROM scheduled_messages WHERE id = ?1 AND sender_bot_id = ?2
    UNION ALL SELECT 1 FROM bot_messages WHERE id = ?1 AND sender_bot_id = ?2 AND copied = 0
    UNION ALL SELECT 1 FROM bot_messages WHERE id = ?1 AND sender_bot_id = ?2 AND copied = 1"""

_ERROR_CHARACTERS = 1000
"""An event has no more of a run's error."""


class EventWriting:
    """Writes events while they are `wanted`, and tells that one `came`."""

    def __init__(self) -> None:
        self.wanted: Callable[[], bool] = lambda: False
        self.came: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        return f"<EventWriting {'wanted' if self.wanted() else 'not wanted'}>"

    async def status(self, connection: aiosqlite.Connection, run_id: str) -> str | None:
        """Return the status of a run before a change; None if nobody is told of that."""
        if not self.wanted():
            return None
        rows = await connection.execute_fetchall("SELECT status FROM workflow_runs WHERE id = ?", (run_id,))
        return next((str(row[0]) for row in rows), None)

    async def changed(
        self, connection: aiosqlite.Connection, run: WorkflowRun | RunSummary, before: str | None
    ) -> None:
        """Tell that a run has another status than before, which is None if it was not looked up."""
        if before is not None and before != run.status:
            await self._add(connection, _event_of(run), run, {})

    async def created(self, connection: aiosqlite.Connection, run: WorkflowRun) -> None:
        """Tell that a run was created."""
        if self.wanted():
            await self._add(connection, "created", run, {})

    async def crashed(self, connection: aiosqlite.Connection, run: RunSummary) -> None:
        """Tell that a run lost its holder."""
        if self.wanted():
            await self._add(connection, "crashed", run, {})

    async def progress(
        self, connection: aiosqlite.Connection, run: WorkflowRun, value: Any, emit_id: str | None
    ) -> bool:
        """Tell what a run's program emits, once for each id; return False if nobody is told."""
        if not self.wanted():
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
        body = {
            "run_id": run.id,
            "workflow_id": run.workflow_id,
            "workflow_name": run.workflow_name,
            "status": run.status,
            "error": None if run.error is None else run.error[:_ERROR_CHARACTERS],
            "concurrency_key": run.concurrency_key,
            "attributes": run.attributes,
            **more,
        }
        message = NewMessage(
            id=id or str(uuid.uuid4()),
            sender_bot_id=WORKER_ID,
            sender_bot_name=WORKER_NAME,
            recipient_bot_id=None,
            recipient_channel=RUNS_CHANNEL,
            message_type=f"run.{event}",
            body=json_text(body, "an event").encode(),
            reply_to=None,
            headers=b"{}",
            due_at=DUE_AT_ONCE,
        )
        await schedule(connection, message)
        self.came()


def _event_of(run: WorkflowRun | RunSummary) -> str:
    if run.status == RunStatus.RUNNING:
        return "started"
    if run.status == RunStatus.PAUSED and run.error is None:
        return "waits"
    return str(run.status)
