"""ZeroMQ sockets on any anyio backend.

Owns the one difficult thing about them: a socket's file descriptor only tells that *something* happened since
one last looked, and every send, receive and look at its events uses that up. So: drain, and where there is
nothing more, look at the events once again, and only then wait. Whoever sends while another task waits must
look (`has_input`) and drain in its place.

Plain pyzmq with NOBLOCK: a receive costs a tenth of what an asynchronous wrapper takes (docs/design.md).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import anyio
import zmq

from .addresses import address_fault, without_password
from .errors import AddressError, BindError
from .listening import is_ipv6
from .settings import Settings
from .unix_socket import UnixListener

__all__ = ["Port", "bind_command", "bind_tap", "connect_command", "connect_tap"]

_OVERSIZE_FACTOR = 4
"""A frame up to this many times the limit is read and answered; ZeroMQ drops the connection beyond it."""

_TOPIC_BYTES_MAX = 1024
"""What a tap's listener may send: a subscription is a byte and a topic, which has a channel's name in it."""

_LINGER_MILLISECONDS = 1000
"""How long closing waits for frames to leave: enough for the last answers, not for a peer that is gone."""


_BACKLOG = 4096
"""Connections that may wait to be accepted: thousands of bots come at once when their worker was started again. The
system allows no more than net.core.somaxconn; one beyond that waits for its next attempt, seconds later."""


# As plain numbers: to combine the enum's members takes longer than to send.
_NOBLOCK, _MORE, _POLLIN = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.POLLIN)


class Port:
    """One socket, used from one thread."""

    def __init__(
        self, socket: zmq.Socket[bytes], monitor: Port | None = None, listener: UnixListener | None = None
    ) -> None:
        self._socket = socket
        self._monitor = monitor
        self._listener = listener

    def __repr__(self) -> str:
        return f"<Port {self._socket!r}>"

    @property
    def address(self) -> str:
        """Where the socket is bound or connected, with the port that the system chose."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def has_input(self) -> bool:
        """Whether something can be received now."""
        events = self._socket.getsockopt(zmq.EVENTS)
        assert isinstance(events, int), "only options that are texts are bytes"
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
        return parts

    def send(self, parts: Sequence[bytes]) -> bool:
        """Send a message, or nothing of it: False where the peer is gone or its queue is full."""
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

    async def wait(self) -> None:
        """Wait until there may be input. Only one task may wait, and only after `has_input` was false."""
        await anyio.wait_readable(self._socket.FD)

    async def wait_disconnected(self) -> None:
        """Wait until an established connection breaks, which ZeroMQ would mend without a word.

        Never returns on inproc, where no connection breaks.
        """
        assert self._monitor is not None, "only what connects can be disconnected"
        while not self._monitor.has_input:
            await self._monitor.wait()

    def subscribe(self, topic: bytes) -> None:
        """Ask a tap for a topic."""
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)

    def close(self, *, linger: bool = False) -> None:
        """Close the socket; with `linger` what was sent may still leave."""
        if self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close()
        if self._listener is not None:
            self._listener.remove()
        self._socket.close(_LINGER_MILLISECONDS if linger else 0)


def _bind(socket: zmq.Socket[bytes], address: str) -> Port:
    listener = None
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    _allow_ipv6(socket, address)
    try:
        if address.startswith("ipc://"):
            listener = UnixListener(address, _BACKLOG)
            socket.setsockopt(zmq.USE_FD, listener.detach())
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close(0)
        if listener is not None:
            listener.remove()
        raise _bind_error(address, error) from error
    except BindError:
        socket.close(0)
        raise
    return Port(socket, listener=listener)


def _bind_error(address: str, error: zmq.ZMQError) -> BindError:
    match error.errno:
        case errno.EADDRINUSE:
            return BindError(address, "another program listens there", in_use=True)
        case errno.EACCES:
            return BindError(
                address, "not permitted", in_use=False, hint="ports below 1024 are for root; take another"
            )
        case errno.ENODEV | errno.EADDRNOTAVAIL:
            hint = "listen at an address of this machine, tcp://127.0.0.1:7710 for instance"
            return BindError(address, "this machine has no such address", in_use=False, hint=hint)
    return BindError(address, error.strerror or str(error), in_use=False)


def _allow_ipv6(socket: zmq.Socket[bytes], address: str) -> None:
    """Let a socket speak IPv6 where its address is one. A name is looked up as IPv4, as it always was."""
    if is_ipv6(address):
        socket.setsockopt(zmq.IPV6, 1)


def _watch_peer(socket: zmq.Socket[bytes], timeout_seconds: float) -> None:
    """Notice a connection whose other end vanished without a word.

    By TCP, and not by ZeroMQ's own heartbeats: with these, libzmq 4.3 ends the whole process when a connection
    breaks whose input it was holding back (libzmq issues 3937, 4364 and 4767).
    """
    third = max(1, int(timeout_seconds / 3))
    for option, value in (
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, third),
        (zmq.TCP_KEEPALIVE_INTVL, third),
        (zmq.TCP_KEEPALIVE_CNT, 2),
    ):
        socket.setsockopt(option, value)


def bind_command(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> Port:
    """Bind the ROUTER that every bot speaks to."""
    socket = context.socket(zmq.ROUTER)
    limits = settings.limits
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, limits.socket_frames_max)
    socket.setsockopt(zmq.RCVHWM, limits.receive_frames_max)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.frame_bytes_max * _OVERSIZE_FACTOR)
    _watch_peer(socket, settings.delivery.session_timeout_seconds)
    return _bind(socket, settings.listen.command)


def bind_tap(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> Port:
    """Bind the XPUB that copies channels to whoever listens."""
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.MAXMSGSIZE, _TOPIC_BYTES_MAX)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # who listens to a topic beside others is told of, too
    return _bind(socket, settings.listen.tap)


def _check(address: str) -> None:
    fault = address_fault(address)
    if fault is not None:
        raise AddressError(without_password(address), fault)


def connect_command(context: zmq.Context[zmq.Socket[bytes]], address: str) -> Port:
    """Connect a DEALER to a worker, which may not be there yet; raises AddressError where none can be."""
    _check(address)
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    _allow_ipv6(socket, address)
    port = Port(socket, Port(socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)))
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        port.close()
        raise AddressError(address, error.strerror or str(error)) from error
    return port


def connect_tap(context: zmq.Context[zmq.Socket[bytes]], address: str) -> Port:
    """Connect a SUB to a worker's tap; raises AddressError where none can be."""
    _check(address)
    socket = context.socket(zmq.SUB)
    _allow_ipv6(socket, address)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close(0)
        raise AddressError(address, error.strerror or str(error)) from error
    return Port(socket)
