"""An ASGI application at a socket, for those who have a token: what `posthouse mcp` and `posthouse a2a` serve.

Owns what HTTP has to pass before it reaches the application: the token.
"""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["serve_http"]


async def serve_http(
    app: ASGIApp,
    listener: socket.socket,
    *,
    token: str,
    command: str,
    public: Collection[str] = (),
    end_streams: Callable[[], None] | None = None,
) -> None:
    """Serve an application until cancelled. Only the paths `public` are for those without the token.

    `command` is whose token it is, for those who have none. `end_streams` lets responses end that have no end.
    """
    http = _Server(
        uvicorn.Config(
            _WithToken(app, token, command, public),
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
            if end_streams is not None:
                end_streams()


class _Server(uvicorn.Server):
    """A server that leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _WithToken:
    """The middleware that lets in who has the token."""

    def __init__(self, app: ASGIApp, token: str, command: str, public: Collection[str]) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._command = command
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request without the token, or pass it on."""
        if scope["type"] == "http" and scope["path"] not in self._public:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                await _refuse(send, self._command)
                return
        await self._app(scope, receive, send)


async def _refuse(send: Send, command: str) -> None:
    fault = {"error": f"this needs the header 'Authorization: Bearer TOKEN', with the token of {command}"}
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(fault).encode()})
