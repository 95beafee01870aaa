"""What a message says, in both worlds: the JSON body of posthouse's, and the parts of A2A's.

Pure. A text is a text part, and any other JSON a data part, both ways. What has several parts, or files, is a list
of parts as A2A writes them in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from a2a.types import Message, Part, Role, Task, TaskState
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value

__all__ = ["ASKING", "ENDED", "body_of", "message_of", "output_of", "parts_of", "text_of"]

ENDED = frozenset(
    {
        TaskState.TASK_STATE_COMPLETED,
        TaskState.TASK_STATE_FAILED,
        TaskState.TASK_STATE_CANCELED,
        TaskState.TASK_STATE_REJECTED,
    }
)
"""The states of tasks that stay as they are."""

ASKING = frozenset({TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED})
"""The states of tasks that wait for their client."""


def body_of(parts: Iterable[Part]) -> Any:
    """Return the body that says what parts say."""
    parts = list(parts)
    if len(parts) == 1 and parts[0].HasField("text"):
        return parts[0].text
    if len(parts) == 1 and parts[0].HasField("data"):
        return _whole_numbers(MessageToDict(parts[0].data))
    return [_whole_numbers(MessageToDict(part)) for part in parts]


def parts_of(body: Any) -> list[Part]:
    """Return the parts that say what a body says."""
    if isinstance(body, str):
        return [Part(text=body)]
    return [Part(data=ParseDict(body, Value()))]


def message_of(id: str, body: Any, *, role: Role, task: Task) -> Message:
    """Return a message within a task."""
    return Message(
        message_id=id, role=role, parts=parts_of(body), task_id=task.id or None, context_id=task.context_id or None
    )


def text_of(parts: Iterable[Part]) -> str:
    """Return the texts among parts."""
    return "\n".join(part.text for part in parts if part.HasField("text"))


def output_of(task: Task) -> Any:
    """Return what a task brought about: its artifacts, or else what its agent said last; None if nothing."""
    parts = [part for artifact in task.artifacts for part in artifact.parts] or list(task.status.message.parts)
    return body_of(parts) if parts else None


def _whole_numbers(value: Any) -> Any:
    """Return JSON in which whole numbers are what they were: A2A has only floating ones."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(each) for each in value]
    return value
