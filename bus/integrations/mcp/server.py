"""The server of an assistant: its tools, and how it is reached, by standard input or by HTTP.

The token is checked before HTTP reaches the protocol, and Host and Origin by the SDK.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from ...bot import Bot
from .. import http_server
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
    await http_server.serve_http(app, listener, token=token, command="posthouse mcp")
