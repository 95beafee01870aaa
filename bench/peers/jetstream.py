"""NATS JetStream: one stream on disk, and a durable push consumer for each bot.

Owns its server and its client. A bot's subject is `direct.<name>`, a channel's `channel.<name>`. Messages are
pushed: the Python client's `fetch` of a pull consumer waits until a batch is full or its time is over, which delays
what comes in small numbers. Several messages at once are a batch, in the faster of the two ways for its promise.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from typing import Any

from ..links import Inbox, Link, PlainLink
from ..names import JETSTREAM, JETSTREAM_ATOMIC, JETSTREAM_FAST, JETSTREAM_SYNCING, PUBLISH_100, PUBLISH_1000
from ..processes import Server
from ..roles import Receiver, Sender
from ..systems import SYNCED, WRITTEN, System, link_roles
from .jetstream_batches import AtomicBatches, Batches, FastIngest
from .programs import HOST, find, free_port, is_open, lacking

__all__ = ["JetStream", "JetStreamAtomic", "JetStreamFast", "JetStreamSyncing", "connect"]

_STREAM = "BENCH"
_PENDING_MAX = 4096
_POLL_SECONDS = 0.005


class _Server(Server):
    def __init__(self, settings: str) -> None:
        super().__init__()
        self.port = free_port()
        self._settings = settings

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    def _command(self) -> Sequence[str]:
        file = self.folder / "nats.conf"
        file.write_text(
            f'listen: "{HOST}:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}"\n{self._settings} }}\n',
            encoding="utf-8",
        )
        return [find("nats-server") or "nats-server", "-c", str(file)]

    def _is_ready(self) -> bool:
        return is_open(self.port)


class JetStream(System):
    """JetStream as it is shipped: it acknowledges what is written, and syncs it every two minutes."""

    name = JETSTREAM
    promise = WRITTEN
    batches = "fast ingest: one answer a batch, each message stored by itself"
    left_out = frozenset({"one to a hundred", "a hundred bots in pairs"})
    settings = ""
    way: type[Batches] = FastIngest

    @classmethod
    def missing(cls) -> str | None:
        """Look for the server and the client."""
        return lacking("nats-server", "nats")

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Ask the server, and look at the client's package."""
        said = subprocess.run(
            [find("nats-server") or "nats-server", "--version"], capture_output=True, text=True, check=False
        )
        return {"nats-server": said.stdout.split()[-1].lstrip("v"), "nats-py": metadata.version("nats-py")}

    def register(self, bots: Sequence[str]) -> None:
        """Nothing: the stream keeps what any subject gets."""

    def waiting(self, bot: str) -> int:
        """Count what the stream has on the bot's subject."""

        async def count() -> int:
            async with _client(self._url) as js:
                subject = _subject(bot, is_channel=False)
                info = await js.stream_info(_STREAM, subjects_filter=subject)
                return int((info.state.subjects or {}).get(subject, 0))

        return asyncio.run(count())

    @property
    def _url(self) -> str:
        assert isinstance(self._server, _Server)
        return self._server.url

    def _start(self) -> Server:
        return _Server(self.settings)

    def _prepare(self) -> None:
        async def make_stream() -> None:
            async with _client(self._url) as js:
                subjects = ["direct.>", "channel.>"]
                await js.add_stream(name=_STREAM, subjects=subjects, allow_atomic=True, allow_batched=True)

        asyncio.run(make_stream())

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return link_roles(partial(connect, way=self.way), self._url)


class JetStreamAtomic(JetStream):
    """The same with atomic batches."""

    name = JETSTREAM_ATOMIC
    batches = "atomic: one answer a batch, stored as one"
    only = frozenset({PUBLISH_100, PUBLISH_1000})
    way: type[Batches] = AtomicBatches


class JetStreamSyncing(JetStream):
    """JetStream that syncs before it acknowledges, as posthouse does."""

    name = JETSTREAM_SYNCING
    promise = SYNCED
    batches = "atomic: one answer and one sync a batch"
    settings = "sync_interval: always"
    way: type[Batches] = AtomicBatches


class JetStreamFast(JetStreamSyncing):
    """The same with fast ingest."""

    name = JETSTREAM_FAST
    batches = "fast ingest: one answer a batch, one sync a message"
    only = frozenset({PUBLISH_100, PUBLISH_1000})
    way: type[Batches] = FastIngest


def _subject(to: str, *, is_channel: bool) -> str:
    return f"{'channel' if is_channel else 'direct'}.{to}"


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Any]:
    import nats

    connection = await nats.connect(url)
    try:
        yield connection.jetstream(publish_async_max_pending=_PENDING_MAX)
    finally:
        await connection.close()


class _Inbox:
    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self.subscription: Any = None

    async def arrive(self, message: Any) -> None:
        self._arrived.put_nowait(message)

    async def take(self) -> Sequence[bytes]:
        messages = [await self._arrived.get()]
        while not self._arrived.empty():
            messages.append(self._arrived.get_nowait())
        for message in messages:
            await message.ack()
        return [message.data for message in messages]

    async def confirm(self) -> None:
        while True:
            info = await self.subscription.consumer_info()
            if not info.num_ack_pending and not info.num_pending:
                return
            await asyncio.sleep(_POLL_SECONDS)


class _Link(PlainLink):
    def __init__(self, js: Any, batches: Batches) -> None:
        super().__init__()
        self._js = js
        self._batches = batches

    async def publish(self, sender: Sender, bodies: Sequence[bytes]) -> None:
        subject = _subject(sender.to, is_channel=sender.is_channel)
        if len(bodies) == 1:
            await (await self._js.publish_async(subject, bodies[0]))
        else:
            await self._batches.publish(subject, bodies)

    async def inbox(self, receiver: Receiver) -> Inbox:
        from nats.js.api import AckPolicy, ConsumerConfig

        subject = _subject(receiver.channel or receiver.bot, is_channel=receiver.channel is not None)
        config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2 * _PENDING_MAX)
        inbox = _Inbox()
        inbox.subscription = await self._js.subscribe(
            subject, durable=receiver.bot, cb=inbox.arrive, manual_ack=True, config=config
        )
        return inbox


@asynccontextmanager
async def connect(
    address: str, bots: Sequence[str], *, sends_only: bool = False, way: Callable[[Any], Batches]
) -> AsyncIterator[Link]:
    """Connect a process: one connection for all of its bots. `way` is that of its batches."""
    async with _client(address) as js:
        yield _Link(js, way(js))
