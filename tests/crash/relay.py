"""The way from one worker to the nodes of its engine: a relay, and where it can be, a cable that ends at it.

A relay is a process, `python -m tests.crash.relay HOST PORT…`. It owns a port of its own for each of the nodes,
which it prints, and every byte between. If it is stopped, its worker is cut off: nobody is told, and what was sent
lies in between. If it goes on, all of that arrives.

With a cable, the worker is in a network of its own, from which nothing but the relay can be reached. It is cut off
when the cable is pulled, and what was sent is lost and sent again, as between machines. Bots reach that worker by
sockets in the file system, which networks do not divide.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from ..integration.wire_worker import REPOSITORY
from .namespace import Namespace, why_not
from .nursery import ForkedWorker

__all__ = ["Cable", "Relay", "lay"]

_HOST = "127.0.0.1"
_READ_BYTES_MAX = 65536


class Relay:
    """The process. It ends with the one that started it, even while it is cut."""

    def __init__(self, ports: Sequence[int], host: str = _HOST) -> None:
        self.host = host
        program = [sys.executable, "-m", "tests.crash.relay", host, *map(str, ports)]
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.ports = [int(port) for port in self._process.stdout.readline().split()]

    def __repr__(self) -> str:
        return f"<Relay {self.ports} process={self._process.pid}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def url(self, database: str) -> str:
        """Return the URL by which a worker reaches the nodes this way."""
        return f"postgresql://postgres@{','.join(f'{self.host}:{port}' for port in self.ports)}/{database}"

    def lead(self, worker: ForkedWorker, database: str) -> None:
        """Let a worker, from its next start on, go this way."""
        worker.engine = self.url(database)

    def cut(self) -> None:
        """Let nothing through."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def mend(self) -> None:
        """Let everything through again, what was sent meanwhile too."""
        os.kill(self._process.pid, signal.SIGCONT)


class Cable:
    """A worker's own network, and its cable to a relay."""

    def __init__(self, ports: Sequence[int]) -> None:
        with ExitStack() as stack:
            self._namespace = stack.enter_context(Namespace())
            self._relay = stack.enter_context(Relay(ports, self._namespace.near))
            self._stack = stack.pop_all()

    def __repr__(self) -> str:
        return f"<Cable {self._namespace} {self._relay}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def lead(self, worker: ForkedWorker, database: str) -> None:
        """Let a worker, from its next start on, live in this network."""
        worker.engine = self._relay.url(database)
        worker.namespace = self._namespace.file
        worker.command, worker.tap = (f"ipc://{worker.directory / name}" for name in ("command", "tap"))

    def cut(self) -> None:
        """Pull the cable."""
        self._namespace.pull()

    def mend(self) -> None:
        """Put the cable in again."""
        self._namespace.plug()


def lay(ports: Sequence[int]) -> Cable | Relay:
    """Return a new way to nodes: with a cable, where there can be namespaces."""
    return Relay(ports) if why_not() else Cable(ports)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_READ_BYTES_MAX):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(host: str, ports: Sequence[int]) -> None:
    async def relay(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(_HOST, port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    servers = []
    for port in ports:

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
            await relay(port, reader, writer)

        servers.append(await asyncio.start_server(accept, host, 0))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)  # noqa: T201
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], [int(port) for port in sys.argv[2:]]))
