"""The worker's two sockets: the ROUTER for commands and the XPUB for the tap.

Owns how they are bound, the limits of their frames and queues, who may connect, and how a vanished peer is noticed.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import msgspec
import zmq

from ..core.keyring import Keyring
from ..errors import BindError
from ..settings import Settings
from ..transport import Gate, GatedPort, Port, allow_ipv6
from .admitting import AnyKey, Door, KeyDoor, origin_of
from .live_tap import LiveTap
from .unix_socket import UnixListener
from .watching import ConnectionWatch
from .zap import ZapHandler

__all__ = ["Keyed", "Sockets", "bind_tap", "open_sockets"]

_COMMAND_DOMAIN, _TAP_DOMAIN = b"posthouse.command", b"posthouse.tap"
"""By which the authenticator tells the sockets apart."""

_OVERSIZE_BYTES = 16 * 1024
"""A frame that exceeds the limit by up to this much is read and answered; beyond it ZeroMQ drops the connection. It
is little, because ZeroMQ takes frames of that size from every peer, even before the peer has come in.
"""

_TOPIC_BYTES_MAX = 160
"""Size limit of what a tap's listener sends: `SUBSCRIBE`, and a topic with the longest name of a channel."""

_HANDSHAKE_BYTES_MAX = 1024
"""The same with keys: the largest command of a handshake with keys has some 300 bytes."""

_TOPICS_WAITING_MAX = 16
"""What may wait of one listener before it is heard: the limit on topics is exceeded by no more."""

_BACKLOG = 4096
"""Connections that may wait to be accepted: thousands of bots connect at once after their worker was restarted. The
system limits this to net.core.somaxconn; further connections wait for their next attempt, seconds later."""


class Keyed(NamedTuple):
    """What sockets with keys need: the worker's secret, all keys, and the wall clock by which they expire."""

    secret: bytes
    keyring: Keyring | None
    """None for a worker that stands by, and has not read any key."""
    wall: Callable[[], str]

    def __repr__(self) -> str:
        return f"<Keyed {self.keyring!r}>"


class Sockets:
    """Both sockets, and the authenticator of those who connect to them."""

    def __init__(
        self,
        command: Port,
        tap: LiveTap,
        watch: ConnectionWatch,
        *,
        zap: ZapHandler | None,
        keyed: Keyed | None,
        gate: Gate,
    ) -> None:
        self.command = command
        self.tap = tap
        self.watch = watch
        self.zap = zap
        """None if both are inproc sockets, which are not authenticated."""
        self.gate = gate
        """Is asked before anything is sent, if the worker is one of several."""
        self._keyed = keyed

    def __repr__(self) -> str:
        return f"<Sockets {self.command!r} {self.tap!r}>"

    def serve(self, keyring: Keyring | None) -> None:
        """Let in who has one of these keys, or anybody without keys; and listeners of the tap."""
        self._admit(keyring)
        self.tap.open()

    def stand_by(self) -> None:
        """Let anybody in who may hear which worker serves; at the tap nobody, and those who listen have to go."""
        self._admit(None)
        self.tap.close()

    def _admit(self, keyring: Keyring | None) -> None:
        if self.zap is not None and self._keyed is not None:
            self.zap.doors = _doors(self._keyed._replace(keyring=keyring))

    def close(self, *, linger: bool = False) -> None:
        """Close them; with `linger`, sent answers may still leave."""
        self.watch.close()
        self.command.close(linger=linger)
        self.tap.close()
        if self.zap is not None:
            self.zap.close()


