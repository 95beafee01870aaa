"""A peer that speaks CURVE (RFC 26) byte by byte, so that it can say in the handshake what libzmq never does."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import zmq

from bus.curve import public_of

from .peer import greeting_3

__all__ = ["CurvePeer", "sodium"]

_MAC_BYTES = 16
_GREETING_BYTES = 64


def sodium() -> ctypes.CDLL | None:
    """Return the library whose boxes pyzmq's libzmq uses, if it comes with it."""
    found = list((Path(zmq.__file__).parents[1] / "pyzmq.libs").glob("libsodium*"))
    return ctypes.CDLL(str(found[0])) if found else None


class _Boxes:
    """Boxes from a secret key to a public one."""

    def __init__(self, library: ctypes.CDLL, public: bytes, secret: bytes) -> None:
        self._library = library
        self._public = public
        self._secret = secret

    def seal(self, text: bytes, nonce: bytes) -> bytes:
        box = ctypes.create_string_buffer(len(text) + _MAC_BYTES)
        length = ctypes.c_ulonglong(len(text))
        assert self._library.crypto_box_easy(box, text, length, nonce, self._public, self._secret) == 0
        return box.raw

    def open(self, box: bytes, nonce: bytes) -> bytes:
        text = ctypes.create_string_buffer(len(box) - _MAC_BYTES)
        length = ctypes.c_ulonglong(len(box))
        assert self._library.crypto_box_open_easy(text, box, length, nonce, self._public, self._secret) == 0
        return text.raw


class CurvePeer:
    """A connection with a key, which writes these properties into its handshake as well."""

    def __init__(
        self, library: ctypes.CDLL, address: str, *, secret: bytes, server: bytes, properties: Mapping[str, bytes]
    ) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._connection = socket.create_connection((host, int(port)), 30)
        self._connection.settimeout(30)
        self._library = library
        self._secret = secret
        self._server = server
        self._properties = {"Socket-Type": b"DEALER", "Identity": b""} | dict(properties)
        self._nonce = 0
        self._short_secret = os.urandom(32)
        self._boxes: _Boxes

    def __enter__(self) -> Self:
        self._shake_hands()
        return self

    def __exit__(self, *ended: object) -> None:
        self._connection.close()

    def say(self, frame: bytes) -> None:
        """Send a message of one frame."""
        number = self._next_nonce()
        box = self._boxes.seal(b"\0" + frame, b"CurveZMQMESSAGEC" + number)
        self._send(0, b"\x07MESSAGE" + number + box)

    def hear(self) -> bytes:
        """Return the next message."""
        body = self._receive()
        assert body[:8] == b"\x07MESSAGE", body
        return self._boxes.open(body[16:], b"CurveZMQMESSAGES" + body[8:16])[1:]

    def _shake_hands(self) -> None:
        self._connection.sendall(greeting_3(b"CURVE"))
        self._read(_GREETING_BYTES)
        short = public_of(self._short_secret)
        number = self._next_nonce()
        to_server = _Boxes(self._library, self._server, self._short_secret)
        hello = to_server.seal(bytes(64), b"CurveZMQHELLO---" + number)
        self._send(4, b"\x05HELLO\x01\x00" + bytes(72) + short + number + hello)
        welcome = self._receive()
        assert welcome[:8] == b"\x07WELCOME", welcome
        opened = to_server.open(welcome[24:], b"WELCOME-" + welcome[8:24])
        short_server, cookie = opened[:32], opened[32:]
        self._boxes = _Boxes(self._library, short_server, self._short_secret)
        vouch_nonce, number = os.urandom(16), self._next_nonce()
        vouch = _Boxes(self._library, short_server, self._secret).seal(
            short + self._server, b"VOUCH---" + vouch_nonce
        )
        said = b"".join(
            bytes([len(name)]) + name.encode() + struct.pack(">I", len(value)) + value
            for name, value in self._properties.items()
        )
        proof = self._boxes.seal(public_of(self._secret) + vouch_nonce + vouch + said, b"CurveZMQINITIATE" + number)
        self._send(4, b"\x08INITIATE" + cookie + number + proof)
        ready = self._receive()
        assert ready[:6] == b"\x05READY", ready

    def _next_nonce(self) -> bytes:
        self._nonce += 1
        return struct.pack(">Q", self._nonce)

    def _send(self, flags: int, body: bytes) -> None:
        self._connection.sendall(bytes([flags | 2]) + struct.pack(">Q", len(body)) + body)

    def _receive(self) -> bytes:
        [flags] = self._read(1)
        [length] = struct.unpack(">Q", self._read(8)) if flags & 2 else self._read(1)
        return self._read(length)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._connection.recv(length - len(data))
            assert part, "the worker closed the connection"
            data += part
        return data
