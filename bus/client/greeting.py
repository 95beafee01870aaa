"""What an address says of itself: whether a worker with or without keys answers there, or something else.

Owns one question, in the bytes that begin every connection of ZMTP 3.0 (RFC 23 of ZeroMQ). ZeroMQ asks it too, but
whichever end sees first that the other one has no keys closes the connection, and the other may not hear why.
Nothing is sent but that this is ZMTP.
"""

from __future__ import annotations

import anyio
import anyio.abc

__all__ = ["mechanism_at"]

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"

_VERSION = b"\x03"

_MECHANISM = slice(12, 32)
"""Its place, after the signature and the version."""

_SECONDS = 2.0


async def mechanism_at(url: str) -> str | None:
    """Return "CURVE" or "NULL" for a worker with or without keys; None if there is none, or it does not answer."""
    try:
        with anyio.fail_after(_SECONDS):
            async with await _connect(url) as stream:
                return await _ask(stream)
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError):
        return None


async def _connect(url: str) -> anyio.abc.ByteStream:
    scheme, _, rest = url.partition("://")
    if scheme == "ipc":
        return await anyio.connect_unix(rest)
    host, _, port = rest.rpartition(";")[2].rpartition(":")
    return await anyio.connect_tcp(host.strip("[]"), int(port))


async def _ask(stream: anyio.abc.ByteStream) -> str | None:
    await stream.send(_SIGNATURE + _VERSION)
    greeting = b""
    while len(greeting) < _MECHANISM.stop:
        greeting += await stream.receive()
        if greeting[0] != _SIGNATURE[0]:
            return None
    return greeting[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")
