"""The SDK's client, as the tests use it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx
from a2a.client import Client, ClientConfig, create_client
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
)

from bus.integrations.a2a.parts import body_of, parts_of
from bus.integrations.http_server import serve_http

__all__ = ["BOUND_SECONDS", "TOKEN", "Agent", "serving"]

BOUND_SECONDS = 60

TOKEN = "a token of the tests"


class Agent:
    """An agent as its client sees it."""

    def __init__(self, client: Client, id: str = "1") -> None:
        self._client = client
        self._sent = 0
        self._id = id

    def _request(self, body: Any, id: str | None, at_once: bool, where: dict[str, str]) -> SendMessageRequest:
        self._sent += 1
        message = Message(
            message_id=id or f"{self._id}-{self._sent}", role=Role.ROLE_USER, parts=parts_of(body), **where
        )
        configuration = SendMessageConfiguration(return_immediately=at_once)
        return SendMessageRequest(message=message, configuration=configuration)

    async def stream(self, body: Any, *, id: str | None = None, **where: str) -> AsyncIterator[StreamResponse]:
        async for event in self._client.send_message(self._request(body, id, False, where)):
            yield event

    async def send(self, body: Any, *, id: str | None = None, at_once: bool = False, **where: str) -> Task:
        """Send a message, and return the last state of its task."""
        task = Task()
        with anyio.fail_after(BOUND_SECONDS):
            async for event in self._client.send_message(self._request(body, id, at_once, where)):
                if event.HasField("task"):
                    task = event.task
                elif at_once or event.HasField("status_update"):
                    task = await self.get(event.status_update.task_id)
        return task

    async def get(self, id: str) -> Task:
        with anyio.fail_after(BOUND_SECONDS):
            return await self._client.get_task(GetTaskRequest(id=id))

    async def until(self, id: str, state: int) -> Task:
        """Get a task again and again, until it is in a state."""
        with anyio.fail_after(BOUND_SECONDS):
            while (task := await self.get(id)).status.state != state:
                await anyio.sleep(0.05)
        return task

    async def cancel(self, id: str) -> Task:
        with anyio.fail_after(BOUND_SECONDS):
            return await self._client.cancel_task(CancelTaskRequest(id=id))

    async def subscribe(self, id: str) -> AsyncIterator[StreamResponse]:
        async for event in self._client.subscribe(SubscribeToTaskRequest(id=id)):
            yield event

    @property
    def client(self) -> Client:
        return self._client

    @staticmethod
    def outputs(task: Task) -> list[Any]:
        return [body_of(artifact.parts) for artifact in task.artifacts]

    @classmethod
    @asynccontextmanager
    async def at(
        cls, url: str, *, streaming: bool = False, token: str = TOKEN, id: str = "1"
    ) -> AsyncIterator[Agent]:
        headers = {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(headers=headers, timeout=BOUND_SECONDS, trust_env=False) as http:
            yield cls(await create_client(url, ClientConfig(streaming=streaming, httpx_client=http)), id)


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application in this event loop."""
    serve = partial(
        serve_http, app, listener, token=TOKEN, command="the tests", public=("/.well-known/agent-card.json",)
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        yield
        tasks.cancel_scope.cancel()
