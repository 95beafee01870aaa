"""The worker's two sockets: the ROUTER for commands and the XPUB for the tap.

Owns how they are bound, the limits of their frames and queues, and how a vanished peer is noticed.
"""

from __future__ import annotations

import errno
from functools import partial

import zmq

from ..errors import BindError
from ..settings import Settings
from ..transport import Port, allow_ipv6
from .unix_socket import UnixListener

__all__ = ["bind_command", "bind_tap"]

_OVERSIZE_FACTOR = 4
"""A frame up to this many times the limit is read and answered; beyond it ZeroMQ drops the connection."""

_TOPIC_BYTES_MAX = 160
"""Size limit of what a tap's listener sends: `SUBSCRIBE`, and a topic with the longest name of a channel."""

_TOPICS_WAITING_MAX = 16
"""What may wait of one listener before it is heard: the limit on topics is exceeded by no more."""

_BACKLOG = 4096
"""Connections that may wait to be accepted: thousands of bots connect at once after their worker was restarted. The
system limits this to net.core.somaxconn; further connections wait for their next attempt, seconds later."""


def _watch_peer(socket: zmq.Socket[bytes], timeout_seconds: float) -> None:
    """Detect a connection whose other end vanished silently.

    By TCP keepalive, and not by ZeroMQ's heartbeats: with these, libzmq 4.3 aborts the whole process when a
    connection breaks whose input it was holding back (libzmq issues 3937, 4364 and 4767).
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
    """Bind the ROUTER to which every bot connects."""
    socket = context.socket(zmq.ROUTER)
    limits = settings.limits
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, limits.socket_frames_max)
    socket.setsockopt(zmq.RCVHWM, limits.receive_frames_max)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.frame_bytes_max * _OVERSIZE_FACTOR)
    _watch_peer(socket, settings.delivery.session_timeout_seconds)
    return _bind(socket, settings.listen.command)


def bind_tap(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> Port:
    """Bind the XPUB that copies channels to listeners."""
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.MAXMSGSIZE, _TOPIC_BYTES_MAX)
    socket.setsockopt(zmq.RCVHWM, _TOPICS_WAITING_MAX)
    socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # report every listener of a topic, not only the first and the last
    return _bind(socket, settings.listen.tap)


def _bind(socket: zmq.Socket[bytes], address: str) -> Port:
    listener = None
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    allow_ipv6(socket, address)
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
    closing = None if listener is None else listener.remove
    if address.startswith("inproc://"):  # closing alone frees its name only when ZeroMQ's thread comes to it
        closing = partial(socket.unbind, address)
    return Port(socket, closing=closing)


def _bind_error(address: str, error: zmq.ZMQError) -> BindError:
    match error.errno:
        case errno.EADDRINUSE:
            return BindError(address, "another program is listening there", in_use=True)
        case errno.EACCES:
            return BindError(
                address, "not permitted", in_use=False, hint="ports below 1024 are reserved for root; use another"
            )
        case errno.ENODEV | errno.EADDRNOTAVAIL:
            hint = "listen at an address of this machine, for instance tcp://127.0.0.1:7710"
            return BindError(address, "this machine has no such address", in_use=False, hint=hint)
    return BindError(address, error.strerror or str(error), in_use=False)
