"""The client without async: a bot whose event loop runs in a thread of its own.

    import bus.sync

    with bus.sync.connect(bot="reporter") as bot:
        bot.send("writer", {"text": "here is what I found"})
        for message in bot.messages(timeout=10):
            with message:
                print(message.body)

For notebooks, scripts, Flask, and tools of libraries that are not async. Calls do and raise what they do and raise
in `bus.Bot`. The session is kept while the program does something else, and any thread may call.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack

import anyio
from anyio.from_thread import BlockingPortal

from . import bot as asynchronous
from .client.draft import Draft, PublishOptions, ReplyOptions, SendOptions
from .client.home import running_loops
from .client.keyed import KeyedValue
from .client.message import Message
from .client.requesting import Gathered, Inquiry
from .client.starts import StartPosition
from .client.waiting import Receipt
from .errors import ClosedError
from .wire.answers import FoundMessage, KeptMessage, ListedBot, ListedChannel, ListedDeadLetter, WorkerStatus
from .wire.frames import StoredMessage

__all__ = ["SyncBot", "SyncKeyedStore", "SyncMessage", "connect"]

T = TypeVar("T")

_Call = Callable[[asynchronous.Bot], Awaitable[T]]


class SyncBot:
    """A connected bot. Close it, or use it as a context manager; otherwise it is closed when the program ends.

    Ctrl-C during a call cancels the call and raises KeyboardInterrupt, and the bot stays connected. A process that
    is forked from this one has to connect by itself. In the thread of a running event loop a call raises
    RuntimeError, because it would stop that loop: use `bus.connect` there. A notebook's loop is an exception.
    """

    def __init__(self, connected: asynchronous.Bot) -> None:
        _check_loop()
        self._process = os.getpid()
        self._bot = connected
        self._loop = _Loop(connected)
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<SyncBot of {self._bot!r}>"

    @property
    def name(self) -> str:
        """The bot's name."""
        return self._bot.name

    def __enter__(self) -> SyncBot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, and end the thread. Messages that are not settled are redelivered, without a failure.

        Closing again does nothing, and neither does a forked process.
        """
        if self._process == os.getpid():
            atexit.unregister(self.close)
            self._loop.stop()

    def call(self, function: _Call[T]) -> T:
        """Call an async function with the `bus.Bot`, in its event loop, and return its value when it has returned.

        This is for what has no method here: `bot.call(lambda bot: bot.workflows.start("digest", "a"))`.
        """
        if self._process != os.getpid():
            raise RuntimeError(
                f"bot {self.name!r} was connected in process {self._process}, and this process was forked from it:"
                " call bus.sync.connect here"
            )
        _check_loop()
        called, portal = _Called(function, self._bot), self._loop.portal
        try:
            try:
                future = portal.start_task_soon(called.run)
            except RuntimeError:  # the portal is not running
                raise ClosedError(f"bot {self.name!r} was closed") from None
            return future.result()
        except Exception:
            raise
        except BaseException:  # Ctrl-C, perhaps before the future was returned
            with suppress(RuntimeError):
                portal.start_task_soon(called.cancel)
            raise

    # ── Sending ──────────────────────────────────────────────────────────────────────────────────────────

    def send(self, to: str, body: Any, **options: Unpack[SendOptions]) -> Receipt:
        """Send a direct message; return when it is on the worker's disk. See `bus.Bot.send`."""
        return self.call(lambda bot: bot.send(to, body, **options))

    def publish(self, channel: str, body: Any, **options: Unpack[PublishOptions]) -> Receipt:
        """Publish on a channel; return when it is on the worker's disk. See `bus.Bot.publish`."""
        return self.call(lambda bot: bot.publish(channel, body, **options))

    def send_all(self, drafts: Iterable[Draft]) -> list[Receipt]:
        """Send many messages. See `bus.Bot.send_all`."""
        drafts = list(drafts)  # in this thread
        return self.call(lambda bot: bot.send_all(drafts))

    def request(self, to: str | None = None, body: Any = None, **options: Any) -> SyncMessage:
        """Send a message to a bot, or on a `channel`, and return the first reply. See `bus.Bot.request`."""
        return SyncMessage(self.call(lambda bot: bot.request(to, body, **options)), self)

    def gather(self, questions: Iterable[Inquiry]) -> list[Gathered]:
        """Make many requests together, and return what came of each, in their order. See `bus.Bot.gather`."""
        questions = list(questions)  # in this thread
        return self.call(lambda bot: bot.gather(questions))

    # ── Receiving ────────────────────────────────────────────────────────────────────────────────────────

    def subscribe(
        self,
        channel: str,
        *,
        start: StartPosition = "new",
        epoch: str | None = None,
        echo: bool = False,
        group: str | None = None,
    ) -> int:
        """Subscribe to a channel permanently. See `bus.Bot.subscribe`."""
        return self.call(lambda bot: bot.subscribe(channel, start=start, epoch=epoch, echo=echo, group=group))

    def retained(self, channel: str) -> KeptMessage | None:
        """Return the last value of a channel, or None. See `bus.Bot.retained`."""
        return self.call(lambda bot: bot.retained(channel))

    def unsubscribe(self, channel: str) -> bool:
        """End a subscription; return False if there was none."""
        return self.call(lambda bot: bot.unsubscribe(channel))

    def receive(self, *, timeout: float | None = None) -> SyncMessage:
        """Wait for the next message. Raise TimeoutError if none comes within `timeout` seconds (None: forever).

        Raise SubscriptionRemoved, once, if something that this program subscribed to was removed.
        """
        return SyncMessage(self.call(lambda bot: bot.receive(timeout=timeout)), self)

    def messages(self, *, timeout: float | None = None) -> Iterator[SyncMessage]:
        """Iterate over messages as they arrive; it ends if none comes for `timeout` seconds (None: never).

        It raises SubscriptionRemoved as `receive`; iterate again to go on.
        """
        return _Messages(self, timeout)

    # ── Looking ──────────────────────────────────────────────────────────────────────────────────────────

    def history(
        self,
        *,
        between: tuple[str, str] | None = None,
        channel: str | None = None,
        thread: str | None = None,
        before_seq: int | None = None,
        limit: int = 50,
    ) -> list[StoredMessage]:
        """Return a conversation, newest first. See `bus.Bot.history`."""
        return self.call(
            lambda bot: bot.history(
                between=between, channel=channel, thread=thread, before_seq=before_seq, limit=limit
            )
        )

    def find(self, message_id: str | int) -> FoundMessage:
        """Return a message by its id or its seq, and what became of it. See `bus.Bot.find`."""
        return self.call(lambda bot: bot.find(message_id))

    def bots(self) -> list[ListedBot]:
        """List all bots, by name."""
        return self.call(lambda bot: bot.bots())

    def channels(self) -> list[ListedChannel]:
        """List all channels."""
        return self.call(lambda bot: bot.channels())

    def dead_letters(self, *, bot: str | None = None, limit: int = 50) -> list[ListedDeadLetter]:
        """List the dead letters of a mailbox, newest first. See `bus.Bot.dead_letters`."""
        return self.call(lambda connected: connected.dead_letters(bot=bot, limit=limit))

    def status(self) -> WorkerStatus:
        """Return the worker's status."""
        return self.call(lambda bot: bot.status())

    def will(self, draft: Draft | None, *, delay: float | None = None) -> None:
        """Leave a message that is sent if the bot vanishes. See `bus.Bot.will`."""
        self.call(lambda bot: bot.will(draft, delay=delay))

    def kv(self, name: str) -> SyncKeyedStore:
        """Return a keyed store of the worker."""
        return SyncKeyedStore(name, self)


