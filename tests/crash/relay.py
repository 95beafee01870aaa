"""The way from one worker to the nodes of its engine, as a process: `python -m tests.crash.relay PORT…`.

Owns a port of its own for each of theirs, which it prints, and every byte between. If it is stopped, its worker is
cut off as by a pulled cable: nobody is told, and what was sent lies in between. If it goes on, all of that arrives.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from ..integration.wire_worker import REPOSITORY

__all__ = ["Relay"]

_HOST = "127.0.0.1"
_READ_BYTES_MAX = 65536


class Relay:
    """The process. It ends with the one that started it, even while it is cut."""

    def __init__(self, ports: Sequence[int]) -> None:
        program = [sys.executable, "-m", "tests.crash.relay", *map(str, ports)]
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
        return f"postgresql://postgres@{','.join(f'{_HOST}:{port}' for port in self.ports)}/{database}"

    def cut(self) -> None:
        """Let nothing through."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def mend(self) -> None:
        """Let everything through again, what was sent meanwhile too."""
        os.kill(self._process.pid, signal.SIGCONT)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_READ_BYTES_MAX):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(ports: Sequence[int]) -> None:
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

        servers.append(await asyncio.start_server(accept, _HOST, 0))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)  # noqa: T201
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_serve([int(port) for port in sys.argv[1:]]))
