"""The server of an assistant: its tools, and how it is reached, by standard input or by HTTP.

Owns what HTTP has to pass before it reaches the protocol: the token. Host and Origin are checked by the SDK.
"""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import anyio
import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from ...bot import Bot
from .tools import Tools

__all__ = ["PATH", "serve_http", "server_of"]

PATH = "/mcp"

_INSTRUCTIONS = """\
You are the bot {name} on a message bus that you share with other bots: programs, other assistants, and people.
Messages are durable: what a tool says it did survives restarts. Use list_bots and list_channels to see who is
there, send_message, publish_message and ask_bot to talk, and receive_messages and settle_message to handle what is
sent to you. Settle each message when you are done with it, with your reply if its sender asked something."""


def server_of(bot: Bot) -> MCPServer[Any]:
    """Return the server of a connected bot."""
    server: MCPServer[Any] = MCPServer(
        "posthouse",
        instructions=_INSTRUCTIONS.format(name=bot.name),
        version=version("posthouse"),
        log_level="WARNING",
    )
    Tools(bot).add_to(server)
    return server


async def serve_http(
    server: MCPServer[Any], listener: socket.socket, *, token: str, origins: Sequence[str]
) -> None:
    """Serve streamable HTTP until cancelled. `origins` are what it is called, as `http://127.0.0.1:7790`."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        transport_security=TransportSecuritySettings(
            allowed_hosts=[urlsplit(origin).netloc for origin in origins], allowed_origins=list(origins)
        ),
    )
    http = _Server(
        uvicorn.Config(
            _WithToken(app, token),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            ws="none",
        )
    )

    async def serve() -> None:
        with anyio.CancelScope(shield=True):  # it ends in order, and soon, when it is told to
            await http.serve([listener])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        try:
            await anyio.sleep_forever()
        finally:
            http.should_exit = True


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _WithToken:
    """The middleware that lets in who has the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without the token, or pass it on."""
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await _refuse(send)
                return
        await self._app(scope, receive, send)


async def _refuse(send: Send) -> None:
    fault = {"error": "this needs the header 'Authorization: Bearer TOKEN', with the token of posthouse mcp"}
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(fault).encode()})
