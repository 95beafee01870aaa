"""What a bot's author works with: a bot that sends, subscribes and receives.

Owns the public calls. How they reach the worker, and what happens when it is away, is in `connection`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar, Unpack

import anyio
import anyio.abc
import uuid_utils
import zmq

from .client.asking import Asking
from .client.caller import Caller
from .client.connection import Connection
from .client.draft import Draft, SendOptions
from .client.home import Home
from .client.inbox import Inbox
from .client.message import Message
from .client.replies import Replies
from .client.sending import Sender
from .client.serving import CONCURRENCY, STOP_SECONDS, Application, Handler, StartPosition
from .client.settling import Settler
from .client.waiting import Receipt
from .client.watch import Watch
from .errors import BusError, ClosedError, WorkerUnavailable
from .model.records import timestamp
from .runs.approvals import APPROVE, REJECT, take_answer
from .runs.repository import RemoteWorkflows
from .transport import connect_command, connect_tap
from .wire.answers import SubscriptionEnd, SubscriptionStart
from .wire.frames import PROTOCOL_VERSION, Gap, Hello, StartAt, StoredMessage, Subscribe, Unsubscribe

__all__ = ["DEFAULT_TAP_URL", "DEFAULT_URL", "Bot", "connect"]

DEFAULT_URL = "tcp://127.0.0.1:7710"
"""Where a worker listens when it is not told otherwise."""

DEFAULT_TAP_URL = "tcp://127.0.0.1:7711"
"""Where its tap is."""

_H = TypeVar("_H", bound=Handler)

_logger = logging.getLogger("posthouse.client")

_VERSION = "posthouse-python/0.1"
_GOODBYE_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
_TIMEOUT_SECONDS = 60.0
_MAX_IN_FLIGHT = 100
_REPLY_SECONDS = 30.0


class Bot(Asking):
    """A bot's connection: `async with bus.connect(...) as bot:`.

    Inside the context the bot keeps its session by itself: it says hello again after a restart of the worker and
    repeats what was not answered, with the same ids. Every call waits for its answer for at most `timeout` seconds
    (None: for ever) and then raises WorkerUnavailable; a refusal raises a RequestError with the worker's code.
    """

    def __init__(
        self,
        name: str,
        url: str = DEFAULT_URL,
        *,
        bot_id: str | None = None,
        max_in_flight: int = _MAX_IN_FLIGHT,
        timeout: float | None = _TIMEOUT_SECONDS,
        tap_url: str = DEFAULT_TAP_URL,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        """Describe a bot; nothing is opened before the context is entered.

        `max_in_flight` (0 to 1000) is how many messages may be with this bot unsettled; 0 makes one that only
        sends. `tap_url` is what `watch` listens to. `context` is the ZeroMQ context to use, which inproc addresses
        need.
        """
        self.url = url
        self.tap_url = tap_url
        self._context = context
        self._made_in = os.getpid()
        self._bot_id = bot_id
        self._tasks: anyio.abc.TaskGroup | None = None
        self._connected_scope: anyio.CancelScope
        self._connection = Connection(
            Home(f"bot {name!r}"),
            lambda: connect_command(self._sockets, url),
            self._hello,
            deliver=self._deliver,
            gap=lambda gap: self.gaps.append(gap),
            closed=self._closed,
            beat=lambda: self._inbox.look_for_forgotten(),
        )
        caller = Caller(self._connection, url, timeout)
        super().__init__(name, caller)
        self._sender = Sender(caller)
        self._settler = Settler(caller)
        self._inbox = Inbox(name, caller, max_in_flight)
        self._replies = Replies(self, caller, self._sender, self._settler, self._inbox)
        self.workflows = RemoteWorkflows(caller, self._settler)
        """The worker's workflows; raises `store.errors`, as an open store's does."""
        answer = partial(take_answer, self.workflows)
        self._application = Application(self, self._inbox, {APPROVE: answer, REJECT: answer})
        self.gaps: list[Gap] = []
        """What the mailbox lost, as the worker reported it: by retention or by damage."""

    def __repr__(self) -> str:
        return f"<Bot {self.name!r} at {self.url} {self._connection!r} inbox={len(self._inbox)}>"

    @property
    def timeout(self) -> float | None:
        """How many seconds each call waits for its answer; None for ever."""
        return self._caller.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._caller.timeout = seconds

    @property
    def is_entered(self) -> bool:
        """Whether the bot is inside its context, or was."""
        return self._tasks is not None

    def check_home(self) -> None:
        """Raise RuntimeError in another event loop, thread or process than the one that the bot connects in."""
        self._connection.home.check()

    async def __aenter__(self) -> Bot:
        if self._tasks is not None:
            self._connection.home.check()
            raise RuntimeError("a bot's context is entered once; make another Bot to connect again")
        self._check_context()
        self._connected_scope = anyio.CancelScope(shield=True)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._keep_connected)
            self._tasks.start_soon(self._replies.run)
            with anyio.move_on_after(None if self.timeout is None else min(self.timeout, _CONNECT_SECONDS)):
                await self._connection.connected.wait()
            if self._connection.failure is not None:
                raise self._connection.failure
            if not self._connection.connected.is_set():
                if self._connection.refusal is not None:
                    raise self._connection.refusal
                raise WorkerUnavailable(
                    f"no worker answers at {self.url}; start one with 'posthouse serve', or check the address"
                )
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        # The group is left without the body's exception: an author who raises ValueError in a bot's context
        # gets a ValueError out of it, not a group of one.
        assert self._tasks is not None
        with anyio.move_on_after(_GOODBYE_SECONDS, shield=True):
            with contextlib.suppress(BusError):  # the session may be over already
                await self._connection.goodbye()
        self._connection.close(ClosedError(f"bot {self.name!r} was closed"))
        self._connected_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    def _check_context(self) -> None:
        if self._context is not None and self._made_in != os.getpid():
            raise RuntimeError(
                f"the ZeroMQ context of bot {self.name!r} belongs to process {self._made_in}, from which this one"
                " was forked: make the bot here, with a context of this process"
            )

    @property
    def _sockets(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The ZeroMQ context: where none was given, that of this process, which may have been forked since."""
        return zmq.Context.instance() if self._context is None else self._context

    async def _keep_connected(self) -> None:
        # A context that is cancelled still says goodbye: what it holds goes back in order then, which is not held
        # against the messages, and a vanished session is.
        with self._connected_scope:
            await self._connection.run()

    def _hello(self, number: int) -> Hello:
        return Hello(
            request=number,
            protocol=PROTOCOL_VERSION,
            bot=self.name,
            bot_id=self._bot_id,
            max_in_flight=self._inbox.max_in_flight,
            client=_VERSION,
            awaits=self._replies.returning(),
        )

    # ── Sending ──────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, to: str, body: Any, **options: Unpack[SendOptions]) -> Receipt:
        """Send a direct message to a bot, by name or id; return when it is on the worker's disk.

        Raises UnknownBot, InvalidBody, TooLarge, LimitReached or StorageFull; then nothing was stored. After
        WorkerUnavailable that is unknown: send again with the same `id`, and it is stored once. After `ttl` seconds
        it is not delivered any more. With a `delay` it enters the log that many seconds later, by the worker's
        clock, also where the worker was down at that time; when this returns, it is on disk, and has no seq yet.
        """
        return (await self.send_all([Draft(to=to, body=body, **options)]))[0]

    async def publish(self, channel: str, body: Any, **options: Unpack[SendOptions]) -> Receipt:
        """Publish on a channel, which comes into being by that; otherwise like `send`."""
        return (await self.send_all([Draft(channel=channel, body=body, **options)]))[0]

    async def request(
        self,
        to: str,
        body: Any,
        *,
        timeout: float = _REPLY_SECONDS,
        message_type: str = "message",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Message:
        """Send a direct message and wait for the first reply to it, which is settled when it is returned.

        The reply comes ahead of everything that waits in the mailbox, and outside the credit: a bot whose handlers
        are all at work can still ask. Raises ReplyTimeout, which says how far the message got; a reply that comes
        later, or after a restart of this bot, is an ordinary message. One that was stored while the connection was
        broken is returned here, too, and may also be delivered to another process of this bot, as ordinary mail.

        Asked again with the same `id`, a UUID, also by a later process of this bot, it is the same question: it is
        not delivered again for that, and its first reply is given, also one that came meanwhile.
        """
        message_id = id or str(uuid_utils.uuid7())
        draft = Draft(
            to=to, body=body, message_type=message_type, headers=headers or {}, id=message_id, expects_reply=True
        )
        return await self._replies.ask(draft, message_id, timeout=timeout)

    async def send_all(self, drafts: Iterable[Draft]) -> list[Receipt]:
        """Send many messages, in order and in few frames; return when all are on disk.

        Raises the first message's error where some were refused; the others stand.
        """
        return await self._sender.send_all(drafts)

    # ── Receiving ────────────────────────────────────────────────────────────────────────────────────────

    async def subscribe(
        self,
        channel: str,
        *,
        start: Literal["new", "all"] | int | datetime = "new",
        echo: bool = False,
        group: str | None = None,
    ) -> int:
        """Subscribe to a channel, for good: it survives this session and the worker's restarts.

        Returns the seq after which its messages are delivered. `start` is "new", "all", a seq to begin with, or a
        time with a zone. `echo` delivers this bot's own messages too. Subscribing again changes nothing.

        With a `group`, each message goes to one of the bots that subscribed in the group of that name; what they
        have still to do waits for them together, also while none of them is there. The first one opens the group at
        its `start`. Raises Conflict where the bot is subscribed in another way: by itself, or in another group.
        """
        place: Literal["new", "all"] | StartAt
        if isinstance(start, datetime):
            if start.tzinfo is None:
                raise ValueError("start needs a time zone, for instance datetime.now(UTC)")
            place = StartAt(time=timestamp(start))
        else:
            place = StartAt(seq=start) if isinstance(start, int) else start
        if place != "new":
            self._connection.deliveries.want_again()
        answer = await self._caller.request(
            f"the subscription to {channel!r}",
            lambda number: Subscribe(request=number, channel=channel, start=place, echo=echo, group=group),
            SubscriptionStart,
        )
        return answer.start_seq

    async def unsubscribe(self, channel: str) -> bool:
        """End a subscription; False where there was none.

        What is in flight may still be settled; but what came by a group goes to its other members at once, so
        finish that before.
        """
        answer = await self._caller.request(
            f"the end of the subscription to {channel!r}",
            lambda number: Unsubscribe(request=number, channel=channel),
            SubscriptionEnd,
        )
        return answer.removed

    def messages(self) -> AsyncIterator[Message]:
        """Iterate over messages as they arrive: first deliveries in the order of the log, each in one iterator.

        Never ends: leave it with `break`, or by leaving the bot's context, which raises ClosedError here.
        """
        return _Messages(self)

    async def receive(self) -> Message:
        """Wait for the next message and return it. Raise ClosedError when the bot is closed."""
        return await self._inbox.receive()

    def receive_nowait(self) -> Message | None:
        """Return the next message that has arrived, or None."""
        return self._inbox.receive_nowait()

    def watch(self, channel: str) -> Watch:
        """Watch a channel live, without a subscription: `async with bot.watch("news") as messages:`."""
        return Watch(channel, self, self._connection, lambda: connect_tap(self._sockets, self.tap_url))

    async def set_credit(self, max_in_flight: int) -> None:
        """Change how many messages may be with this bot unsettled; 0 pauses. It holds for later sessions too."""
        await self._inbox.set_credit(max_in_flight)

    # ── Serving ──────────────────────────────────────────────────────────────────────────────────────────

    def on_message(self, message_type: str | None = None) -> Callable[[_H], _H]:
        """Make an async function the handler of direct messages of a type, or of all that have no other.

        It takes the Message. Returning acks; a value that is not None is sent as a reply first. Raising naks.
        """
        return self._application.on_message(message_type)

    def on_channel(
        self,
        channel: str,
        message_type: str | None = None,
        *,
        start: StartPosition = "new",
        echo: bool = False,
        group: str | None = None,
    ) -> Callable[[_H], _H]:
        """Make an async function the handler of a channel's messages: of a type, or of all that have no other.

        The bot subscribes to the channel when it starts to serve; `start`, `echo` and `group` are those of
        `subscribe`, and all handlers of one channel name the same. A subscription that stands already keeps its
        place. A returned value is a reply to the sender, and goes to nobody else.
        """
        return self._application.on_channel(channel, message_type, start=start, echo=echo, group=group)

    async def serve(
        self,
        *,
        concurrency: int = CONCURRENCY,
        stop_timeout: float = STOP_SECONDS,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hand messages to the handlers until `stop` is called, or this is cancelled.

        Connects the bot, unless that is inside its context already, and then says goodbye at the end. Never more
        than `concurrency` (1 to 1000) handlers run; that is the bot's credit, too, whatever its `max_in_flight`.
        At the end those that run have `stop_timeout` seconds before they are cancelled. `task_status` is started
        once the channels are subscribed to. Raises what connecting and subscribing raise, and ClosedError.
        """
        await self._application.serve(concurrency=concurrency, stop_timeout=stop_timeout, task_status=task_status)

    def stop(self) -> None:
        """Stop serving in order; `serve` and `run` return when that is done. Does nothing where nobody serves."""
        self._application.stop()

    def run(
        self,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        concurrency: int = CONCURRENCY,
        stop_timeout: float = STOP_SECONDS,
    ) -> None:
        """Serve in an event loop of its own until SIGINT or SIGTERM, which a program's main thread receives.

        The first signal stops in order, and this returns; a second one cancels the handlers that still run. In
        another thread only `stop` ends it, and on Windows Ctrl-C. Raises what `serve` raises.
        """
        self._application.run(backend=backend, concurrency=concurrency, stop_timeout=stop_timeout)

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _closed(self) -> None:
        self._inbox.wake()
        self._replies.close()

    def _deliver(self, stored: StoredMessage) -> None:
        message = Message(stored, self._settler, self._sender)
        if not self._replies.take(message):
            self._inbox.put(message)


class _Messages:
    """An iterator that may be left at any point: it holds nothing, unlike an asynchronous generator."""

    def __init__(self, bot: Bot) -> None:
        self._bot = bot

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Message:
        return await self._bot.receive()


def connect(
    url: str = DEFAULT_URL,
    *,
    bot: str,
    bot_id: str | None = None,
    max_in_flight: int = _MAX_IN_FLIGHT,
    timeout: float | None = _TIMEOUT_SECONDS,
    tap_url: str = DEFAULT_TAP_URL,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> Bot:
    """Connect a bot to the worker at a URL; to be used as `async with bus.connect(...) as bot:`.

    Entering raises WorkerUnavailable where no worker answers, and BotConflict or UnsupportedProtocol where it
    refuses. A name that the worker has not seen registers a new bot.
    """
    return Bot(
        bot,
        url,
        bot_id=bot_id,
        max_in_flight=max_in_flight,
        timeout=timeout,
        tap_url=tap_url,
        context=context,
    )
