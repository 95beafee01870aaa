"""ZeroMQ sockets on any anyio backend.

Owns their one difficulty: a socket's file descriptor is edge-triggered. It only signals that *something* happened
since the last check, and every send, receive and check of its events consumes that. So: drain, check the events
once more, and only then wait. After a send while another task waits, check (`has_input`) and drain in its place.

Plain pyzmq with NOBLOCK: a receive costs a tenth of an asynchronous wrapper's (docs/design.md).
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

import anyio
import zmq

from .curve import CurveKeys, secure
from .errors import AddressError
from .wire.addresses import address_fault, is_ipv6, without_password

__all__ = [
    "Break",
    "Departure",
    "Gate",
    "GatedPort",
    "Port",
    "allow_ipv6",
    "check_address",
    "connect_command",
    "connect_tap",
]

_LINGER_MILLISECONDS = 1000
"""How long closing waits for frames to leave: enough for the last answers, not for a peer that is gone."""


_BREAKS = int(
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
"""What is heard about connections: how each ended."""

# As plain numbers: combining the enum's members takes longer than a send.
_NOBLOCK, _MORE, _POLLIN = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.POLLIN)


_EVENT = struct.Struct("=HI")
"""The first part of a message about a connection: the event, and its value."""

_REFUSED = 400
"""The status of a peer that may not come in (RFC 27); with another one, the authenticator itself had a problem."""


class Break(Enum):
    """How a connection ended."""

    LOST = "lost"
    """It broke, for a reason that may be gone with the next one."""
    REFUSED = "refused"
    """The worker's authenticator did not let this bot in. ZeroMQ does not try again."""
    UNFINISHED = "unfinished"
    """The other end closed it in the middle of the handshake, without a reason. ZeroMQ tries again."""
    MISMATCHED = "mismatched"
    """One end has keys, and the other one has none."""


class Departure(Protocol):
    """A sent message: `done` is true once the system has all of it, or its connection is gone."""

    @property
    def done(self) -> bool:
        """Whether ZeroMQ has released the message."""


class Port:
    """One socket, used from one thread."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        monitor: Port | None = None,
        *,
        closing: Callable[[], None] | None = None,
    ) -> None:
        self._socket = socket
        self._monitor = monitor
        self._closing = closing
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that watches the descriptor, once it does."""
        self._readable: asyncio.Future[None] | None = None
        self._last: zmq.Frame | None = None
        self._unfinished = False
        """Whether the last connection ended in the middle of its handshake."""

    def __repr__(self) -> str:
        return f"<Port {self._socket!r}>"

    @property
    def address(self) -> str:
        """The address the socket is bound or connected to, with the port that the system chose."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def has_input(self) -> bool:
        """Whether something can be received now."""
        events = self._socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int), "only text options are bytes"
        return bool(events & _POLLIN)

    def receive(self) -> list[bytes] | None:
        """Return the next message's parts, or None if there is no message."""
        try:
            part = self._socket.recv(_NOBLOCK, copy=False)
        except zmq.Again:
            return None
        parts = [part.bytes]
        while part.more:
            part = self._socket.recv(_NOBLOCK, copy=False)
            parts.append(part.bytes)
        self._last = part
        return parts

    @property
    def source(self) -> int | None:
        """The descriptor of the connection that the last message came from; None on inproc."""
        try:
            return None if self._last is None else int(self._last.get(zmq.SRCFD))
        except zmq.ZMQError:
            return None

    @property
    def peer(self) -> str | None:
        """The IP address that the last message came from; None if it came from this machine by other means."""
        try:
            return None if self._last is None else str(self._last.get("Peer-Address")) or None
        except zmq.ZMQError:
            return None

    @property
    def user(self) -> str:
        """Who sent the last message, as the authenticator said when its connection came; "" without one."""
        try:
            return "" if self._last is None else str(self._last.get("User-Id"))
        except zmq.ZMQError:
            return ""

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send a message, as a whole or not at all; return False if the peer is gone or its queue is full."""
        try:
            for part in parts[:-1]:
                self._socket.send(part, _MORE)
            self._socket.send(parts[-1], _NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == errno.EHOSTUNREACH:
                return False
            raise
        return True

    @staticmethod
    def prepare_to_watch() -> None:
        """Let pyzmq open what it needs for `send_watched`: later there may be no descriptor left for it."""
        zmq.Frame(b"", track=True, copy=False)

    def send_watched(self, parts: Sequence[bytes]) -> Departure | None:
        """Send a message like `send`, without copying its last part; return None where `send` returns False."""
        try:
            for part in parts[:-1]:
                self._socket.send(part, _MORE)
            frame = zmq.Frame(parts[-1], track=True, copy=False)
            return self._socket.send(frame, _NOBLOCK, copy=False, track=True)
        except zmq.Again:
            return None
        except zmq.ZMQError as error:
            if error.errno == errno.EHOSTUNREACH:
                return None
            raise

    async def wait(self) -> None:
        """Wait until there may be input. Only one task may wait, and only after `has_input` was False.

        On asyncio the descriptor stays registered from the first wait on. Registering it for each one costs eight
        system calls, a sixth of what the loop does for one publish.
        """
        if self._loop is None:
            self._loop = self._watching_loop()
        if self._loop is None:
            await anyio.wait_readable(self._socket.FD)
            return
        self._readable = self._loop.create_future()
        await self._readable

    def _watching_loop(self) -> asyncio.AbstractEventLoop | None:
        """Register the descriptor; return None where that is not possible, on trio and on Windows."""
        try:
            if asyncio.current_task() is None:  # trio as a guest of asyncio
                return None
            loop = asyncio.get_running_loop()
            loop.add_reader(self._socket.FD, self._on_readable)
        except (RuntimeError, NotImplementedError):
            return None
        return loop

    def _on_readable(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        else:
            self._socket.getsockopt(zmq.EVENTS)  # or the loop calls again at once; who waits next has looked before

    async def wait_broken(self) -> Break:
        """Wait until a connection breaks, or does not come about, of which ZeroMQ would say nothing.

        Never returns on inproc, where no connection breaks, and while nobody listens at the address.
        """
        event, value = await self._next_event()
        if event == zmq.EVENT_DISCONNECTED and self._unfinished:
            event, value = await self._next_event()  # this was the end of a handshake that was told before
        self._unfinished = event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == _REFUSED:
            return Break.REFUSED
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return Break.MISMATCHED
        return Break.UNFINISHED if self._unfinished else Break.LOST

    async def _next_event(self) -> tuple[int, int]:
        assert self._monitor is not None, "only connecting sockets can be disconnected"
        while (parts := self._monitor.receive()) is None:
            if not self._monitor.has_input:
                await self._monitor.wait()
        event, value = _EVENT.unpack(parts[0])
        return event, value

    def subscribe(self, topic: bytes) -> None:
        """Subscribe to a topic of a tap."""
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)

    def close(self, *, linger: bool = False) -> None:
        """Close the socket; with `linger`, sent frames may still leave."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._socket.FD)
        if self._closing is not None:
            self._closing()
        self._socket.close(_LINGER_MILLISECONDS if linger else 0)


