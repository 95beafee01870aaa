"""A bot as an agent of A2A: what its clients ask is a message to the bot, and its replies are the task.

Owns what becomes of a request, and in which state a task is. The bot is an ordinary one, and may be away. What a
client was told is in `tasks`, so that any process of the endpoint goes on where another one was killed. asyncio
only, as the SDK is.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import wraps
from typing import Any, NoReturn

import anyio
from a2a.server.context import ServerCallContext
from a2a.server.events import Event
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types import (
    AgentCard,
    Artifact,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
    TaskStatus,
)
from a2a.utils.errors import (
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from a2a.utils.task import apply_history_length, validate_history_length, validate_page_size

from ...bot import Bot
from ...client.draft import Draft
from ...client.message import Message as BotMessage
from ...errors import BusError, Forbidden, RequestError, RevisionConflict
from ...model.records import RunStatus, WorkflowRun
from ...runs.approvals import Answer, Unanswerable
from .parts import ASKING, body_of, parts_of
from .reading import decision_of, events_between
from .replies import is_next
from .tasks import TaskRecord, Tasks, set_status

__all__ = ["AgentEndpoint"]

_TASKS = uuid.UUID("d0c6e3f1-9a42-5c0b-8f3e-5d9a1c7b2e64")
"""Ids of tasks are made of this and the id of the client's message, so that a repeated message is one task."""

_CONTEXT_ID_MAX = 200
"""Characters of a context's id, which travels in a header."""

_LOOK_SECONDS, _LOOK_SECONDS_MAX = 0.1, 5.0
"""How soon, and then how often at least, it is looked what the bot does while a client waits."""

_CANCEL_SECONDS = 10.0
"""How long a run may clean up before its task is returned as it is."""

_STATES = {
    "a2a.working": TaskState.TASK_STATE_WORKING,
    "a2a.input-required": TaskState.TASK_STATE_INPUT_REQUIRED,
    "a2a.auth-required": TaskState.TASK_STATE_AUTH_REQUIRED,
    "a2a.failed": TaskState.TASK_STATE_FAILED,
    "a2a.rejected": TaskState.TASK_STATE_REJECTED,
}
"""The state of a task after a reply of a type; the body says why."""

_ARTIFACT = "a2a.artifact"
"""The type of a reply with a part of the result. Any other reply is the rest of it."""

_RUN_ENDS = (RunStatus.COMPLETED, RunStatus.FAILED)

_logger = logging.getLogger("posthouse.client")


