"""What a bot's author works with: a bot that sends, subscribes and receives.

Owns the public calls. How they reach the worker, and what happens when it is away, is in `connection`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Literal

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import uuid_utils
import zmq

from store.records import timestamp

from .bodies import write_body
from .connection import Connection, Ticket
from .errors import BusError, ClosedError, InvalidBody, TooLarge, WorkerUnavailable
from .message import Message, Receipt
from .protocol import (
    PROTOCOL_VERSION,
    Ack,
    Bots,
    Channels,
    Credit,
    DeadLetters,
    Gap,
    Hello,
    History,
    MessageQuery,
    Nak,
    Publication,
    RetryDeadLetters,
    StartAt,
    Status,
    StoredMessage,
    Subscribe,
    Subscriptions,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
    encode,
    is_id,
)
from .transport import connect_command

__all__ = ["DEFAULT_URL", "Bot", "Draft", "connect"]

DEFAULT_URL = "tcp://127.0.0.1:7710"
"""Where a worker listens when it is not told otherwise."""

_VERSION = "posthouse-python/0.1"
_GOODBYE_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
_TIMEOUT_SECONDS = 60.0
_MAX_IN_FLIGHT = 100

_HISTORY_PORTION = 1000
"""The protocol's most messages in one answer."""

_RECEIVED_A_TURN = 64
"""Messages taken from memory before other tasks get a turn; in one turn acks share a frame."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be published: to a bot (name or id) or on a channel, with a body that can be JSON."""

    body: Any
    to: str | None = None
    channel: str | None = None
    message_type: str = "message"
    reply_to: str | None = None
    headers: Mapping[str, str] = {}
    id: str | None = None


