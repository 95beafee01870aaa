"""The tasks of an agent, in a keyed store of the worker.

Owns keys and values. `tasks/BOT/ID` is a task: what its clients see, as A2A's JSON, and which message the bot is at
work on. `open/MESSAGE` is the key of the task to which that message belongs, until it is answered. Each change of a
task expects the revision that was read, and is one transaction with the messages that it sends and settles: so a
reply changes its task once, however often it is delivered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from a2a.types import Message, Role, Task, TaskState
from google.protobuf.json_format import MessageToDict, ParseDict

from ...bot import Bot
from ...client import message as client
from ...client.draft import Draft
from ...client.keyed import KeyedChange, KeyedValue, KeyedWatch
from .parts import ENDED, message_of

__all__ = ["TaskRecord", "Tasks", "set_status"]


class TaskRecord(msgspec.Struct):
    """A task as it is kept; `revision` is that of its key, and 0 for a new one."""

    key: str
    owner: str
    task: Task
    question: str | None = None
    """The id of the message that the bot is at work on; None if it is not."""
    approval: str | None = None
    """The step of the run for which it waits, if that may be answered by the client."""
    revision: int = 0

    @property
    def bot(self) -> str:
        """The name of the bot that is the agent."""
        return unquote(self.key.split("/")[1])

    @property
    def is_ended(self) -> bool:
        """Whether it stays as it is."""
        return self.task.status.state in ENDED


class Tasks:
    """The tasks of one bot, kept in a store for other bots' requests."""

    def __init__(self, bot: Bot, target: str, store: str, keep_seconds: float) -> None:
        self._bot = bot
        self._store = store
        self._kv = bot.kv(store)
        self._prefix = f"tasks/{quote(target, safe='')}/"
        self._keep_seconds = keep_seconds

    def __repr__(self) -> str:
        return f"<Tasks {self._prefix!r} in {self._kv!r}>"

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return a task; None if it does not exist, or was kept for long enough."""
        return await self._read(self._prefix + quote(task_id, safe=""))

    async def of_question(self, message_id: str) -> TaskRecord | None:
        """Return the task to which a message to the bot belongs, if that is still to be answered."""
        found = await self._kv.get(f"open/{message_id}")
        return None if found is None else await self._read(found.value)

    async def all(self, owner: str) -> list[TaskRecord]:
        """Return all tasks of one owner."""
        found = map(_record, await self._kv.list(self._prefix))
        return [record for record in found if record.owner == owner]

    def watch(self, record: TaskRecord) -> KeyedWatch:
        """Return a watch of a task: its values are read by `read`."""
        return self._kv.watch(record.key)

    @staticmethod
    def read(value: KeyedValue) -> TaskRecord | None:
        """Return a watched task; None if it is no longer kept."""
        return None if value.is_deleted else _record(value)

    def new(self, task: Task, owner: str) -> TaskRecord:
        """Return a task that is not stored yet."""
        return TaskRecord(key=self._prefix + quote(task.id, safe=""), owner=owner, task=task)

    async def put(
        self,
        record: TaskRecord,
        *,
        question: str | None,
        messages: Sequence[Draft] = (),
        acks: Sequence[client.Message[Any]] = (),
    ) -> None:
        """Store a task, with messages to send and to settle, in one transaction.

        `question` is the message that the bot is at work on from now on. Raises RevisionConflict if somebody else
        has changed the task; nothing was done then.
        """
        before, record.question = record.question, question
        value = {
            "owner": record.owner,
            "question": question,
            "approval": record.approval,
            "task": MessageToDict(record.task),
        }
        ttl = self._keep_seconds if record.is_ended else None
        changes = [KeyedChange(store=self._store, key=record.key, value=value, expected=record.revision, ttl=ttl)]
        if before is not None and before != question:
            changes.append(KeyedChange(store=self._store, key=f"open/{before}", is_deletion=True))
        if question is not None and before != question:
            changes.append(KeyedChange(store=self._store, key=f"open/{question}", value=record.key))
        await self._bot.workflows.commit(values=changes, messages=messages, acks=acks)

    async def _read(self, key: str) -> TaskRecord | None:
        found = await self._kv.get(key)
        return None if found is None else _record(found)


def set_status(task: Task, state: TaskState, says: Any = None, *, id: str = "") -> None:
    """Change the status of a task; what was said before becomes history. `id` is that of the message `says`."""
    if task.status.HasField("message"):
        task.history.append(task.status.message)
    task.status.Clear()
    task.status.state = state
    task.status.timestamp.FromDatetime(datetime.now(UTC))
    if says is not None:
        message: Message = message_of(id, says, role=Role.ROLE_AGENT, task=task)
        task.status.message.CopyFrom(message)


def _record(found: KeyedValue) -> TaskRecord:
    value = found.value
    return TaskRecord(
        key=found.key,
        owner=value["owner"],
        task=ParseDict(value["task"], Task(), ignore_unknown_fields=True),
        question=value["question"],
        approval=value["approval"],
        revision=found.revision,
    )