def open_sockets(
    context: zmq.Context[zmq.Socket[bytes]],
    settings: Settings,
    keyed: Keyed | None = None,
    *,
    gate: Gate | None = None,
) -> Sockets:
    """Bind both sockets. Raise BindError if one cannot be bound, or if the context has an authenticator.

    With a `gate`, nothing is sent while it is shut.
    """
    listen = settings.listen
    if settings.security.has_keys and keyed is None:
        raise ValueError("a worker with keys does not listen without them")
    with ExitStack() as opened:
        zap = None
        if keyed is not None:
            zap = ZapHandler(context, _doors(keyed), keyed.wall)
            opened.callback(zap.close)
        elif not (listen.command.startswith("inproc://") and listen.tap.startswith("inproc://")):
            origins = {_COMMAND_DOMAIN: origin_of(listen.command), _TAP_DOMAIN: origin_of(listen.tap)}
            zap = ZapHandler(context, origins, lambda: "")  # nothing expires where there are no keys
            opened.callback(zap.close)
        router = _command_socket(context, settings)
        _secure(router, keyed)
        watch = ConnectionWatch(context, router, settings.limits.receive_frames_max)
        opened.callback(watch.close)
        command = _bind(router, listen.command, _COMMAND_DOMAIN, gate)
        command.prepare_to_watch()
        opened.callback(command.close)
        tap = _live_tap(context, settings, keyed, gate)
        opened.pop_all()
    return Sockets(command, tap, watch, zap=zap, keyed=keyed, gate=gate or Gate())


def _doors(keyed: Keyed) -> dict[bytes, Door]:
    if keyed.keyring is None:
        return {_COMMAND_DOMAIN: AnyKey()}
    return {
        _COMMAND_DOMAIN: KeyDoor(keyed.keyring, is_tap=False),
        _TAP_DOMAIN: KeyDoor(keyed.keyring, is_tap=True),
    }


def _secure(socket: zmq.Socket[bytes], keyed: Keyed | None) -> None:
    """Let a socket that is not bound yet take only peers with a key, encrypted, and prove that it is the worker."""
    if keyed is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keyed.secret)


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


def _seed() -> None:
    """Seed the C library's generator with secret bytes, which libzmq does not do."""
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


def _command_socket(context: zmq.Context[zmq.Socket[bytes]], settings: Settings) -> zmq.Socket[bytes]:
    """Return the ROUTER to which every bot connects, which is not bound yet."""
    _seed()
    socket = context.socket(zmq.ROUTER)
    limits = settings.limits
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, limits.socket_frames_max)
    socket.setsockopt(zmq.RCVHWM, limits.receive_frames_max)
    socket.setsockopt(zmq.MAXMSGSIZE, limits.frame_bytes_max + _OVERSIZE_BYTES)
    _watch_peer(socket, settings.delivery.session_timeout_seconds)
    return socket


def bind_tap(
    context: zmq.Context[zmq.Socket[bytes]],
    settings: Settings,
    keyed: Keyed | None = None,
    gate: Gate | None = None,
) -> Port:
    """Bind the XPUB that copies channels to listeners."""
    socket = context.socket(zmq.XPUB)
    _secure(socket, keyed)
    socket.setsockopt(zmq.MAXMSGSIZE, _TOPIC_BYTES_MAX if keyed is None else _HANDSHAKE_BYTES_MAX)
    socket.setsockopt(zmq.RCVHWM, _TOPICS_WAITING_MAX)
    socket.setsockopt(zmq.XPUB_VERBOSER, 1)  # report every listener of a topic, not only the first and the last
    return _bind(socket, settings.listen.tap, _TAP_DOMAIN, gate)


def _live_tap(
    context: zmq.Context[zmq.Socket[bytes]], settings: Settings, keyed: Keyed | None, gate: Gate | None
) -> LiveTap:
    port = bind_tap(context, settings, keyed, gate)
    listen = msgspec.structs.replace(settings.listen, tap=port.address)  # with the port that the system chose
    return LiveTap(port, partial(bind_tap, context, msgspec.structs.replace(settings, listen=listen), keyed, gate))


def _bind(socket: zmq.Socket[bytes], address: str, domain: bytes, gate: Gate | None) -> Port:
    listener = None
    socket.setsockopt(zmq.BACKLOG, _BACKLOG)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler nobody comes in, rather than everybody
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
    return Port(socket, closing=closing) if gate is None else GatedPort(socket, gate, closing=closing)


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
