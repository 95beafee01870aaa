"""What is read out of messages and tasks of A2A: a client's decision, and what happened to a task.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from a2a.server.events import Event
from a2a.types import Message, Role, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus, TaskStatusUpdateEvent
from a2a.utils.errors import InvalidParamsError

from .parts import body_of, text_of

__all__ = ["decision_of", "events_between"]

_WORDS = {"approve": True, "approved": True, "yes": True, "reject": False, "rejected": False, "no": False}


def decision_of(message: Message) -> tuple[bool, str | None]:
    """Return whether a client approves, and its comment. Raise InvalidParamsError if it says neither."""
    for part in message.parts:
        data = body_of([part])
        if isinstance(data, dict) and isinstance(data.get("approved"), bool):
            comment = data.get("comment")
            return data["approved"], None if comment is None else str(comment)
    word, _, comment = text_of(message.parts).partition(":")
    approved = _WORDS.get(word.strip(" .!\n").casefold())
    if approved is None:
        raise InvalidParamsError(
            "this task waits for an approval: say 'approve' or 'reject', or 'reject: why', or send the data"
            ' {"approved": true, "comment": "why"}'
        )
    return approved, comment.strip() or None


def events_between(before: Task, after: Task) -> Iterator[Event]:
    """Yield what happened to a task."""
    task_id, context_id = after.id, after.context_id
    for artifact in after.artifacts[len(before.artifacts) :]:
        yield TaskArtifactUpdateEvent(task_id=task_id, context_id=context_id, artifact=artifact, last_chunk=True)
    if after.status == before.status:
        return
    # Of changes in quick succession, only the last one was seen; what was said meanwhile is in the history.
    said = before.status.message.message_id
    for message in after.history[len(before.history) :]:
        if message.role == Role.ROLE_AGENT and message.message_id != said:
            status = TaskStatus(state=TaskState.TASK_STATE_WORKING, message=message)
            yield TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=status)
    yield TaskStatusUpdateEvent(task_id=task_id, context_id=context_id, status=after.status)