class _Messages:
    """An iterator that goes on after what it raised, unlike a generator."""

    def __init__(self, bot: SyncBot, timeout: float | None) -> None:
        self._bot = bot
        self._timeout = timeout

    def __iter__(self) -> _Messages:
        return self

    def __next__(self) -> SyncMessage:
        try:
            return self._bot.receive(timeout=self._timeout)
        except TimeoutError:
            raise StopIteration from None


class SyncMessage:
    """A delivered message, to be settled: `with message:` does that, as `async with` does for a `bus.Message`."""

    def __init__(self, message: Message, bot: SyncBot) -> None:
        self._message = message
        self._bot = bot

    def __repr__(self) -> str:
        return repr(self._message)

    @property
    def seq(self) -> int:
        """Its place in the log."""
        return self._message.seq

    @property
    def id(self) -> str:
        """Its id, chosen by the sender."""
        return self._message.id

    @property
    def sender(self) -> str:
        """The name of the bot that sent it."""
        return self._message.sender

    @property
    def channel(self) -> str | None:
        """The channel that it was published on; None for a direct message."""
        return self._message.channel

    @property
    def message_type(self) -> str:
        """The kind of message, as named by the sender."""
        return self._message.message_type

    @property
    def body(self) -> Any:
        """The body, any JSON value."""
        return self._message.body

    def body_as(self, kind: type[T]) -> T:
        """Return the body as a value of a type. Raises UnfitBody, which says where it does not fit."""
        return self._message.body_as(kind)

    @property
    def reply_to(self) -> str | None:
        """The id of the message that this one answers."""
        return self._message.reply_to

    @property
    def headers(self) -> dict[str, str]:
        """The sender's notes beside the body."""
        return self._message.headers

    @property
    def hops(self) -> int | None:
        """How many messages may follow in its thread, each an answer to the one before; None: without a limit."""
        return self._message.hops

    @property
    def deadline(self) -> datetime | None:
        """When its thread ends, by the worker's clock; None: never."""
        return self._message.deadline

    @property
    def attempt(self) -> int:
        """How often it was delivered to this bot, or to its group, from 1."""
        return self._message.attempt

    @property
    def stored(self) -> StoredMessage:
        """The message as it came over the wire, with what has no name here."""
        return self._message.stored

    def ack(self, *, confirm: bool = False) -> None:
        """Settle: done. With `confirm`, return only when that is on disk: it is never redelivered then."""
        self._bot.call(lambda bot: self._message.ack(confirm=confirm))

    def nak(self, delay: float | None = None, *, confirm: bool = False) -> None:
        """Settle: retry after `delay` seconds, or after the worker's back-off. Counts as a failure."""
        self._bot.call(lambda bot: self._message.nak(delay, confirm=confirm))

    def release(self, delay: float | None = None, *, confirm: bool = False) -> None:
        """Settle: return it unprocessed, to be redelivered. Not a failure."""
        self._bot.call(lambda bot: self._message.release(delay, confirm=confirm))

    def term(self, reason: str = "", *, confirm: bool = False) -> None:
        """Settle: never redeliver it; it becomes a dead letter with this reason."""
        self._bot.call(lambda bot: self._message.term(reason, confirm=confirm))

    def reply(self, body: Any, **options: Unpack[ReplyOptions]) -> Receipt:
        """Send a direct message that answers this one to its sender. This does not settle it."""
        return self._bot.call(lambda bot: self._message.reply(body, **options))

    def __enter__(self) -> SyncMessage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):  # Ctrl-C: nobody is at fault
            if not self._message.settled:
                self.release()
        else:
            self._bot.call(lambda bot: self._message.__aexit__(kind, error, traceback))


