"""The tasks of an agent, in a keyed store of the worker.

Owns keys and values. `tasks/BOT/ID` is a task: what its clients see, as A2A's JSON, and which message the bot is at
work on. `open/MESSAGE` is the key of the task to which that message belongs, until it is answered. `listed/BOT/…`
are the entries by which tasks are listed (`listing`). Each change of a task expects the revision that was read, and
is one transaction with the messages that it sends and settles: so a reply changes its task once, however often it
is delivered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from a2a.types import ListTasksRequest, Message, Role, Task, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from google.protobuf.json_format import MessageToDict, ParseDict

from ...bot import Bot
from ...client import message as client
from ...client.draft import Draft
from ...client.keyed import KeyedChange, KeyedValue, KeyedWatch
from ...errors import RevisionConflict
from .listing import ListEntry, PageToken, entry_of, owners_prefix, time_in_key
from .parts import ENDED, message_of

__all__ = ["TaskPage", "TaskRecord", "Tasks", "set_status"]

_ENTRIES_AT_ONCE = 500
"""Entries are some hundred bytes."""

_TASKS_AT_ONCE = 20
"""Tasks may be megabytes."""


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
    listed: ListEntry | None = None
    """The entry by which it is listed; None if there is none yet."""

    @property
    def bot(self) -> str:
        """The name of the bot that is the agent."""
        return unquote(self.key.split("/")[1])

    @property
    def entry(self) -> ListEntry:
        """The entry by which it is to be listed, as it is now."""
        return entry_of(owners_prefix(self.key.split("/")[1], self.owner), self.task)

    @property
    def is_ended(self) -> bool:
        """Whether it stays as it is."""
        return self.task.status.state in ENDED


class TaskPage(msgspec.Struct):
    """Some of the tasks that were asked for, and how many there are in all; `token` is that of the next page."""

    size: int
    total: int
    records: list[TaskRecord] = []
    token: str = ""


class Tasks:
    """The tasks of one bot, kept in a store for other bots' requests."""

    def __init__(self, bot: Bot, target: str, store: str, keep_seconds: float) -> None:
        self._bot = bot
        self._store = store
        self._kv = bot.kv(store)
        self._target = quote(target, safe="")
        self._prefix = f"tasks/{self._target}/"
        self._keep_seconds = keep_seconds
        self._all_are_listed = False

    def __repr__(self) -> str:
        return f"<Tasks {self._prefix!r} in {self._kv!r}>"

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return a task; None if it does not exist, or was kept for long enough."""
        return await self._read(self._prefix + quote(task_id, safe=""))

    async def of_question(self, message_id: str) -> TaskRecord | None:
        """Return the task to which a message to the bot belongs, if that is still to be answered."""
        found = await self._kv.get(f"open/{message_id}")
        return None if found is None else await self._read(found.value)

    async def page(self, owner: str, request: ListTasksRequest) -> TaskPage:
        """Return some tasks of one owner, as they are asked for, the last changed first.

        It reads these tasks, and for the first page all entries of the owner, to count them; for further ones only
        the entries that follow. A task that is changed meanwhile is on no further page.
        """
        await self._list_earlier()
        prefix, size = owners_prefix(self._target, owner), request.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE
        token = PageToken.read(request.page_token) if request.page_token else None
        since = request.status_timestamp_after if request.HasField("status_timestamp_after") else None
        last = prefix + ("~" if since is None else f"{time_in_key(since)}~")
        shown, matching = list[ListEntry](), 0
        async with aclosing(self._entries(prefix, None if token is None else prefix + token.place)) as entries:
            async for entry in entries:
                if entry.key > last or (token is not None and matching > size):
                    break
                if entry.is_of(request):
                    matching += 1
                    if matching <= size:
                        shown.append(entry)
        page = TaskPage(size=size, total=matching if token is None else token.total)
        for entry in shown:
            record = await self.get(entry.task_id)
            if record is not None and record.listed == entry:
                page.records.append(record)
        if matching > size:
            page.token = str(PageToken(shown[-1].key.removeprefix(prefix), page.total))
        return page

    async def _entries(self, prefix: str, after: str | None) -> AsyncGenerator[ListEntry, None]:
        while True:
            part = await self._kv.list(prefix, after=after, limit=_ENTRIES_AT_ONCE)
            for value in part:
                yield ListEntry(value.key, *value.value)
            if len(part) < _ENTRIES_AT_ONCE:
                return
            after = part[-1].key

    async def _list_earlier(self) -> None:
        """Add the entries of tasks that an earlier version stored without, once for each agent."""
        done = f"listed/{self._target}"
        self._all_are_listed = self._all_are_listed or await self._kv.get(done) is not None
        if self._all_are_listed:
            return
        after: str | None = None
        while part := await self._kv.list(self._prefix, after=after, limit=_TASKS_AT_ONCE):
            for value in part:
                record: TaskRecord | None = _record(value)
                while record is not None:
                    record.listed = None
                    with suppress(RevisionConflict):
                        await self.put(record, question=record.question)
                        break
                    record = await self._read(value.key)
            after = part[-1].key
        await self._kv.put(done, True)
        self._all_are_listed = True

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
        if (entry := record.entry) != (listed := record.listed):
            if listed is not None and listed.key != entry.key:
                changes.append(KeyedChange(store=self._store, key=listed.key, is_deletion=True))
            changes.append(KeyedChange(store=self._store, key=entry.key, value=entry.value, ttl=ttl))
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
    record = TaskRecord(
        key=found.key,
        owner=value["owner"],
        task=ParseDict(value["task"], Task(), ignore_unknown_fields=True),
        question=value["question"],
        approval=value["approval"],
        revision=found.revision,
    )
    record.listed = record.entry
    return record
