"""RabbitMQ: a quorum queue for each bot, filled directly or from a channel's exchange, with publisher confirms.

Owns its server and its client. A queue of one node is a quorum of one: that is what a single machine has.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from ..links import ASKER, Inbox, Link, PlainLink
from ..names import RABBITMQ
from ..processes import Server
from ..roles import Receiver, Sender
from ..systems import SYNCED, System, link_roles
from .programs import HOST, find, free_port, is_open, lacking

__all__ = ["RabbitMQ", "connect"]

_LIBRARIES = Path("/usr/lib/rabbitmq/lib")
"""Where Debian keeps the server's own scripts, which run as whoever calls them."""

_PREFETCH = 1000
_END_SECONDS = 30.0
_POLL_SECONDS = 0.005


class _PortMapper(Server):
    """epmd, which every Erlang node asks: one of our own, on the loopback interface."""

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    def _command(self) -> Sequence[str]:
        return [find("epmd") or "epmd", "-address", HOST, "-port", str(self.port)]

    def _is_ready(self) -> bool:
        return is_open(self.port)


class _Server(Server):
    """The node, and beside it the port mapper that it needs."""

    _process_group = 0

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self._mapper = _PortMapper()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    def _command(self) -> Sequence[str]:
        self.folder.joinpath("enabled_plugins").write_text("[].\n", encoding="ascii")
        self.folder.joinpath("rabbitmq.conf").touch()
        [program] = _LIBRARIES.glob("rabbitmq_server-*/sbin/rabbitmq-server")
        return [str(program)]

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "HOME": str(self.folder),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._mapper.port),
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
        }

    def _is_ready(self) -> bool:
        return is_open(self.port) and "Server startup complete" in self._log_text()

    def _start(self) -> None:
        self._mapper.__enter__()
        super()._start()

    def _stop(self, *, kill: bool) -> None:
        # The script starts the node and does not pass signals on; both are in the group that we began.
        if self._process is None or self._process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_END_SECONDS)

    def _end(self) -> None:
        try:
            super()._end()
        finally:
            self._mapper.__exit__(None, None, None)


class RabbitMQ(System):
    """RabbitMQ with quorum queues, as it is shipped."""

    name = RABBITMQ
    promise = SYNCED
    batches = "none: so many confirms are awaited at once"
    window = 1000
    left_out = frozenset({"one to a hundred", "a hundred bots in pairs"})

    @classmethod
    def missing(cls) -> str | None:
        """Look for the server and the client."""
        why = lacking("rabbitmqctl", "aio_pika")
        if why is None and not list(_LIBRARIES.glob("rabbitmq_server-*/sbin/rabbitmq-server")):
            why = f"the server's own scripts are not under {_LIBRARIES}, where Debian has them"
        return why

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Look at the server's folder, and at the client's package."""
        [folder] = _LIBRARIES.glob("rabbitmq_server-*")
        return {"RabbitMQ": folder.name.rpartition("-")[2], "aio-pika": metadata.version("aio-pika")}

    def register(self, bots: Sequence[str]) -> None:
        """Declare each bot's queue: what has no queue is not kept."""

        async def declare() -> None:
            async with _client(self._url) as connection:
                channel = await connection.channel()
                for bot in bots:
                    await _queue(channel, bot)

        asyncio.run(declare())

    def waiting(self, bot: str) -> int:
        """Count what is in the bot's queue."""

        async def count() -> int:
            async with _client(self._url) as connection:
                channel = await connection.channel()
                queue = await channel.declare_queue(bot, passive=True)
                return int(queue.declaration_result.message_count)

        return asyncio.run(count())

    @property
    def _url(self) -> str:
        assert isinstance(self._server, _Server)
        return self._server.url

    def _start(self) -> Server:
        return _Server()

    def _prepare(self) -> None:
        self.register([ASKER])

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return link_roles(connect, self._url)


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Any]:
    import aio_pika

    connection = await aio_pika.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _queue(channel: Any, name: str) -> Any:
    return await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})


class _Inbox:
    def __init__(self, channel: Any, queue: Any) -> None:
        self._channel = channel
        self._queue = queue
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()

    async def arrive(self, message: Any) -> None:
        self._arrived.put_nowait(message)

    async def take(self) -> Sequence[bytes]:
        messages = [await self._arrived.get()]
        while not self._arrived.empty():
            messages.append(self._arrived.get_nowait())
        await messages[-1].ack(multiple=True)
        return [message.body for message in messages]

    async def confirm(self) -> None:
        """Wait until the queue is empty; its answer comes after what was acked before on this channel."""
        while True:
            found = await self._channel.declare_queue(self._queue.name, passive=True)
            if not found.declaration_result.message_count:
                return
            await asyncio.sleep(_POLL_SECONDS)


class _Link(PlainLink):
    def __init__(self, connection: Any, channel: Any) -> None:
        super().__init__()
        self._connection = connection
        self._channel = channel
        self._exchanges: dict[str, Any] = {}

    async def publish(self, sender: Sender, bodies: Sequence[bytes]) -> None:
        import aio_pika

        exchange, key = self._channel.default_exchange, sender.to
        if sender.is_channel:
            exchange, key = await self._exchange(sender.to), ""
        messages = [aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT) for body in bodies]
        if len(messages) == 1:
            await exchange.publish(messages[0], key)
        else:
            await asyncio.gather(*[exchange.publish(message, key) for message in messages])

    async def inbox(self, receiver: Receiver) -> Inbox:
        channel = await self._connection.channel()
        await channel.set_qos(prefetch_count=_PREFETCH)
        queue = await _queue(channel, receiver.bot)
        if receiver.channel is not None:
            await queue.bind(await self._exchange(receiver.channel))
        inbox = _Inbox(channel, queue)
        await queue.consume(inbox.arrive)
        return inbox

    async def _exchange(self, name: str) -> Any:
        if name not in self._exchanges:
            self._exchanges[name] = await self._channel.declare_exchange(f"channel.{name}", "fanout", durable=True)
        return self._exchanges[name]


@asynccontextmanager
async def connect(address: str, bots: Sequence[str], *, sends_only: bool = False) -> AsyncIterator[Link]:
    """Connect a process: one connection, a channel for sending, and one for each bot that receives."""
    async with _client(address) as connection:
        yield _Link(connection, await connection.channel())