class SyncKeyedStore:
    """A keyed store of the worker; the methods are those of `bus.KeyedStore`."""

    def __init__(self, name: str, bot: SyncBot) -> None:
        self.name = name
        self._bot = bot

    def __repr__(self) -> str:
        return f"<SyncKeyedStore {self.name!r}>"

    def put(
        self, key: str, value: Any, *, expected: int | None = None, ttl: float | None = None, id: str | None = None
    ) -> int:
        """Put a value, and return its revision."""
        return self._bot.call(lambda bot: bot.kv(self.name).put(key, value, expected=expected, ttl=ttl, id=id))

    def get(self, key: str) -> KeyedValue | None:
        """Return a value, or None if the key does not exist, or has expired."""
        return self._bot.call(lambda bot: bot.kv(self.name).get(key))

    def delete(self, key: str, *, expected: int | None = None, id: str | None = None) -> int:
        """Delete a key, and return the revision of that; 0 if it did not exist."""
        return self._bot.call(lambda bot: bot.kv(self.name).delete(key, expected=expected, id=id))

    def list(self, prefix: str = "", *, after: str | None = None, limit: int | None = None) -> list[KeyedValue]:
        """Return values whose keys begin with a prefix, in the order of their keys."""
        return self._bot.call(lambda bot: bot.kv(self.name).list(prefix, after=after, limit=limit))


