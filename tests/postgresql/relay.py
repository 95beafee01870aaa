"""A way to a server on which bytes can be held back: a statement that arrives when its sender has left already."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream

from .cluster import HOST

__all__ = ["Hold", "Relay", "Relayed", "relaying"]


class Hold:
    """Holds what a client sends, from the packet on that contains these bytes, until it is released."""

    def __init__(self, before: bytes = b"") -> None:
        self.before = before
        self.held = anyio.Event()
        self.released = anyio.Event()


class Relayed:
    """One connection to the server."""

    def __init__(self, client: SocketStream, server: SocketStream, hold: Hold | None) -> None:
        self.passed = b""
        """What the client sent, and went on to the server."""
        self.hold = hold
        self._client = client
        self._server = server
        self._left = False

    async def leave(self) -> None:
        """End the connection for the client alone: the server still gets what was held."""
        self._left = True
        await self._client.aclose()

    async def run(self) -> None:
        """Relay both ways until either end closes."""
        async with self._client, self._server, anyio.create_task_group() as tasks:
            tasks.start_soon(self._to_client, tasks.cancel_scope)
            with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
                while True:
                    packet = await self._client.receive()
                    if self.hold is not None and self.hold.before in packet:
                        self.hold.held.set()
                        await self.hold.released.wait()
                        self.hold = None
                    self.passed += packet
                    await self._server.send(packet)
            if not self._left:
                tasks.cancel_scope.cancel()

    async def _to_client(self, both: anyio.CancelScope) -> None:
        with suppress(anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            while True:
                packet = await self._server.receive()
                if not self._left:
                    await self._client.send(packet)
        both.cancel()


class Relay:
    """All connections through one port."""

    def __init__(self, port: int, server_port: int) -> None:
        self.port = port
        self.connections: list[Relayed] = []
        self.hold: Hold | None = None
        """For connections that come from now on."""
        self._server_port = server_port

    async def relay(self, client: SocketStream) -> None:
        """Relay a connection."""
        connection = Relayed(client, await anyio.connect_tcp(HOST, self._server_port), self.hold)
        self.connections.append(connection)
        await connection.run()


@asynccontextmanager
async def relaying(server_port: int) -> AsyncIterator[Relay]:
    """Relay to a server on this machine, by a port of its own, until the block ends."""
    async with await anyio.create_tcp_listener(local_host=HOST) as listener, anyio.create_task_group() as tasks:
        relay = Relay(listener.extra(SocketAttribute.local_port), server_port)
        tasks.start_soon(listener.serve, relay.relay)
        yield relay
        tasks.cancel_scope.cancel()
