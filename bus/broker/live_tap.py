"""The tap's socket, which is closed and bound anew when its listeners ask for too much, or one has to go.

ZeroMQ keeps what each listener subscribed to, in some fifty times the bytes, as long as the socket exists; and it
does not say which connection subscribed, so none can be refused. Closing the socket is what releases that memory.
Listeners reconnect by themselves, and miss what the tap copied meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio
import anyio.lowlevel
import structlog

from ..errors import BindError
from ..transport import Port

__all__ = ["LiveTap"]

_MESSAGES_A_TURN = 500
"""What is heard before other tasks get a turn."""

_PAUSE_SECONDS = 1.0
"""How long the tap stays closed: whoever asks for too much again, makes the worker work once in this time."""

_LISTENS, _LEAVES = b"\x01", b"\x00"
"""How ZeroMQ marks a subscription to a topic, and its end."""

_log = structlog.get_logger("posthouse")


class LiveTap:
    """See the module. `bind` binds the socket again, at the same address."""

    def __init__(self, port: Port, bind: Callable[[], Port]) -> None:
        self.address = port.address
        self._port: Port | None = port
        self._bind = bind
        self._open: anyio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<LiveTap {self.address} {'closed' if self._port is None else 'open'}>"

    def send(self, topic: bytes, frame: bytes) -> None:
        """Send a live copy to the listeners, if the tap is open."""
        if self._port is not None:
            self._port.send((topic, frame))

    def hear(self) -> Iterator[tuple[bytes, bool]]:
        """Yield topics that got a listener (True) or lost one; ignore anything else that a listener sends."""
        for _ in range(_MESSAGES_A_TURN):
            parts = None if self._port is None else self._port.receive()
            if parts is None:
                return
            kind, topic = parts[0][:1], parts[0][1:]
            if kind in (_LISTENS, _LEAVES):
                yield topic, kind == _LISTENS

    async def run(self, listen: Callable[[], None]) -> None:
        """Call `listen` when there may be something to hear, until cancelled."""
        while True:
            with anyio.CancelScope() as self._open:
                while self._port is not None:
                    listen()
                    if self._port is not None and not self._port.has_input:
                        await self._port.wait()
                    await anyio.lowlevel.checkpoint()
            while self._port is None:
                await anyio.sleep(_PAUSE_SECONDS)
                self._renew()

    def open(self) -> None:
        """Bind the socket again, if it was closed; `run` tries again if that fails."""
        if self._port is None:
            self._renew()

    def empty(self, reason: str) -> None:
        """Close the socket, and forget all listeners; it is bound again after a pause."""
        _log.warning("tap_closed", reason=reason, seconds=_PAUSE_SECONDS)
        self.close()
        if self._open is not None:
            self._open.cancel()

    def close(self) -> None:
        """Close the socket."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def _renew(self) -> None:
        try:
            self._port = self._bind()
        except BindError as error:  # the socket was not closed yet, or somebody took the address
            _log.warning("tap_not_bound", error=str(error))
