"""The page as a whole: its routes, and the server that answers them.

Owns the server's bounds, and the order of its end: pages that are kept up to date end first, then the server, then
the connections to the worker.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from ..bot import Bot
from ..errors import BindError
from . import api, directory, entrance, letters, mailboxes, now, removing, runs, talk, upkeep
from .api_shapes import Problem, encoded
from .connection import IDLE_SECONDS, TimedConnection
from .guard import API, Guard
from .site import Website
from .tickets import Tickets, Token
from .upstream import Upstream, Upstreams

__all__ = ["bound", "serving"]

_CONNECTIONS_MAX = 500
"""Further ones are answered with 503: each takes a descriptor, and live pages stay open."""

_END_SECONDS = 3
_HEAD_BYTES_MAX = 32_768

_PAGES = (now, directory, talk, mailboxes, letters, removing, runs, upkeep)

_log = logging.getLogger("posthouse.web")


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Raise BindError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise BindError(f"{host}:{port}", reason, in_use=error.errno == errno.EADDRINUSE) from error
    return listener


@asynccontextmanager
async def serving(
    listener: socket.socket,
    tickets: Tickets,
    origins: Sequence[str],
    *,
    own: Callable[[], Bot],
    of_token: Callable[[Token], Bot],
) -> AsyncIterator[None]:
    """Serve the page within a block, with bots that these functions make."""
    async with anyio.create_task_group() as tasks:
        upstream = Upstream(own)
        site = Website(tickets, upstream, Upstreams(of_token, tasks), origins)
        for run in (upstream.run, site.samples.run, site.feed.run, site.upstreams.run):
            tasks.start_soon(run)
        server = _server(site)
        async with anyio.create_task_group() as answering:
            answering.start_soon(server.serve, [listener])
            try:
                yield
            finally:
                site.stopping.set()
                server.should_exit = True
        tasks.cancel_scope.cancel()


def _server(site: Website) -> _Server:
    return _Server(
        uvicorn.Config(
            Guard(_application(site), site.origins),
            access_log=False,  # addresses have the secrets of links
            log_config=None,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            http=TimedConnection,  # which bounds heads; what else is installed would be chosen before it
            ws="none",
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
        )
    )


def _application(site: Website) -> Starlette:
    app = Starlette(
        routes=[*entrance.ROUTES, *api.ROUTES, *(route for pages in _PAGES for route in pages.ROUTES)],
        exception_handlers={HTTPException: _refused, ClientDisconnect: _left, Exception: _failed},
    )
    app.state.site = site
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith(API):
        code = "not_found" if error.status_code == 404 else "bad_request"
        problem = Problem(code=code, message=f"{error.detail}: {API}openapi.json describes all requests")
        return Response(encoded(problem), error.status_code, error.headers, "application/json")
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the client has gone in the middle of its request: nobody reads this


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return PlainTextResponse("this failed: the log of posthouse web says why\n", 500)