class Bot:
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
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        """Describe a bot; nothing is opened before the context is entered.

        `max_in_flight` (0 to 1000) is how many messages may be with this bot unsettled; 0 makes one that only
        sends. `context` is the ZeroMQ context to use, which inproc addresses need.
        """
        self.name = name
        self.url = url
        self.timeout = timeout
        self._context = context or zmq.Context.instance()
        self._inbox: deque[Message] = deque()
        self._arrived = anyio.Event()
        self._received = 0
        self._bot_id = bot_id
        self._max_in_flight = max_in_flight
        self._tasks: anyio.abc.TaskGroup | None = None
        self._connection = Connection(
            lambda: connect_command(self._context, url),
            self._hello,
            deliver=self._deliver,
            gap=self._deliver_gap,
            closed=self._wake,
        )
        self.gaps: list[Gap] = []
        """What the mailbox lost, as the worker reported it: by retention or by damage."""

    def __repr__(self) -> str:
        return f"<Bot {self.name!r} at {self.url} {self._connection!r} inbox={len(self._inbox)}>"

    async def __aenter__(self) -> Bot:
        if self._tasks is not None:
            raise RuntimeError("a bot's context is entered once; make another Bot to connect again")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            self._tasks.start_soon(self._connection.run)
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
        self._arrived.set()
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)

    def _hello(self, number: int) -> Hello:
        return Hello(
            request=number,
            protocol=PROTOCOL_VERSION,
            bot=self.name,
            bot_id=self._bot_id,
            max_in_flight=self._max_in_flight,
            client=_VERSION,
        )

    # ── Sending ──────────────────────────────────────────────────────────────────────────────────────────

    async def send(
        self,
        to: str,
        body: Any,
        *,
        message_type: str = "message",
        reply_to: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Receipt:
        """Send a direct message to a bot, by name or id; return when it is on the worker's disk.

        Raises UnknownBot, InvalidBody, TooLarge, LimitReached or StorageFull; then nothing was stored. After
        WorkerUnavailable that is unknown: send again with the same `id`, and it is stored once.
        """
        draft = Draft(to=to, body=body, message_type=message_type, reply_to=reply_to, headers=headers or {}, id=id)
        return (await self.send_all([draft]))[0]

    async def publish(
        self,
        channel: str,
        body: Any,
        *,
        message_type: str = "message",
        reply_to: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> Receipt:
        """Publish on a channel, which comes into being by that; otherwise like `send`."""
        draft = Draft(
            channel=channel,
            body=body,
            message_type=message_type,
            reply_to=reply_to,
            headers=headers or {},
            id=id,
        )
        return (await self.send_all([draft]))[0]

    async def send_all(self, drafts: Iterable[Draft]) -> list[Receipt]:
        """Send many messages, in order and in few frames; return when all are on disk.

        Raises the first message's error where some were refused; the others stand.
        """
        ids: list[str] = []
        payloads: list[bytes] = []
        for draft in drafts:
            message_id = draft.id or str(uuid_utils.uuid7())
            ids.append(message_id)
            payloads.append(self._payload(draft, message_id))
        if not ids:
            return []
        ticket = Ticket(ids, payloads)
        try:
            with anyio.move_on_after(self.timeout) as scope:
                await self._connection.publish(ticket)
        finally:
            if ticket.open:
                self._connection.forget(ticket)
        if scope.cancelled_caught:
            raise self._unavailable(f"message {ids[0]}" if len(ids) == 1 else f"{len(ids)} messages")
        receipts: list[Receipt] = []
        for outcome in ticket.outcomes:
            if not isinstance(outcome, Receipt):
                assert outcome is not None
                raise outcome
            receipts.append(outcome)
        return receipts

    def _payload(self, draft: Draft, message_id: str) -> bytes:
        if (draft.to is None) == (draft.channel is None):
            raise ValueError("a message goes either to a bot or on a channel")
        recipient: ToBot | ToChannel
        if draft.to is None:
            recipient = ToChannel(draft.channel or "")
        else:
            recipient = ToBot(bot_id=draft.to) if is_id(draft.to) else ToBot(bot=draft.to)
        try:
            body = write_body(draft.body)
        except ValueError as error:
            raise InvalidBody("invalid_body", str(error)) from None
        payload = encode(
            Publication(
                id=message_id,
                recipient=recipient,
                body=msgspec.Raw(body),
                message_type=draft.message_type,
                reply_to=draft.reply_to,
                headers=dict(draft.headers),
            )
        )
        welcome = self._connection.welcome
        if welcome is not None and len(payload) > welcome.max_frame_bytes - 128:
            most = f"the message has {len(payload)} bytes; a frame has at most {welcome.max_frame_bytes}"
            raise TooLarge("too_large", most)
        return payload

    # ── Receiving ────────────────────────────────────────────────────────────────────────────────────────

    async def subscribe(
        self,
        channel: str,
        *,
        start: Literal["new", "all"] | int | datetime = "new",
        echo: bool = False,
    ) -> int:
        """Subscribe to a channel, for good: it survives this session and the worker's restarts.

        Returns the seq after which its messages are delivered. `start` is "new", "all", a seq to begin with, or a
        time with a zone. `echo` delivers this bot's own messages too. Subscribing again changes nothing.
        """
        place: Literal["new", "all"] | StartAt
        if isinstance(start, datetime):
            if start.tzinfo is None:
                raise ValueError("start needs a time zone, for instance datetime.now(UTC)")
            place = StartAt(time=timestamp(start))
        else:
            place = StartAt(seq=start) if isinstance(start, int) else start
        if place != "new":
            self._connection.want_again()
        value = await self._request(
            f"the subscription to {channel!r}",
            lambda number: Subscribe(request=number, channel=channel, start=place, echo=echo),
        )
        return int(value["start_seq"])

    async def unsubscribe(self, channel: str) -> bool:
        """End a subscription; False where there was none."""
        value = await self._request(
            f"the end of the subscription to {channel!r}",
            lambda number: Unsubscribe(request=number, channel=channel),
        )
        return bool(value["removed"])

    def messages(self) -> AsyncIterator[Message]:
        """Give messages as they come: first deliveries in the order of the log, each to one of the iterators.

        Never ends: leave it with `break`, or by leaving the bot's context, which raises ClosedError here.
        """
        return _Messages(self)

    async def receive(self) -> Message:
        """Wait for the next message; raises ClosedError when the bot is closed."""
        self._received += 1
        if self._received % _RECEIVED_A_TURN == 0:
            await anyio.lowlevel.checkpoint()
        while not self._inbox:
            if self._connection.failure is not None:
                raise self._connection.failure
            self._arrived = anyio.Event() if self._arrived.is_set() else self._arrived
            await self._arrived.wait()
        return self._inbox.popleft()

    def receive_nowait(self) -> Message | None:
        """Give the next message that has arrived, or None."""
        return self._inbox.popleft() if self._inbox else None

    async def set_credit(self, max_in_flight: int) -> None:
        """Change how many messages may be with this bot unsettled; 0 pauses. It holds for later sessions too."""
        self._max_in_flight = max_in_flight
        await self._request(
            "the change of credit", lambda number: Credit(request=number, max_in_flight=max_in_flight)
        )

    def _wake(self) -> None:
        self._arrived.set()

    def _deliver(self, stored: StoredMessage) -> None:
        self._inbox.append(Message(self, stored))
        self._arrived.set()

    def _deliver_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    async def _settle(
        self,
        message: Message,
        how: Literal["ack", "nak", "term"],
        *,
        confirm: bool,
        delay: float | None = None,
        reason: str | None = None,
    ) -> None:
        connection = self._connection
        if message.settled:
            if confirm:
                await self._confirm(message)
            return
        message.settled = True
        if not connection.holds(message.stored):
            return  # the log was replaced under it: its seq is another message's now
        message._settled_in = connection.sessions
        seqs = [message.seq]
        if how == "ack":
            connection.settle(message.stored)
        else:
            connection.release(message.stored)
        if how == "ack" and not confirm:
            connection.ack(message.seq)
            return

        def make(number: int | None) -> Ack | Nak | Term:
            if how == "ack":
                return Ack(seqs=seqs, request=number)
            if how == "nak":
                return Nak(seqs=seqs, delay=delay, request=number)
            return Term(seqs=seqs, reason=reason, request=number)

        if confirm:
            await self._request(f"the {how} of message {message.seq}", make, once=True)
        else:
            connection.send(make(None))

    async def _confirm(self, message: Message) -> None:
        """Confirm what was said before: the worker has taken that when it answers what comes after."""
        if message._settled_in != self._connection.sessions:
            raise WorkerUnavailable(
                "the session in which this was settled is over: it cannot be confirmed any more"
            )
        await self._request(
            f"the settling of message {message.seq}",
            lambda number: Ack(seqs=[message.seq], request=number),
            once=True,
        )

    def _release(self, message: Message) -> None:
        self._connection.release(message.stored)

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────

    async def history(
        self,
        *,
        between: tuple[str, str] | None = None,
        channel: str | None = None,
        thread: str | None = None,
        before_seq: int | None = None,
        limit: int = 50,
    ) -> list[StoredMessage]:
        """Read back a conversation, newest first: of two bots, of a channel, or around a message's id.

        At most `limit` messages; go on with `before_seq` of the last one.
        """
        found: list[StoredMessage] = []
        more = True
        while more and len(found) < limit:
            if found:
                before_seq = found[-1].seq
            wanted = min(limit - len(found), _HISTORY_PORTION)
            value = await self._history(between, channel, thread, before_seq, wanted)
            found += msgspec.convert(value["messages"], list[StoredMessage])
            more = value["more"]
        return found

    async def _history(
        self,
        between: tuple[str, str] | None,
        channel: str | None,
        thread: str | None,
        before_seq: int | None,
        limit: int,
    ) -> dict[str, Any]:
        return await self._request(
            "the history",
            lambda number: History(
                request=number,
                between=between,
                channel=channel,
                thread=thread,
                before_seq=before_seq,
                limit=limit,
            ),
        )

    async def find(self, message_id: str) -> dict[str, Any]:
        """Give a message by its id, and what became of it in each mailbox that it went to."""
        return await self._request("the message", lambda number: MessageQuery(request=number, id=message_id))

    async def bots(self) -> list[dict[str, Any]]:
        """List all bots: id, name, online, created_at, last_seen_at, backlog."""
        return _rows(await self._request("the bots", lambda number: Bots(request=number)), "bots")

    async def channels(self) -> list[dict[str, Any]]:
        """List all channels: name, created_at, created_by_bot_id, subscribers, messages."""
        return _rows(await self._request("the channels", lambda number: Channels(request=number)), "channels")

    async def subscriptions(self, *, bot: str | None = None, channel: str | None = None) -> list[dict[str, Any]]:
        """List the subscriptions of a bot (this one, unless named), or to a channel."""
        value = await self._request(
            "the subscriptions", lambda number: Subscriptions(request=number, bot=bot, channel=channel)
        )
        return _rows(value, "subscriptions")

    async def dead_letters(self, *, bot: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """List what a bot's mailbox (this one's, unless named) gave up on, newest first."""
        value = await self._request(
            "the dead letters", lambda number: DeadLetters(request=number, bot=bot, limit=limit)
        )
        return _rows(value, "dead_letters")

    async def retry_dead_letters(self, seqs: Sequence[int], *, bot: str | None = None) -> int:
        """Put dead letters back into the mailbox; return how many there were."""
        value = await self._request(
            "the retry",
            lambda number: RetryDeadLetters(request=number, bot=bot or self.name, seqs=list(seqs)),
        )
        return int(value["retried"])

    async def status(self) -> dict[str, Any]:
        """Ask the worker how it is: counters, rates, sizes, versions."""
        return await self._request("the status", lambda number: Status(request=number))

    async def _request(self, what: str, make: Any, *, once: bool = False) -> dict[str, Any]:
        with anyio.move_on_after(self.timeout):
            value: dict[str, Any] = msgspec.json.decode(await self._connection.request(make, once=once))
            return value
        raise self._unavailable(what)

    def _unavailable(self, what: str) -> WorkerUnavailable:
        return WorkerUnavailable(
            f"no answer for {what} within {self.timeout:g} s from {self.url}: the worker may be down,"
            " and whether it took this is unknown"
        )


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
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> Bot:
    """Connect a bot to the worker at a URL; to be used as `async with bus.connect(...) as bot:`.

    Entering raises WorkerUnavailable where no worker answers, and BotConflict or UnsupportedProtocol where it
    refuses. A name that the worker has not seen registers a new bot.
    """
    return Bot(bot, url, bot_id=bot_id, max_in_flight=max_in_flight, timeout=timeout, context=context)


def _rows(value: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = value[name]
    return rows