def _told(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method whose errors are told to the client in their own words."""
    if inspect.isasyncgenfunction(method):

        @wraps(method)
        async def stream(*args: Any) -> AsyncGenerator[Event, None]:
            try:
                async with aclosing(method(*args)) as events:
                    async for event in events:
                        yield event
            except BusError as error:
                raise InternalError(str(error)) from error

        return stream

    @wraps(method)
    async def answer(*args: Any) -> Any:
        try:
            return await method(*args)
        except BusError as error:
            raise InternalError(str(error)) from error

    return answer


class AgentEndpoint(RequestHandler):
    """Handles the requests of A2A for the bot with the name `target`, as another bot."""

    def __init__(self, bot: Bot, target: str, tasks: Tasks, *, message_type: str, client_approves: bool) -> None:
        self._bot = bot
        self._target = target
        self._tasks = tasks
        self._message_type = message_type
        self._client_approves = client_approves
        bot.on_message()(self.take_reply)

    def __repr__(self) -> str:
        return f"<AgentEndpoint of {self._target!r} as {self._bot!r}>"

    # ── What the bot replies ─────────────────────────────────────────────────────────────────────────────

    async def take_reply(self, message: BotMessage[Any]) -> None:
        """Record a reply in its task, and settle it, in one transaction."""
        while True:
            record = None if message.reply_to is None else await self._tasks.of_question(message.reply_to)
            if record is None or message.sender != record.bot:
                await message.term("it is not the reply of an agent to a task that is open")
                return
            if not await is_next(self._bot, record.task, message):
                await message.release()
                return
            question = record.question
            state = _STATES.get(message.message_type)
            if state is not None:
                set_status(record.task, state, message.body, id=message.id)
                question = question if state == TaskState.TASK_STATE_WORKING else None
            else:
                record.task.artifacts.append(Artifact(artifact_id=message.id, parts=parts_of(message.body)))
                if message.message_type != _ARTIFACT:
                    set_status(record.task, TaskState.TASK_STATE_COMPLETED)
                    question = None
            with suppress(RevisionConflict):
                await self._tasks.put(record, question=question, acks=[message])
                return

    # ── Messages of clients ──────────────────────────────────────────────────────────────────────────────

    @_told
    @validate_request_params
    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task | Message:
        """Begin a task, or go on with one; return it when it has ended, or waits for the client."""
        record = await self._send(params, context)
        if not params.configuration.return_immediately:
            record = await self._until_settled(record)
        return apply_history_length(record.task, params.configuration)

    @_told
    @validate_request_params
    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Begin a task, or go on with one; yield it, and what happens to it."""
        record = await self._send(params, context)
        async with aclosing(self._events(record)) as events:
            async for event in events:
                yield event

    async def _send(self, params: SendMessageRequest, context: ServerCallContext) -> TaskRecord:
        message, owner = params.message, context.user.user_name
        validate_history_length(params.configuration)
        if len(message.context_id) > _CONTEXT_ID_MAX:
            raise InvalidParamsError(f"contextId may have at most {_CONTEXT_ID_MAX} characters")
        if message.task_id:
            return await self._continue(message, await self._own(message.task_id, context), owner)
        id = str(uuid.uuid5(_TASKS, f"{self._target}\n{owner}\n{message.message_id}"))
        task = Task(id=id, context_id=message.context_id or id)
        set_status(task, TaskState.TASK_STATE_SUBMITTED)
        record = self._tasks.new(task, owner)
        try:
            return await self._ask(record, message, id)
        except RevisionConflict:  # this message was sent before
            return await self._own(id, context)

    async def _continue(self, message: Message, record: TaskRecord, owner: str) -> TaskRecord:
        """Go on with a task that waits for its client."""
        task = record.task
        if message.context_id and message.context_id != task.context_id:
            raise InvalidParamsError(f"task {task.id} belongs to the context {task.context_id}")
        if any(message.message_id == each.message_id for each in task.history):
            return record
        record = await self._look(record)
        if record.task.status.state not in ASKING:
            state = TaskState.Name(record.task.status.state)
            raise UnsupportedOperationError(f"task {task.id} is {state}: it takes a message when it asks for one")
        try:
            if record.approval is not None:
                return await self._answer(record, message, owner)
            asked = record.task.status.message.message_id
            set_status(record.task, TaskState.TASK_STATE_SUBMITTED)
            id = str(uuid.uuid5(_TASKS, f"{task.id}\n{message.message_id}"))
            return await self._ask(record, message, id, reply_to=asked)
        except RevisionConflict:
            raise UnsupportedOperationError(f"task {task.id} was changed meanwhile: look at it again") from None

    async def _ask(
        self, record: TaskRecord, message: Message, question: str, reply_to: str | None = None
    ) -> TaskRecord:
        """Send a client's message to the bot, and store the task."""
        task, kept = record.task, Message()
        kept.CopyFrom(message)
        kept.task_id, kept.context_id = task.id, task.context_id
        task.history.append(kept)
        draft = Draft(
            to=self._target,
            body=body_of(message.parts),
            message_type=self._message_type,
            headers={"a2a-task": task.id, "a2a-context": task.context_id},
            reply_to=reply_to,
            id=question,
        )
        await self._tasks.put(record, question=question, messages=[draft])
        return record

    async def _answer(self, record: TaskRecord, message: Message, owner: str) -> TaskRecord:
        """Answer the approval for which a run waits."""
        approved, comment = decision_of(message)
        assert record.question is not None, "a run that waits has a message"
        run = await self._run(record.question)
        for step in [] if run is None else await self._bot.workflows.list_waiting_approvals(run.id, None):
            if step.step_id == record.approval:
                with suppress(Unanswerable):  # somebody else was faster
                    await Answer(approved, owner or self._bot.name, comment).give(self._bot.workflows, step)
        record.approval = None
        set_status(record.task, TaskState.TASK_STATE_WORKING)
        record.task.history.append(message)
        await self._tasks.put(record, question=record.question)
        return record

    # ── Tasks ────────────────────────────────────────────────────────────────────────────────────────────

    @_told
    @validate_request_params
    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        """Return a task."""
        validate_history_length(params)
        record = await self._look(await self._own(params.id, context))
        return apply_history_length(record.task, params)

    @_told
    @validate_request_params
    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """List the client's tasks, as they were when they were last changed or looked at."""
        validate_history_length(params)
        if params.HasField("page_size"):
            validate_page_size(params.page_size)
        page = await self._tasks.page(context.user.user_name, params)
        for record in page.records:
            if not params.include_artifacts:
                record.task.ClearField("artifacts")
        tasks = [apply_history_length(record.task, params) for record in page.records]
        return ListTasksResponse(
            tasks=tasks, next_page_token=page.token, page_size=page.size, total_size=page.total
        )

    @_told
    @validate_request_params
    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task | None:
        """Cancel the run that a task's message began; without a run, only a task that waits for its client."""
        record = await self._look(await self._own(params.id, context))
        if record.is_ended:
            raise TaskNotCancelableError(f"task {params.id} has ended")
        if record.question is None:
            set_status(record.task, TaskState.TASK_STATE_CANCELED)
            with suppress(RevisionConflict):
                await self._tasks.put(record, question=None)
                return record.task
            raise TaskNotCancelableError(f"task {params.id} was changed meanwhile: look at it again")
        run = await self._run(record.question)
        if run is None:
            raise TaskNotCancelableError(
                f"bot {self._target} has not begun a run with task {params.id}, or one that bot {self._bot.name}"
                " may not read; only a run can be cancelled"
            )
        await self._bot.workflows.cancel_run(run.id, f"canceled by a client of {self._bot.name}")
        with anyio.move_on_after(_CANCEL_SECONDS):
            record = await self._until_settled(record)
        return record.task

    @_told
    @validate_request_params
    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event, None]:
        """Yield a task, and what happens to it."""
        record = await self._look(await self._own(params.id, context))
        if record.is_ended:
            raise UnsupportedOperationError(f"task {params.id} has ended: get it instead")
        async with aclosing(self._events(record)) as events:
            async for event in events:
                yield event

    async def _own(self, task_id: str, context: ServerCallContext) -> TaskRecord:
        found = await self._tasks.get(task_id)
        if found is None or found.owner != context.user.user_name:
            raise TaskNotFoundError(f"task {task_id} does not exist, or ended too long ago")
        return found

    async def _changes(self, record: TaskRecord) -> AsyncGenerator[TaskRecord, None]:
        """Yield a task as it is, and each time that it changes, until it has ended or waits for its client."""
        looking = asyncio.create_task(self._keep_looking(record.task.id))
        try:
            async for value in self._tasks.watch(record):
                found = self._tasks.read(value)
                if found is None:
                    raise TaskNotFoundError(f"task {record.task.id} was deleted")
                yield found
                if found.is_ended or found.task.status.state in ASKING:
                    return
        finally:
            looking.cancel()

    async def _until_settled(self, record: TaskRecord) -> TaskRecord:
        """Return a task when it has ended, or waits for its client."""
        async with aclosing(self._changes(record)) as changes:
            async for change in changes:
                record = change
        return record

    async def _events(self, record: TaskRecord) -> AsyncGenerator[Event, None]:
        seen: Task | None = None
        async with aclosing(self._changes(record)) as changes:
            async for change in changes:
                for event in [change.task] if seen is None else events_between(seen, change.task):
                    yield event
                seen = change.task

    # ── What the bot does ────────────────────────────────────────────────────────────────────────────────

    async def _keep_looking(self, task_id: str) -> None:
        """Read what the bot has done with a task, again and again, until it has ended or is cancelled."""
        wait = _LOOK_SECONDS
        while True:
            woken: Any = anyio.Event()
            try:
                record = await self._tasks.get(task_id)
                if record is None or record.question is None:
                    return
                woken = self._bot.workflows.woken(record.question)
                await self._watch_run(record.question)
                await self._look(record)
            except BusError as error:  # the next look may succeed, and the client's call tells of what lasts
                _logger.warning("cannot look at task %s: %s", task_id, error)
            with anyio.move_on_after(wait):
                await woken.wait()
            wait = min(wait * 2, _LOOK_SECONDS_MAX)

    async def _look(self, record: TaskRecord) -> TaskRecord:
        """Return a task in the state in which it is by what its bot does, and store it if that is news."""
        if record.question is None:
            return record
        before = TaskStatus()
        before.CopyFrom(record.task.status)
        question: str | None = record.question
        status = await self._status(record)
        if status is None:
            return record
        state, says, says_id = status
        if state == before.state and (says is None or says_id == before.message.message_id):
            return record
        set_status(record.task, state, says, id=says_id)
        if record.is_ended:
            record.approval = question = None
        with suppress(RevisionConflict):  # a reply has come meanwhile
            await self._tasks.put(record, question=question)
        return await self._tasks.get(record.task.id) or record

    async def _status(self, record: TaskRecord) -> tuple[TaskState, Any, str] | None:
        """Return a task's state, and what is to be said of it; None if nothing is known.

        A result that was not replied becomes the task's artifact.
        """
        question = record.question
        assert question is not None, "there is a message at work"
        id = str(uuid.uuid5(_TASKS, question))
        run = await self._run(question)
        if run is not None and run.status is RunStatus.CANCELLED:
            return TaskState.TASK_STATE_CANCELED, run.error, id
        record.approval = None
        for step in [] if run is None else await self._bot.workflows.list_waiting_approvals(run.id, 1):
            if self._client_approves:
                record.approval = step.step_id
            asks = {"approval": step.step_id, "asks": step.input}
            state = TaskState.TASK_STATE_INPUT_REQUIRED if self._client_approves else TaskState.TASK_STATE_WORKING
            return state, asks, step.id
        try:
            found = await self._bot.find(question)
        except RequestError:  # retention has removed it
            return None
        if not found.mailboxes:
            return TaskState.TASK_STATE_FAILED, f"bot {record.bot} was removed, and its mailbox with it", id
        fate = found.mailboxes[0]
        if fate.state == "waiting":
            return None
        if fate.state == "dead":  # its reason is known when it is stored
            return None if fate.given_up_at is None else (TaskState.TASK_STATE_FAILED, fate.reason, id)
        if fate.state == "expired":
            return TaskState.TASK_STATE_FAILED, "the message has expired", id
        if fate.state != "settled" or (
            run is not None and run.status not in (RunStatus.COMPLETED, RunStatus.FAILED)
        ):
            return TaskState.TASK_STATE_WORKING, None, id
        # Who replies does that before the message is settled.
        if any(each.reply_to == question for each in await self._bot.history(thread=question)):
            return None
        if run is not None and run.status is RunStatus.FAILED:
            return TaskState.TASK_STATE_FAILED, run.error, id
        if run is not None and run.result is not None:
            record.task.artifacts.append(Artifact(artifact_id=id, parts=parts_of(run.result)))
        return TaskState.TASK_STATE_COMPLETED, None, id

    async def _run(self, question: str) -> WorkflowRun | None:
        """Return the run that a message began: it has its id. None also for a bot that may not read runs."""
        with suppress(Forbidden):
            return await self._bot.workflows.get_latest_run(question)
        return None

    async def _watch_run(self, question: str) -> None:
        with suppress(Forbidden):
            await self._bot.workflows.watch_run(question)

    # ── What it cannot do ────────────────────────────────────────────────────────────────────────────────

    async def _refuse_push(self, params: object, context: ServerCallContext) -> NoReturn:
        raise PushNotificationNotSupportedError("subscribe to the task, or get it again")

    on_create_task_push_notification_config = _refuse_push
    on_get_task_push_notification_config = _refuse_push
    on_list_task_push_notification_configs = _refuse_push
    on_delete_task_push_notification_config = _refuse_push

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """Refuse it."""
        raise UnsupportedOperationError("this agent has one card, for everybody")
