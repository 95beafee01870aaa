"""What the worker tells of runs: events, on a channel of its own and due at once, and notices to bots.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

from typing import Any

from .lots import DUE_AT_ONCE, NewMessage
from .records import RUNS_CHANNEL, WORKER_ID, WORKER_NAME, RecoveredRun, RunStatus, RunSummary, WorkflowRun
from .run_changes import RecoverRuns, StartScheduled
from .values import json_bytes

__all__ = ["crashed_notice", "event_of", "run_event", "start_notice"]

_ERROR_CHARACTERS = 1000
"""An event has no more of a run's error."""


def event_of(run: WorkflowRun | RunSummary) -> str:
    """Return the name of the event that a run has its status."""
    if run.status == RunStatus.RUNNING:
        return "started"
    if run.status == RunStatus.PAUSED and run.error is None:
        return "waits"
    return str(run.status)


def run_event(event: str, run: WorkflowRun | RunSummary, id: str, more: dict[str, Any]) -> NewMessage:
    """Return an event of a run as a message with this id; `more` is said beside what every event says."""
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
    return NewMessage(
        id=id,
        sender_bot_id=WORKER_ID,
        sender_bot_name=WORKER_NAME,
        recipient_bot_id=None,
        recipient_channel=RUNS_CHANNEL,
        message_type=f"run.{event}",
        body=json_bytes(body, "an event"),
        reply_to=None,
        headers=b"{}",
        due_at=DUE_AT_ONCE,
    )


def crashed_notice(recovered: RecoveredRun, change: RecoverRuns, id: str) -> NewMessage:
    """Return the message that tells the last holder of a run that it lost it."""
    run = recovered.run
    body = {
        "run_id": run.id,
        "workflow_id": run.workflow_id,
        "workflow_name": run.workflow_name,
        "fence": run.fence,
        "recoveries": run.recoveries,
        "error": run.error,
    }
    return _notice("workflow.crashed", recovered.holder, body, change, id)


def start_notice(run: WorkflowRun, bot_id: str | None, change: StartScheduled, id: str) -> NewMessage:
    """Return the message that tells a bot to open the run that a schedule started."""
    body = {
        "run_id": run.id,
        "workflow_id": run.workflow_id,
        "workflow_name": run.workflow_name,
        **run.trigger_payload,
    }
    return _notice("workflow.start", bot_id, body, change, id)


def _notice(kind: str, bot_id: str | None, body: Any, change: RecoverRuns | StartScheduled, id: str) -> NewMessage:
    return NewMessage(
        id=id,
        sender_bot_id=change.sender_id,
        sender_bot_name=change.sender_name,
        recipient_bot_id=bot_id,
        recipient_channel=None,
        message_type=kind,
        body=json_bytes(body, "a notice"),
        reply_to=None,
        headers=b"{}",
    )
