"""The HTTP server of `listen.metrics`: /metrics, /healthz and /readyz, on the worker's own loop.

Owns the requests and their bounds. That the loop answers at all is what /healthz tells.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import h11
import structlog
from anyio.abc import SocketAttribute

from ..errors import BindError, StoreError
from .broker import Broker
from .metrics import metrics_of, unready

__all__ = ["HealthServer", "open_health_server"]

_CONNECTIONS_MAX = 32
"""Some scrapers and probes: each takes a descriptor from the bots. Beyond that, the one that has asked nothing
for the longest is closed, so that nobody keeps the probes out by connecting."""

_PAUSE_SECONDS = 1.0
"""After a connection that could not be accepted."""

_IDLE_SECONDS = 75.0
"""Longer than the usual interval between two scrapes of one connection."""

_READ_BYTES = 16_384

_log = structlog.get_logger("posthouse")

_PLAIN = "text/plain; charset=utf-8"

_PAGES = "/metrics, /healthz and /readyz"


class HealthServer:
    """Serves at one address. `broker` is the one that it tells of, once that serves."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.broker: Broker | None = None
        self.instead = "starting: the worker does not serve yet"
        """What the worker does without a broker."""
        self._connections = 0
        self._waiting: dict[anyio.CancelScope, None] = {}
        """The connections whose next request has not come, the one that has waited the longest first."""

    def __repr__(self) -> str:
        return f"<HealthServer {self.address}>"

    async def accept(self, listener: anyio.abc.SocketListener, tasks: anyio.abc.TaskGroup) -> None:
        """Serve who connects, until cancelled."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:  # no descriptor is left
                _log.warning("metrics_not_accepted", error=str(error))
                await anyio.sleep(_PAUSE_SECONDS)
            else:
                tasks.start_soon(self._serve, stream)

    async def _serve(self, stream: anyio.abc.ByteStream) -> None:
        async with stream:
            if self._connections >= _CONNECTIONS_MAX:
                if not self._waiting:
                    return
                self._hang_up(next(iter(self._waiting)))
            self._connections += 1
            try:
                await self._converse(stream, h11.Connection(h11.SERVER))
            except (anyio.BrokenResourceError, anyio.EndOfStream, h11.RemoteProtocolError):
                pass  # it has gone, or speaks no HTTP
            finally:
                self._connections -= 1

    def _hang_up(self, waiting: anyio.CancelScope) -> None:
        del self._waiting[waiting]
        waiting.cancel()

    async def _converse(self, stream: anyio.abc.ByteStream, connection: h11.Connection) -> None:
        while True:
            with anyio.move_on_after(_IDLE_SECONDS) as limit:
                if (request := await self._request(stream, connection)) is None:
                    return
                await self._answer(stream, connection, request)
            if limit.cancelled_caught or {connection.our_state, connection.their_state} != {h11.DONE}:
                return
            connection.start_next_cycle()

    async def _request(self, stream: anyio.abc.ByteStream, connection: h11.Connection) -> h11.Request | None:
        """Return the next request, or None if this connection has to go before it came."""
        request: h11.Request | None = None
        with anyio.CancelScope() as waiting:
            self._waiting[waiting] = None
            try:
                while True:
                    event = connection.next_event()
                    if event is h11.NEED_DATA:
                        connection.receive_data(await stream.receive(_READ_BYTES))
                    elif isinstance(event, h11.Request):
                        request = event
                    elif isinstance(event, h11.EndOfMessage):
                        return request
                    elif isinstance(event, h11.ConnectionClosed):
                        raise anyio.EndOfStream
            finally:
                self._waiting.pop(waiting, None)
        return None

    async def _answer(self, stream: anyio.abc.ByteStream, connection: h11.Connection, request: h11.Request) -> None:
        status, body, media_type = await self._page(request)
        headers = [
            ("content-type", media_type),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ]
        if status == 405:
            headers.append(("allow", "GET, HEAD"))
        sent = connection.send(h11.Response(status_code=status, headers=headers)) or b""
        if request.method != b"HEAD":
            sent += connection.send(h11.Data(data=body)) or b""
        await stream.send(sent + (connection.send(h11.EndOfMessage()) or b""))

    async def _page(self, request: h11.Request) -> tuple[int, bytes, str]:
        if request.method not in (b"GET", b"HEAD"):
            return 405, b"only GET and HEAD\n", _PLAIN
        match request.target.partition(b"?")[0]:
            case b"/healthz":
                return 200, b"alive\n", _PLAIN
            case b"/readyz":
                faults = [self.instead] if self.broker is None else unready(self.broker)
                if faults or self.broker is None:
                    return 503, _lines(faults), _PLAIN
                return 200, _lines(["ready", *(f"degraded: {each}" for each in self.broker.degraded)]), _PLAIN
            case b"/metrics":
                accept = next((value for name, value in request.headers if name == b"accept"), b"")
                try:
                    return 200, *(await metrics_of(self.broker, accept.decode("latin-1")))
                except StoreError as error:  # of which its writer makes more
                    _log.warning("metrics_failed", error=str(error))
                    return 503, _lines([str(error)]), _PLAIN
                except Exception:
                    _log.exception("metrics_failed")
                    return 500, b"no metrics; see the worker's log\n", _PLAIN
        return 404, f"there are {_PAGES}\n".encode(), _PLAIN


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@asynccontextmanager
async def open_health_server(address: str) -> AsyncIterator[HealthServer]:
    """Serve at an address as of `listen.metrics`. Raise BindError if that is impossible."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    host = host.strip("[]")
    try:
        listener = await anyio.create_tcp_listener(
            local_host=None if host == "*" else host, local_port=0 if port == "*" else int(port)
        )
    except OSError as error:
        raise BindError(address, error.strerror or str(error), in_use=error.errno == errno.EADDRINUSE) from error
    bound = listener.extra(SocketAttribute.local_port)
    server = HealthServer(f"{address.rpartition(':')[0]}:{bound}")
    async with listener, anyio.create_task_group() as tasks:
        for each in listener.listeners:
            assert isinstance(each, anyio.abc.SocketListener)  # which has accept
            tasks.start_soon(server.accept, each, tasks)
        yield server
        tasks.cancel_scope.cancel()
