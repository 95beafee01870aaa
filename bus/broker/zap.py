"""The handler of ZeroMQ's authentication requests (RFC 27, ZAP), which libzmq sends for each TCP and ipc handshake.

With a handler, libzmq also refuses peers that speak an older protocol than ZMTP 3, which cannot be authenticated.
What is not answered does not come in: a request that cannot be decided is refused, and while nothing serves the
handler, connections wait until libzmq drops them.

A ZeroMQ context has one handler, so a worker that listens at TCP or ipc needs a context of its own. inproc sockets
are not authenticated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio
import structlog
import zmq

from ..errors import BindError
from ..transport import Port
from .admitting import Door, ZapVerdict, admit

__all__ = ["ZapHandler"]

_ADDRESS = "inproc://zeromq.zap.01"

_REQUESTS_A_TURN = 100
"""Requests answered before other tasks get a turn."""

_log = structlog.get_logger("posthouse")


class ZapHandler:
    """Answers the requests of a context's sockets; `doors` has each socket's domain, and `wall` tells the time."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        doors: Mapping[bytes, Door],
        wall: Callable[[], str],
    ) -> None:
        """Bind it, before any of these sockets. Raise BindError if the context has a handler."""
        self.doors = dict(doors)
        self._wall = wall
        self._socket = context.socket(zmq.ROUTER)
        try:
            self._socket.bind(_ADDRESS)
        except zmq.ZMQError as error:
            self._socket.close(0)
            hint = "give each worker that listens at TCP or ipc a context of its own"
            raise BindError(_ADDRESS, "this context has an authenticator", in_use=False, hint=hint) from error
        self._port = Port(self._socket)

    def __repr__(self) -> str:
        return f"<ZapHandler {sorted(self.doors)}>"

    async def serve(self, refused: Callable[[ZapVerdict], None]) -> None:
        """Answer requests until cancelled; `refused` is called with each refusal."""
        while True:
            self._answer_waiting(refused)
            if not self._port.has_input:
                await self._port.wait()
            await anyio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close it, after the sockets that it answers for. The context may have another one at once."""
        self._socket.unbind(_ADDRESS)
        self._port.close()

    def _answer_waiting(self, refused: Callable[[ZapVerdict], None]) -> None:
        for _ in range(_REQUESTS_A_TURN):
            parts = self._port.receive()
            if parts is None:
                return
            if b"" in parts:
                at = parts.index(b"") + 1
                decided = self._decide(parts[at:])
                self._port.send([*parts[:at], *decided.parts])
                if decided.reason:
                    refused(decided)

    def _decide(self, request: Sequence[bytes]) -> ZapVerdict:
        try:
            return admit(request, self.doors, self._wall())
        except Exception:
            _log.exception("authentication_failed")
            number = request[1] if len(request) > 1 else b""
            return ZapVerdict(number, "", "the worker could not decide", refusal=b"500")