class Gate:
    """Whether some ports may send."""

    def __init__(self) -> None:
        self.is_shut: Callable[[], bool] = lambda: False

    def __repr__(self) -> str:
        return f"<Gate {'shut' if self.is_shut() else 'open'}>"


class _Dropped:
    """A message that has not been sent, and never will be."""

    done = True


class GatedPort(Port):
    """A port that drops what is sent while its gate is shut: for its peers, that was lost with the connection."""

    def __init__(self, socket: zmq.Socket[bytes], gate: Gate, *, closing: Callable[[], None] | None = None) -> None:
        super().__init__(socket, closing=closing)
        self._gate = gate

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send a message as `Port` does, or drop it."""
        return self._gate.is_shut() or super().send(parts)

    def send_watched(self, parts: Sequence[bytes]) -> Departure | None:
        """Send a message as `Port` does, or drop it."""
        return _Dropped() if self._gate.is_shut() else super().send_watched(parts)


def allow_ipv6(socket: zmq.Socket[bytes], address: str) -> None:
    """Enable IPv6 if the address is an IPv6 one. Host names are still resolved as IPv4."""
    if is_ipv6(address):
        socket.setsockopt(zmq.IPV6, 1)


def check_address(address: str) -> None:
    """Raise AddressError for an address that cannot be connected to."""
    fault = address_fault(address)
    if fault is not None:
        raise AddressError(without_password(address), fault)


def connect_command(context: zmq.Context[zmq.Socket[bytes]], address: str, keys: CurveKeys | None = None) -> Port:
    """Connect a DEALER to a worker, which may not be running yet. Raises AddressError for an invalid address.

    With `keys`, only to the worker that has its key.
    """
    check_address(address)
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    allow_ipv6(socket, address)
    if keys is not None:
        secure(socket, keys)
    port = Port(socket, Port(socket.get_monitor_socket(_BREAKS)))
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        port.close()
        raise AddressError(address, error.strerror or str(error)) from error
    return port


def connect_tap(
    context: zmq.Context[zmq.Socket[bytes]], addresses: Sequence[str], keys: CurveKeys | None = None
) -> Port:
    """Connect a SUB to taps. Raises AddressError for an invalid address.

    With `keys`, only to workers that have their key.
    """
    for address in addresses:
        check_address(address)
    socket = context.socket(zmq.SUB)
    if keys is not None:
        secure(socket, keys)
    for address in addresses:
        allow_ipv6(socket, address)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            socket.close(0)
            raise AddressError(address, error.strerror or str(error)) from error
    return Port(socket)
