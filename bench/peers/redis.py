"""Redis streams: one stream for each bot and each channel, and a consumer group for each reader.

Owns its server and its client. Who reads a stream acks each message, and the ack is in the append-only file too.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Any

from ..links import Inbox, Link, PlainLink
from ..names import REDIS, REDIS_SYNCING
from ..processes import Server
from ..roles import Receiver, Sender
from ..systems import EACH_SECOND, SYNCED, System, link_roles
from .programs import HOST, find, free_port, is_open, lacking

__all__ = ["RedisAlways", "RedisEverySecond", "connect"]

_READ_MESSAGES = 1000
_BLOCK_MILLISECONDS = 1000

_CONNECTIONS = 64
"""Of one process: whoever finds none free waits for one."""


class _Server(Server):
    def __init__(self, fsync: str) -> None:
        super().__init__()
        self.port = free_port()
        self._fsync = fsync

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    def _command(self) -> Sequence[str]:
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": self._fsync,
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [find("redis-server") or "redis-server", *options]

    def _is_ready(self) -> bool:
        return is_open(self.port)


class RedisEverySecond(System):
    """Redis with its usual append-only file."""

    name = REDIS
    promise = EACH_SECOND
    batches = "a pipeline: an answer a message, a sync for what the server reads at once"
    left_out = frozenset({"one to a hundred", "a hundred bots in pairs"})
    fsync = "everysec"

    @classmethod
    def missing(cls) -> str | None:
        """Look for the server and the client."""
        return lacking("redis-server", "redis")

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Ask the server, and look at the client's package."""
        said = subprocess.run(
            [find("redis-server") or "redis-server", "--version"], capture_output=True, text=True, check=False
        )
        version = said.stdout.partition("v=")[2].split()[0]
        return {"redis-server": version, "redis-py": metadata.version("redis")}

    def register(self, bots: Sequence[str]) -> None:
        """Nothing: a stream comes into being by its first message."""

    def waiting(self, bot: str) -> int:
        """Count what is in the bot's stream."""

        async def count() -> int:
            async with _client(self._url) as client:
                return int(await client.xlen(f"direct.{bot}"))

        return asyncio.run(count())

    @property
    def _url(self) -> str:
        assert isinstance(self._server, _Server)
        return self._server.url

    def _start(self) -> Server:
        return _Server(self.fsync)

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return link_roles(connect, self._url)


class RedisAlways(RedisEverySecond):
    """Redis that syncs before it answers, as posthouse does."""

    name = REDIS_SYNCING
    promise = SYNCED
    fsync = "always"


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Any]:
    import redis.asyncio

    pool = redis.asyncio.BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=None, protocol=2
    )
    client = redis.asyncio.Redis.from_pool(pool)
    try:
        yield client
    finally:
        await client.aclose()


class _Inbox:
    def __init__(self, client: Any, stream: str, group: str) -> None:
        self._client = client
        self._stream = stream
        self._group = group

    async def take(self) -> Sequence[bytes]:
        while True:
            found = await self._client.xreadgroup(
                self._group, self._group, {self._stream: ">"}, count=_READ_MESSAGES, block=_BLOCK_MILLISECONDS
            )
            if found:
                [[_, entries]] = found
                await self._client.xack(self._stream, self._group, *[id for id, _ in entries])
                return [fields[b"body"] for _, fields in entries]

    async def confirm(self) -> None:
        """Nothing more: every ack was waited for."""


class _Link(PlainLink):
    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    async def publish(self, sender: Sender, bodies: Sequence[bytes]) -> None:
        stream = f"{'channel' if sender.is_channel else 'direct'}.{sender.to}"
        if len(bodies) == 1:
            await self._client.xadd(stream, {"body": bodies[0]})
            return
        pipeline = self._client.pipeline(transaction=False)
        for body in bodies:
            pipeline.xadd(stream, {"body": body})
        await pipeline.execute()

    async def inbox(self, receiver: Receiver) -> Inbox:
        stream = f"direct.{receiver.bot}" if receiver.channel is None else f"channel.{receiver.channel}"
        await self._client.xgroup_create(stream, receiver.bot, id="0", mkstream=True)
        return _Inbox(self._client, stream, receiver.bot)


@asynccontextmanager
async def connect(address: str, bots: Sequence[str], *, sends_only: bool = False) -> AsyncIterator[Link]:
    """Connect a process: a pool of connections, one for each pipeline that is out at a time."""
    async with _client(address) as client:
        yield _Link(client)
