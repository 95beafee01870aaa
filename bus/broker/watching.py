"""When connections to the command socket open and break, as libzmq reports it.

Owns the socket's monitor. The event that a connection opened can be read before any of its frames. The event that
it broke can be read before or after its last frames, which `connections` takes into account.
"""

from __future__ import annotations

import struct
import sys

import structlog
import zmq

from ..transport import Port
from .connections import Connections

__all__ = ["ConnectionWatch"]

_EVENT = struct.Struct("=HI")
"""An event's number and its value, here a descriptor."""

_OPENED, _CLOSED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)


_log = structlog.get_logger("posthouse")


class ConnectionWatch:
    """Watches a socket from before it is bound. `hear` tells `connections` what has happened."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], waiting_frames_max: int
    ) -> None:
        self.connections = Connections(waiting_frames_max)
        self._watched = socket
        address = f"inproc://posthouse-connections-{id(socket):x}"
        socket.monitor(address, _OPENED | _CLOSED)
        events = context.socket(zmq.PAIR)
        events.setsockopt(zmq.RCVHWM, 0)  # libzmq's I/O thread blocks while this queue is full
        events.connect(address)
        self._events = Port(events)

    def __repr__(self) -> str:
        return f"<ConnectionWatch {self.connections!r}>"

    @property
    def has_input(self) -> bool:
        """Whether there are events to hear."""
        return self._events.has_input

    async def wait(self) -> None:
        """Wait until there may be events."""
        await self._events.wait()

    def hear(self, now: float) -> None:
        """Handle all events up to now."""
        while (event := self._events.receive()) is not None:
            kind, descriptor = _EVENT.unpack(event[0])
            if kind == _OPENED:
                self.connections.opened(descriptor, now)
            elif kind == _CLOSED:
                self.connections.closed(descriptor)

    def look(self, now: float) -> None:
        """Log what operators should know of the connections."""
        for notice in self.connections.look(now, _descriptors_max()):
            _log.warning(notice.event, **notice.fields)

    def close(self) -> None:
        """Stop watching, before the socket is closed."""
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._events.close()


def _descriptors_max() -> int:
    import resource  # which Windows lacks: bots run there, too

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
