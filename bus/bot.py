"""The API for a bot's author: a bot that sends, subscribes and receives.

Owns the public calls. `connection` transmits them to the worker, and handles its absence.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Unpack, overload

import anyio
import anyio.abc
import zmq

from .client.asking import Asking
from .client.bot_keys import BotKeys
from .client.bot_rights import BotRights
from .client.caller import Caller
from .client.connection import Connection
from .client.credentials import Credentials
from .client.draft import Draft, PublishOptions, SendOptions
from .client.endpoint import DEFAULT_TAP_URL, DEFAULT_URL, Endpoint
from .client.home import Home
from .client.ids import checked_id, checked_name
from .client.inbox import Inbox
from .client.keyed import KeyedCaller, KeyedStore
from .client.message import Message
from .client.middleware import Middlewares
from .client.removing import Removing
from .client.replies import Replies
from .client.requesting import Requesting
from .client.sending import Sender
from .client.serving import Application
from .client.settling import Settler
from .client.starts import StartPosition, start_of, telling_of_logs
from .client.subscribed import OwnSubscriptions
from .client.waiting import Receipt
from .client.watch import Watch
from .client.wills import LastWill
from .errors import BusError, ClosedError, WorkerUnavailable
from .model.records import CONSOLE_NAME
from .runs.approvals import APPROVE, REJECT, take_answer
from .runs.executing import RunFunctions
from .runs.handlers import Handlers
from .runs.repository import RemoteWorkflows
from .wire.answers import KeptMessage, SubscriptionEnd, SubscriptionStart
from .wire.frames import PROTOCOL_VERSION, Gap, Hello, StoredMessage, Subscribe, Unsubscribe

__all__ = ["DEFAULT_TAP_URL", "DEFAULT_URL", "Bot", "connect"]


_logger = logging.getLogger("posthouse.client")

_VERSION = "posthouse-python/0.1"
_GOODBYE_SECONDS = 2.0
_SILENT_SECONDS = 2.0
"""How long nothing is said while there is no worker."""
_TIMEOUT_SECONDS = 60.0
_MAX_IN_FLIGHT = 100
_GRACE_SECONDS = 3600.0


class Bot(Asking, Removing, Requesting, Handlers):
    """A bot's connection: `async with bus.connect(...) as bot:`.

    Inside the context the bot keeps its session: after a restart of the worker it reconnects and repeats unanswered
    requests, with the same ids. Every call waits for its answer for at most `timeout` seconds (None: forever) and
    then raises WorkerUnavailable; a refusal raises a RequestError with the worker's code.
    """

    def __init__(
        self,
        name: str | None = None,
        url: str | Sequence[str] | None = None,
        *,
        credentials: Credentials | str | os.PathLike[str] | None = None,
        bot_id: str | None = None,
        max_in_flight: int = _MAX_IN_FLIGHT,
        timeout: float | None = _TIMEOUT_SECONDS,
        wait: float | None = None,
        tap_url: str | Sequence[str] | None = None,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        read_only: bool = False,
    ) -> None:
        """Describe a bot; nothing is opened before the context is entered.

        `credentials`, or a file of them, or the one that POSTHOUSE_CREDENTIALS names, say who the bot is, and where
        its worker; `url` and `tap_url` may still be other ways there. Without credentials the bot needs a name, and
        the address is `DEFAULT_URL`. That of the tap, for `watch`, is told by the worker, or else
        `DEFAULT_TAP_URL`. Where several workers stand in for each other, both may be lists, and the bot finds the
        worker that serves. Raises CredentialsError, AddressError, and InvalidValue for what cannot be a name, an id
        or a credit.

        `max_in_flight` (0 to 1000) is how many messages may be in flight for this bot; a bot with 0 only sends.
        Entering the context waits for a worker for `wait` seconds; None means forever. `context` is the ZeroMQ
        context to use, which inproc addresses need. With `read_only` it only asks: everything else raises
        Forbidden, no message is delivered, and without credentials it is no bot, and has no name.
        """
        self._endpoint = endpoint = Endpoint(url, tap_url, credentials=credentials, context=context)
        if read_only and endpoint.credentials is None:
            if name is not None:
                raise ValueError("a read-only session belongs to no bot: leave out its name")
            name = CONSOLE_NAME
        name = checked_name("bot", endpoint.name_of(name))
        self._read_only, self._wait = read_only, wait
        self._has_context, self._made_in = context is not None, os.getpid()
        self._bot_id = None if bot_id is None else checked_id("bot_id", bot_id)
        self._tasks: anyio.abc.TaskGroup | None = None
        self._connected_scope: anyio.CancelScope
        self._connection = Connection(
            Home(f"bot {name!r}"),
            endpoint,
            self._hello,
            deliver=self._deliver,
            gap=lambda gap: self.gaps.append(gap),
            closed=self._closed,
            beat=lambda: self._inbox.look_for_forgotten(),
        )
        caller = Caller(self._connection, endpoint.where, timeout)
        super().__init__(name, caller)
        self._middleware = Middlewares(name)
        self._sender = Sender(name, caller, self._middleware)
        self._settler = Settler(caller)
        self._inbox = Inbox(name, caller, max_in_flight)
        self._replies = Replies(self, caller, self._sender, self._settler, self._inbox)
        self._will = LastWill(caller)
        self._subscriptions = OwnSubscriptions(caller, self._inbox)
        self.keys = BotKeys(caller)
        """The keys of the worker's bots, for a bot that may manage them."""
        self.rights = BotRights(caller)
        """What bots may do, and the worker's configuration, for those who look after it."""
        self.workflows = RemoteWorkflows(caller, self._settler, self._middleware)
        """The worker's workflows; raises `bus.errors`, like those of an open store."""
        self._keyed = KeyedCaller(caller)
        answer = partial(take_answer, self.workflows)
        self._run_functions = RunFunctions(self.workflows, self._connection.wakes, self._middleware)
        own = {APPROVE: answer, REJECT: answer}
        self._application = Application(self, self._inbox, own, self._run_functions, self._middleware)
        self.gaps: list[Gap] = []
        """The messages that the mailbox lost by retention or damage, as reported by the worker."""

    def __repr__(self) -> str:
        return f"<Bot {self.name!r} at {self.url} {self._connection!r} inbox={len(self._inbox)}>"

    @property
    def url(self) -> str:
        """The address of the worker that the bot is, or is being, connected to."""
        return self._endpoint.url

    @property
    def tap_url(self) -> str:
        """The address of its tap, for `watch`."""
        return self._endpoint.tap_url

    @property
    def timeout(self) -> float | None:
        """How many seconds each call waits for its answer; None means forever."""
        return self._caller.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._caller.timeout = seconds

    @property
    def is_entered(self) -> bool:
        """Whether the bot is, or was, inside its context."""
        return self._tasks is not None

    def check_home(self) -> None:
        """Raise RuntimeError in an event loop, thread or process other than the one in which the bot connected."""
        self._connection.home.check()

    async def __aenter__(self) -> Bot:
        if self._tasks is not None:
            self._connection.home.check()
            raise RuntimeError("a bot's context can be entered only once; create another Bot to connect again")
        self._check_context()
        self._connected_scope = anyio.CancelScope(shield=True)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._keep_connected)
            self._tasks.start_soon(self._replies.run)
            self._tasks.start_soon(self._will.run)
            self._tasks.start_soon(self._subscriptions.run)
            await self._wait_for_worker()
        except BaseException:
            await self._leave()
            raise
        return self

    async def _wait_for_worker(self) -> None:
        """Wait for the first session. Raise the error why there is none."""
        connected = self._connection.connected
        with anyio.move_on_after(self._wait):
            with anyio.move_on_after(_SILENT_SECONDS):
                await connected.wait()
            if self._wait is None and not connected.is_set() and self._connection.refusal is None:
                _logger.warning("no worker answers at %s; waiting for one", self._endpoint.where)
            await connected.wait()
        if self._wait is not None and isinstance(self._connection.refusal, WorkerUnavailable):
            # A worker answers that it stands by: soon it leads, or another one does.
            with anyio.move_on_after(None if self.timeout is None else self.timeout - self._wait):
                await connected.wait()
        if self._connection.failure is not None:
            raise self._connection.failure
        if not connected.is_set():
            raise self._connection.refusal or WorkerUnavailable(
                f"no worker answers at {self._endpoint.where}; start one with 'posthouse serve', or check the"
                " address"
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        # The group is left without the body's exception, so that a ValueError raised in a bot's context leaves it
        # as a ValueError, not in a group of one.
        assert self._tasks is not None
        with anyio.move_on_after(_GOODBYE_SECONDS, shield=True):
            with contextlib.suppress(BusError):  # the session may have ended
                await self._connection.goodbye()
        self._connection.close(ClosedError(f"bot {self.name!r} was closed"))
        self._connected_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    def _check_context(self) -> None:
        if self._has_context and self._made_in != os.getpid():
            raise RuntimeError(
                f"the ZeroMQ context of bot {self.name!r} belongs to process {self._made_in}, from which this one"
                " was forked: create the bot here, with a context of this process"
            )

    async def _keep_connected(self) -> None:
        # Shielded: a cancelled context still says goodbye, so that its messages are returned without counting as
        # failures, as they would for a vanished session.
        with self._connected_scope:
            await self._connection.run()

    def _hello(self, number: int) -> Hello:
        self._will.returning()
        return Hello(
            request=number,
            protocol=PROTOCOL_VERSION,
            read_only=self._read_only,
            bot=None if self.name == CONSOLE_NAME else self.name,
            bot_id=self._bot_id,
            max_in_flight=self._inbox.max_in_flight,
            client=_VERSION,
            awaits=self._replies.returning(),
        )

    async def rotate(self, *, grace_seconds: float = _GRACE_SECONDS) -> Credentials:
        """Replace this bot's key by a new one, which is used from now on, and return the new credentials.

        The old key stays valid for `grace_seconds`, for other programs of this bot: those that run read the file
        again when it ends. The file of the credentials is replaced before this returns; after an interruption the
        next `rotate` goes on with the same key. Credentials that came from no file have to be kept by the caller.
        Raises RuntimeError for a bot without credentials, and CredentialsError if the file cannot be replaced.
        """
        return await self.keys.rotate(self._endpoint, self._connection, grace_seconds)

    # ── Sending ──────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, to: str, body: Any, **options: Unpack[SendOptions]) -> Receipt:
        """Send a direct message to a bot, by name or id; return when it is on the worker's disk.

        Raises UnknownBot, InvalidBody, TooLarge, LimitReached or StorageFull; then nothing was stored. After
        WorkerUnavailable that is unknown: send again with the same `id`, and it is stored once. After `ttl` seconds
        it is not delivered any more. With a `delay` it enters the log that many seconds later, by the worker's
        clock, even if the worker was down then; when this returns, the message is on disk, but has no seq yet.

        A `priority` of "high" or "low" lets it be delivered before or after all else that waits for the bot then.
        What the bot has received is not called back, and among those of one priority, order holds.
        """
        return await self._sender.send(Draft(to=to, body=body, **options))

    async def publish(self, channel: str, body: Any, **options: Unpack[PublishOptions]) -> Receipt:
        """Publish on a channel, creating it if it does not exist; otherwise like `send`.

        With `retain` the message becomes the last value of the channel, in the same transaction, for those who
        subscribe later. It stays until the next one, or for its `ttl`; a body of None clears it.
        """
        return await self._sender.send(Draft(channel=channel, body=body, **options))

    async def send_all(self, drafts: Iterable[Draft]) -> list[Receipt]:
        """Send many messages, in order and in few frames; return when all are on disk.

        If some are refused, raises the error of the first of them; the others are stored.
        """
        return await self._sender.send_all(drafts)

    async def will(self, draft: Draft | None, *, delay: float | None = None) -> None:
        """Leave a message that the worker sends in the bot's name if it vanishes; return when that is on disk.

        The worker sends it, once, when the bot has had no session for `delay` seconds (by default the time after
        which a silent session ends), unless the last session said goodbye, as at the end of `async with`, even
        after an error: then it is deleted. That holds if the worker is killed as well: its successor waits for the
        bot first. A bot has one will, whichever of its programs left it; another one takes its place, and None
        takes it back. It is left again, with a new id, in each session that this client has to open later. The bot
        needs the right to send the message, now and then. Raises what `send` raises.
        """
        await self._will.leave(draft, delay)

    # ── Keyed stores ─────────────────────────────────────────────────────────────────────────────────────

    def kv(self, name: str) -> KeyedStore:
        """Return a keyed store of the worker, for values that bots share; nothing is sent before it is used."""
        return KeyedStore(name, self._keyed)

    async def kv_stores(self) -> list[str]:
        """Return the names of the keyed stores that have values, and that this bot may read."""
        return await self._keyed.stores()

    async def retained(self, channel: str) -> KeptMessage | None:
        """Return the last value of a channel: the message that was published with `retain` last; None without one.

        It may have left the log. With keys, it needs the right to read the channel.
        """
        return await self._keyed.retained(channel)

    # ── Receiving ────────────────────────────────────────────────────────────────────────────────────────

    @overload
    async def subscribe(
        self,
        channel: str,
        *,
        start: StartPosition = ...,
        epoch: str | None = ...,
        echo: bool = ...,
        group: str | None = ...,
    ) -> int: ...

    @overload
    async def subscribe(
        self,
        channel: str,
        *,
        start: StartPosition = ...,
        epoch: str | None = ...,
        echo: bool = ...,
        group: str | None = ...,
        retained: Literal[True],
    ) -> KeptMessage | None: ...

    async def subscribe(
        self,
        channel: str,
        *,
        start: StartPosition = "new",
        epoch: str | None = None,
        echo: bool = False,
        group: str | None = None,
        retained: bool = False,
    ) -> int | KeptMessage | None:
        """Subscribe to a channel permanently: the subscription survives this session and the worker's restarts.

        Returns the seq after which its messages are delivered. `start` is "new", "all", the first seq, or a time
        with a zone. `echo` delivers this bot's own messages too. Subscribing again changes nothing.

        Whoever keeps a seq as a start should keep `bot.epoch` with it, and give it as `epoch`: if the worker's log
        is another one by now, which is not the same before that seq, nothing is subscribed to, and LogReplaced is
        raised. Start then at its `after_seq` + 1, with its `epoch`.

        With a `group`, each message goes to one of the bots that subscribed in the group of that name; unprocessed
        messages wait for all of them, even while none of them is connected. The first subscription opens the group
        at its `start`. Raises Conflict if the bot is subscribed in another way: individually, or in another group.

        With `retained` it returns instead the last value of the channel, the message that was published with
        `retain` last, or None without one: as it was when the subscription was made, so that all later ones are
        delivered. If the bot was subscribed before, it is the present one, which may be delivered as well.
        """
        place = start_of(start, epoch)
        if place != "new":
            self._connection.deliveries.want_again()
        with telling_of_logs():
            answer = await self._caller.request(
                f"the subscription to {channel!r}",
                lambda number: Subscribe(
                    request=number, channel=channel, start=place, echo=echo, group=group, retained=retained
                ),
                SubscriptionStart,
            )
        self._subscriptions.add(channel, group)
        return answer.retained if retained else answer.start_seq

    async def unsubscribe(self, channel: str) -> bool:
        """End a subscription; return False if there was none.

        Messages in flight may still be settled. But those of a group go to its other members at once, so finish
        them first.
        """
        with self._subscriptions.ending(channel):
            answer = await self._caller.request(
                f"the end of the subscription to {channel!r}",
                lambda number: Unsubscribe(request=number, channel=channel),
                SubscriptionEnd,
            )
        return answer.removed

    def messages(self) -> AsyncIterator[Message]:
        """Iterate over messages as they arrive: first deliveries in the order of the log, each in one iterator.

        It does not end: leave it with `break`, or by leaving the bot's context, which raises ClosedError here. It
        raises SubscriptionRemoved as `receive`; iterate again to go on.
        """
        return _Messages(self._inbox)

    async def receive(self, *, timeout: float | None = None) -> Message:
        """Wait for the next message and return it.

        Raise TimeoutError if none comes within `timeout` seconds (None: wait forever), and ClosedError when the bot
        is closed. Raise SubscriptionRemoved, once, if something that this program subscribed to was removed.
        """
        return await (self._inbox.receive() if timeout is None else self._inbox.receive_within(timeout))

    def receive_nowait(self) -> Message | None:
        """Return the next message that has arrived, or None."""
        return self._inbox.receive_nowait()

    def watch(self, channel: str, *, after: int | None = None, epoch: str | None = None) -> Watch:
        """Watch a channel live, without a subscription: `async with bot.watch("news") as messages:`.

        It begins now, or with the first message after the seq `after`, of the log of `epoch`.
        """
        return Watch(channel, self, self._connection, self._endpoint.open_tap, after=after, epoch=epoch)

    async def set_credit(self, max_in_flight: int) -> None:
        """Change how many messages may be in flight for this bot; 0 pauses. It also applies to later sessions."""
        await self._inbox.set_credit(max_in_flight)

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _closed(self) -> None:
        self._inbox.wake()
        self._replies.close()
        self._will.close()
        self._subscriptions.close()

    def _deliver(self, delivered: Sequence[StoredMessage]) -> None:
        messages = [Message(stored, self._settler, self._sender) for stored in delivered]
        if others := self._replies.take(messages):
            self._inbox.put(others)


class _Messages:
    """An iterator that may be left at any point: it holds nothing, unlike an asynchronous generator."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Message:
        return await self._inbox.receive()


def connect(
    url: str | Sequence[str] | None = None,
    *,
    bot: str | None = None,
    credentials: Credentials | str | os.PathLike[str] | None = None,
    bot_id: str | None = None,
    max_in_flight: int = _MAX_IN_FLIGHT,
    timeout: float | None = _TIMEOUT_SECONDS,
    wait: float | None = None,
    tap_url: str | Sequence[str] | None = None,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
    read_only: bool = False,
) -> Bot:
    """Connect a bot to its worker; use it as `async with bus.connect(...) as bot:`.

    It is named by `bot`, or by its `credentials`, as for `Bot`. Entering waits for a worker; it raises
    WorkerUnavailable if none answers within `wait` seconds, HandshakeError if it has another key than the
    credentials say or does not take the bot's, and BotConflict, Forbidden or UnsupportedProtocol if it refuses the
    bot. Without keys, an unknown name registers a new bot; with `read_only`, as for `Bot`, there is none.
    """
    return Bot(
        bot,
        url,
        credentials=credentials,
        bot_id=bot_id,
        max_in_flight=max_in_flight,
        timeout=timeout,
        wait=wait,
        tap_url=tap_url,
        context=context,
        read_only=read_only,
    )
