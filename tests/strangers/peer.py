"""A peer that speaks to a ZeroMQ socket byte by byte, on loopback, in whatever protocol it likes."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import zmq

__all__ = [
    "GREETING_1",
    "GREETING_2",
    "as_post",
    "frame_1",
    "greeting_3",
    "ready",
    "say",
    "takes",
    "words_of_a_bot",
]

_BOUND_SECONDS = 30

_GREETING_BYTES = 64
"""Of ZMTP 3. Its first ten come before anything is read, and a client says no more before it has all of them."""

_LONG = 255
"""How an old frame's length begins if it does not fit into one byte."""

GREETING_1 = b"\x02\x02\x02"
"""An anonymous peer of ZMTP 1.0, as the library of that time began."""

GREETING_2 = b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x05\0\0"
"""The same of ZMTP 2.0: its signature, revision and socket type, and an empty routing id."""


def greeting_3(mechanism: bytes) -> bytes:
    """Return the greeting of a client of ZMTP 3.0."""
    return b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0" + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)


def ready(**properties: bytes) -> bytes:
    """Return the command that ends a NULL handshake, with a DEALER's properties and these."""
    named = {"Socket-Type": b"DEALER", "Identity": b""} | {
        name.replace("_", "-"): value for name, value in properties.items()
    }
    body = b"\x05READY" + b"".join(
        bytes([len(name)]) + name.encode() + struct.pack(">I", len(value)) + value for name, value in named.items()
    )
    return bytes([4, len(body)]) + body


def frame_1(body: bytes) -> bytes:
    """Return a frame of ZMTP 1.0."""
    length = len(body) + 1
    head = bytes([length]) if length < _LONG else bytes([_LONG]) + struct.pack(">Q", length)
    return head + b"\0" + body


def words_of_a_bot(name: str) -> list[bytes]:
    """Return the frames of a bot that says hello and publishes."""
    message = {
        "id": "019ab6d0-5c1e-7f3a-9d54-0d1f6b2a7c11",
        "recipient": {"type": "channel", "name": "news"},
        "body": "forged",
    }
    return [
        json.dumps(frame).encode()
        for frame in (
            {"op": "hello", "request": 1, "protocol": 1, "bot": name},
            {"op": "publish", "request": 2, "messages": [message]},
        )
    ]


def as_post(frames: list[bytes]) -> bytes:
    """Return an HTTP request whose headers ZMTP 1.0 reads as frames, so that those in its body are read too."""
    body = b"".join(frame_1(frame) for frame in frames)
    for padding in range(2000):
        head = (
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1:7710\r\nContent-Type: text/plain\r\n"
            b"Content-Length: %d\r\nX: %s\r\n\r\n" % (len(body), b"a" * padding)
        )
        at = 0
        while at < len(head):
            at += 1 + head[at]
        if at == len(head):
            return head + body
    raise AssertionError("no padding makes the headers whole frames")


def say(endpoint: str, data: bytes, *, then: bytes = b"") -> None:
    """Connect, send bytes, and wait until the peer closes or is silent for half a second.

    `then` is sent after the peer's greeting.
    """
    with _said(endpoint, data, then) as connection:
        connection.settimeout(0.5)
        with suppress(TimeoutError, ConnectionError):
            while connection.recv(65536):
                pass


@contextmanager
def _said(endpoint: str, data: bytes, then: bytes) -> Iterator[socket.socket]:
    """Return a context with a connection on which these bytes were sent."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), _BOUND_SECONDS) as connection:
        with suppress(TimeoutError, ConnectionError):
            connection.sendall(data)
            heard = b""
            while then and len(heard) < _GREETING_BYTES and (more := connection.recv(65536)):
                heard += more
            if heard:
                connection.sendall(then)
        yield connection


def takes(data: bytes, last: bytes, *, then: bytes = b"") -> list[list[bytes]]:
    """Return the messages that a ROUTER without any rule reads from these bytes, up to one that ends like `last`.

    It shows that the bytes are well made.
    """
    with zmq.Context() as context, context.socket(zmq.ROUTER) as bare:
        bare.linger = 0
        bare.bind("tcp://127.0.0.1:*")
        found: list[list[bytes]] = []
        with _said(bare.getsockopt_string(zmq.LAST_ENDPOINT), data, then):
            while not (found and found[-1][-1] == last) and bare.poll(_BOUND_SECONDS * 1000):
                found.append(bare.recv_multipart()[1:])
        return found
