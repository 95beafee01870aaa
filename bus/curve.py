"""ZeroMQ's CURVE: pairs of keys, and the proof that a connecting socket gives and asks for.

Owns what libzmq does with keys. It takes and returns their bytes; `wire.keys` has their texts.
"""

from __future__ import annotations

import msgspec
import zmq
from zmq.utils import z85

__all__ = ["CurveKeys", "curve_fault", "new_secret", "public_of", "secure"]

_OLDEST = (4, 3, 5)
"""Earlier versions of libzmq have faults that a peer without a key can use."""


class CurveKeys(msgspec.Struct, frozen=True):
    """Who connects: the secret key of a bot, and the public key of the only worker that it talks to."""

    secret: bytes
    worker: bytes

    def __repr__(self) -> str:
        return "<CurveKeys>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Return what may be shown: not the secret."""
        return []


def curve_fault() -> str | None:
    """Return why this installation cannot use keys, or None if it can."""
    if not zmq.has("curve"):
        return "this libzmq was built without CURVE: install pyzmq from its wheels, which have it"
    if zmq.zmq_version_info() < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return f"keys need libzmq {oldest} or newer, and this is {zmq.zmq_version()}: upgrade pyzmq"
    return None


def new_secret() -> bytes:
    """Return a new secret key, of the system's randomness."""
    _, secret = zmq.curve_keypair()
    return z85.decode(secret)


def public_of(secret: bytes) -> bytes:
    """Return the public key that belongs to a secret one."""
    return z85.decode(zmq.curve_public(z85.encode(secret)))


def secure(socket: zmq.Socket[bytes], keys: CurveKeys) -> None:
    """Let a socket that is not connected yet speak only to that worker, and encrypted."""
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public_of(keys.secret))
    socket.setsockopt(zmq.CURVE_SERVERKEY, keys.worker)
