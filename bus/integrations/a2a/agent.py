"""An agent of A2A as a bot: each message is a task of the agent, and a run that follows it.

Owns the steps of that run. The task's id is recorded before it is waited for, so that a bot that was killed goes on
with the same task. asyncio only, as the SDK is.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
from a2a.client import A2ACardResolver, A2AClientError, Client, ClientConfig, ClientFactory
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import JSON_RPC_ERROR_CODE_MAP, A2AError, InternalError
from google.protobuf.json_format import MessageToDict, ParseDict

from ...bot import Bot
from ...errors import FailRun, Rejected, RunCancelled
from ...runs.replay import Retry
from ...runs.run import Run
from ..answering import answer_in_runs
from .parts import ASKING, ENDED, body_of, output_of, parts_of

__all__ = ["add_agent"]

_MESSAGES = uuid.UUID("1f7b8c52-5a0e-5b7d-9c39-2a4b6a3f0e91")
"""Ids of messages to the agent are made of this and the run, so that a repeated one is the same."""

_HTTP_SECONDS = 30.0

_LOOK_SECONDS, _LOOK_SECONDS_MAX = 0.2, 10.0
"""How soon, and then how often, the agent is asked how far it is."""

_SENDING = Retry(
    max_attempts=8, delay=1.0, delay_max=60.0, never=tuple(set(JSON_RPC_ERROR_CODE_MAP) - {InternalError})
)
"""An agent that is away is tried again for some minutes; what it refuses stays refused."""

_logger = logging.getLogger("posthouse.client")


def add_agent(
    bot: Bot,
    agent: str | AgentCard,
    *,
    message_type: str | None = None,
    workflow: str = "a2a",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Let a bot answer messages with an agent of A2A: `add_agent(bot, "https://agents.example.org/planner")`.

    `agent` is its address, under which its card is, or the card. The body of a message is what the agent is told: a
    text, or any JSON. Each message begins a run of `workflow`, whose id is the message's; so a bot that was killed
    goes on with the same task of the agent. What the agent made is the reply: a text, JSON, or a list of parts as
    A2A writes them. A task that fails fails the run, and the message becomes a dead letter that says why. If the
    agent asks for something, the run waits for an approval; its comment is the answer, and a rejection cancels the
    task, as cancelling the run does.

    `message_type` is which messages it answers (None: those for which there is no other handler), and `headers` are
    sent with each HTTP request, for instance an Authorization. Raises ValueError if the bot has a handler of these
    messages.
    """
    remote = _Remote(agent, dict(headers or {}))
    answer_in_runs(bot, workflow, message_type, lambda run, message: _follow(run, remote))


async def _follow(run: Run, remote: _Remote) -> Any:
    """Send the agent what a run is about, and follow its task until there is an output."""
    parts = [MessageToDict(part) for part in parts_of(run.input)]
    found = await run.step("send", remote.send, run.id, parts, input=run.input, retry=_SENDING)
    if "message" in found:
        return body_of(ParseDict(found["message"], Message()).parts)
    task_id = found["task"]["id"]
    try:
        return await _outcome(run, remote, task_id)
    except (Rejected, RunCancelled):
        await run.step("cancel", remote.cancel, task_id)
        raise


async def _outcome(run: Run, remote: _Remote, task_id: str) -> Any:
    asked = 0
    while True:
        task = ParseDict(await run.step("wait", remote.until_settled, task_id), Task())
        said = body_of(task.status.message.parts) if task.status.HasField("message") else None
        if task.status.state == TaskState.TASK_STATE_COMPLETED:
            return output_of(task)
        if task.status.state in ENDED:
            raise FailRun(f"task {task_id} of the agent is {TaskState.Name(task.status.state)}: {said}")
        answer = await run.approval("answer", {"agent": remote.where, "task": task_id, "asks": said})
        comment = answer.get("comment") if isinstance(answer, dict) else None
        asked += 1
        # Text for agents that read, and data for those that are told.
        parts = [Part(text=comment or "approve"), *parts_of({"approved": True, "comment": comment})]
        told = [MessageToDict(part) for part in parts]
        await run.step("tell", remote.send, f"{run.id}/{asked}", told, task_id, retry=_SENDING)


class _Remote:
    """An agent, as it is reached by HTTP. All methods take and return JSON, for steps."""

    def __init__(self, agent: str | AgentCard, headers: dict[str, str]) -> None:
        self._agent = agent
        self._headers = headers
        self._card = agent if isinstance(agent, AgentCard) else None
        self.where = agent.name if isinstance(agent, AgentCard) else agent

    def __repr__(self) -> str:
        return f"<_Remote {self.where!r}>"

    async def send(self, about: str, parts: list[dict[str, Any]], task_id: str | None = None) -> dict[str, Any]:
        """Send a message, and return the task or the message with which the agent answers at once.

        `about` says which message it is: the same one is sent again with the same id.
        """
        message = Message(
            message_id=str(uuid.uuid5(_MESSAGES, about)),
            role=Role.ROLE_USER,
            parts=[ParseDict(part, Part()) for part in parts],
            task_id=task_id,
        )
        request = SendMessageRequest(
            message=message, configuration=SendMessageConfiguration(return_immediately=True)
        )
        async with self._client() as client:
            async for answer in client.send_message(request):
                return MessageToDict(answer)
        raise A2AClientError(f"{self.where} has answered nothing")

    async def until_settled(self, task_id: str) -> dict[str, Any]:
        """Return a task when it has ended, or asks for something. An agent that is away is waited for."""
        wait = _LOOK_SECONDS
        while True:
            try:
                async with self._client() as client:
                    task = await client.get_task(GetTaskRequest(id=task_id))
                if task.status.state in ENDED | ASKING:
                    return MessageToDict(task)
            except A2AClientError as error:
                _logger.warning("cannot ask %s for task %s, and ask again: %s", self.where, task_id, error)
            await anyio.sleep(wait)
            wait = min(wait * 1.5, _LOOK_SECONDS_MAX)

    async def cancel(self, task_id: str) -> str | None:
        """Cancel a task; return why that was refused, if it was."""
        try:
            async with self._client() as client:
                await client.cancel_task(CancelTaskRequest(id=task_id))
        except A2AError as error:
            return str(error)
        return None

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        async with httpx.AsyncClient(headers=self._headers, timeout=_HTTP_SECONDS) as http:
            if self._card is None:
                self._card = await A2ACardResolver(http, self.where).get_agent_card()
            yield ClientFactory(ClientConfig(streaming=False, httpx_client=http)).create(self._card)