def connect(url: str | list[str] | None = None, *, bot: str | None = None, **options: Any) -> SyncBot:
    """Connect a bot, and return it when it has a session; the arguments are those of `bus.connect`.

    Waits for a worker for `wait` seconds (None: forever). Raises what entering a bot's context raises.
    """
    return SyncBot(asynchronous.connect(url, bot=bot, **options))


class _Loop:
    """A thread with an event loop, in which a bot is inside its context, until `stop`."""

    def __init__(self, bot: asynchronous.Bot) -> None:
        """Return when the bot is connected. Raise what that raises, or what interrupts it."""
        self._bot = bot
        self._running: Future[BlockingPortal] = Future()
        self._connected: Future[None] = Future()
        self._connecting: anyio.CancelScope
        self._thread = threading.Thread(target=anyio.run, args=(self._run,), name="posthouse", daemon=True)
        self._thread.start()
        try:
            self.portal = self._running.result()
            self._connected.result()
        except BaseException:  # Ctrl-C, perhaps before there was a portal
            self.portal = self._running.result()
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"<_Loop of {self._bot!r}>"

    async def _run(self) -> None:
        async with BlockingPortal() as portal:
            self._connecting = anyio.CancelScope()
            self._running.set_result(portal)
            try:
                with self._connecting:
                    async with self._bot:
                        self._connected.set_result(None)
                        await portal.sleep_until_stopped()
            except Exception as error:
                if self._connected.done():
                    raise
                self._connected.set_exception(error)
            await portal.stop(cancel_remaining=True)

    def stop(self) -> None:
        """Let the bot leave its context, and wait until the thread has ended."""
        with suppress(RuntimeError):  # it has stopped by itself
            self.portal.start_task_soon(self._stop)
        self._thread.join()

    async def _stop(self) -> None:
        if not self._connected.done():
            self._connecting.cancel()
        await self.portal.stop()


class _Called(Generic[T]):
    """One call in the bot's loop, which can be cancelled from the moment at which it was made."""

    def __init__(self, function: _Call[T], bot: asynchronous.Bot) -> None:
        self._function = function
        self._bot = bot
        self._scope: anyio.CancelScope | None = None

    async def run(self) -> T:
        with anyio.CancelScope() as self._scope:
            return await self._function(self._bot)
        raise CancelledError

    async def cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


def _check_loop() -> None:
    """Raise RuntimeError in the thread of a running event loop, but for that of a notebook, which is of asyncio."""
    loop, trio = running_loops()
    if trio is not None or (loop is not None and "ipykernel" not in sys.modules):
        raise RuntimeError(
            "this thread runs an event loop, which a synchronous call would stop: use bus.connect and await, or"
            " call from another thread, with anyio.to_thread.run_sync"
        )
