"""The worker's two sockets: the ROUTER for commands and the XPUB for the tap.

Owns how they are bound, how large their frames and queues may become, and how a vanished peer is noticed.
"""

from __future__ import annotations

import errno

import zmq

from ..errors import BindError
from ..settings import Settings
from ..transport import Port, allow_ipv6
from .unix_socket import UnixListener

__all__ = ["bind_command", "bind_tap"]

_OVERSIZE_FACTOR = 4
"""A frame up to this many times the limit is read and answered; ZeroMQ drops the connection beyond it."""

_TOPIC_BYTES_MAX = 1024
"""What a tap's listener may send: a subscription is a byte and a topic, which has a channel's name in it."""

_BACKLOG = 4096
"""Connections that may wait to be accepted: thousands of bots come at once when their worker was started again. The
system allows no more than net.core.somaxconn; one beyond that waits for its next attempt, seconds later."""


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
    return Port(socket, closing=None if listener is None else listener.remove)


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
