"""Serving: messages are passed to handlers, which run concurrently until the bot is stopped.

Owns how many handlers run at once, how a message is settled when its handler ends, and how a bot stops. Its rules:

- If a handler returns, its message is acked; a return value other than None is stored as a reply first, unless
  nothing is left of the budget of its thread. If it raises, a nak is sent and the error is logged. If it is
  cancelled, or stopped by one of the worker's limits, its message is released: it is redelivered without counting
  as a failure.
- If a handler meets a run that has failed or was cancelled (ENDED), or BudgetSpent, or if the body of its message
  does not fit the type that it takes, the message becomes a dead letter at once, with the error as the reason:
  every retry would fail too.
- A message without a handler becomes a dead letter, whose reason says so: it is neither lost nor redelivered again
  and again. Add the handler, and retry it. The worker's notice that a run lost its holder needs none, if the
  message that began the run comes again.
- A handler that waits for a reply, or for a person, lends its place to another one. So bots that ask each other in
  their handlers make progress, however few may run at once.
- Stopping: no new messages are taken, running handlers finish or are cancelled, then comes the goodbye. Cancelling
  the caller stops in the same way: running handlers are shielded from it for as long as `stop_timeout` allows. One
  that only waits in a run is cancelled at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import anyio
import anyio.abc

from ..errors import ENDED, NOT_NOW, BudgetSpent, SubscriptionRemoved
from ..wire.limits import CREDIT_MAX
from ..wire.message_answers import FoundMessage
from .draft import Reply
from .home import Event, Home
from .inbox import Inbox
from .lending import Slot, slot
from .message import Message, never_fits, was_cancelled
from .middleware import Middlewares
from .starts import StartPosition

__all__ = ["Handler", "OwnWork", "Served", "Service", "Serving", "WantedSubscription"]

Handler = Callable[[Message], Awaitable[Any]]

_logger = logging.getLogger("posthouse.client")


class WantedSubscription(NamedTuple):
    """How a bot subscribes to a channel when it starts."""

    start: StartPosition
    echo: bool
    group: str | None


class Served(Protocol):
    """What an application needs of its bot."""

    name: str

    @property
    def is_entered(self) -> bool:
        """Whether the bot is, or was, inside its context."""

    def check_home(self) -> None:
        """Raise RuntimeError in an event loop, thread or process other than the bot's."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def subscribe(self, channel: str, *, start: StartPosition, echo: bool, group: str | None) -> int:
        """Subscribe to a channel."""

    async def find(self, message_id: str) -> FoundMessage:
        """Return a message, and its state in each mailbox that it went to."""


class OwnWork(Protocol):
    """What a bot does while it serves, beside handling messages; false if there is nothing to do."""

    def __bool__(self) -> bool: ...

    async def prepare(self) -> None:
        """Do what has to be done before the bot serves."""

    async def serve(self, begin: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]) -> None:
        """Serving until cancelled; `begin` calls a function in a handler's place."""

    def handler_of(self, message: Message) -> Handler | None:
        """Return the handler of a message that belongs to this work, or None."""


class Serving(Protocol):
    """What is served: which handler a message has, and what goes on beside."""

    own_work: OwnWork
    subscriptions: dict[str, WantedSubscription]
    """What the bot subscribes to when it begins to serve."""
    middleware: Middlewares

    def handler_of(self, message: Message) -> Handler | None:
        """Return the handler of a message, or None if there is none."""

    async def is_left_alone(self, message: Message) -> bool:
        """Return True if nothing is to be done with a message."""


class _Idle:
    """A task of a service that waits for its next message."""

    __slots__ = ("message", "wake")

    def __init__(self, wake: Event) -> None:
        self.wake = wake
        self.message: Message | None = None


def _is_changed(before: Context) -> bool:
    """Return True if the current context differs from a copy that was made of it before."""
    now = copy_context()
    return len(now) != len(before) or any(now.get(name, before) is not value for name, value in before.items())


class Service:
    """One period of serving, from connecting to the goodbye."""

    def __init__(self, work: Serving, bot: Served, inbox: Inbox, *, concurrency: int, stop_timeout: float) -> None:
        self._work = work
        self._bot = bot
        self._inbox = inbox
        self._concurrency = concurrency
        self._stop_timeout = stop_timeout
        # Fast, so that messages which arrive together are started together, and their replies share a frame.
        self._free = anyio.Semaphore(concurrency, fast_acquire=True)
        self._idle: list[_Idle] = []
        self._lent = 0
        self._parked = 0
        self._waiting: set[Slot] = set()
        """The places of handlers that only wait in their runs."""
        self._taking = anyio.CancelScope()
        self._working = anyio.CancelScope(shield=True)
        self._handlers: anyio.CancelScope
        self._tasks: anyio.abc.TaskGroup
        self._stopped = anyio.Event()
        self._failure: Exception | None = None
        self.home = Home(f"bot {bot.name!r}")
        self.home.enter()

    def stop(self) -> None:
        """Accept no more messages; if called a second time, cancel the handlers."""
        if self._taking.cancel_called:
            self._working.cancel()
        self._taking.cancel()

    async def run(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Serve until `stop` is called, or this is cancelled."""
        bot, inbox, credit_before = self._bot, self._inbox, self._inbox.max_in_flight
        with self._taking:
            async with AsyncExitStack() as stack:
                if not bot.is_entered:
                    inbox.max_in_flight = self._concurrency
                    await stack.enter_async_context(bot)
                else:
                    bot.check_home()
                    stack.callback(inbox.grant, credit_before)
                    await inbox.set_credit(self._concurrency)
                for channel, wanted in self._work.subscriptions.items():
                    await bot.subscribe(channel, start=wanted.start, echo=wanted.echo, group=wanted.group)
                if self._work.own_work:
                    await self._work.own_work.prepare()
                task_status.started()
                await self._handle_all()
        if self._failure is not None:
            raise self._failure

    async def _handle_all(self) -> None:
        async with anyio.create_task_group() as taking:
            with self._working:
                async with anyio.create_task_group() as handlers:
                    self._handlers, self._tasks = handlers.cancel_scope, handlers
                    taking.start_soon(self._take, handlers)
                    if self._work.own_work:
                        taking.start_soon(self._serve_own, self._work.own_work)
                    await self._stopped.wait()
                    for idle in self._idle:
                        idle.wake.set()
                    for waiting in self._waiting:
                        waiting.let_go()
                    # Messages delivered now would only come back with a higher attempt.
                    self._inbox.grant(0)
                    self._working.deadline = anyio.current_time() + self._stop_timeout

    async def _take(self, handlers: anyio.abc.TaskGroup) -> None:
        try:
            while True:
                try:
                    message = await self._inbox.receive()
                except SubscriptionRemoved as removed:  # on purpose, perhaps: the others go on
                    _logger.warning(
                        "bot %r: the subscription to %r was removed; the other handlers go on, and it is made"
                        " again when the bot is started again",
                        self._bot.name,
                        removed.channel,
                    )
                    continue
                try:
                    await self._free.acquire()
                except BaseException:
                    self._inbox.put_first(message)
                    raise
                if self._idle:
                    idle = self._idle.pop()
                    idle.message = message
                    idle.wake.set()
                else:
                    handlers.start_soon(self._keep_handling, message)
        except Exception as error:  # raised by `run`, when the handlers have ended
            self._failure = error
        finally:
            self._stopped.set()

    def lend(self) -> None:
        """Let another handler run in place of a waiting one: it may be the one that has to answer."""
        self._lent += 1
        self._grant_for_lent()
        self._free.release()

    async def take_back(self) -> None:
        """Reclaim a handler's place, once one is free."""
        await self._free.acquire()
        self._lent -= 1
        self._grant_for_lent()

    def park(self, message: Message | None) -> bool:
        """Let a message wait outside the credit, which its handler's place then does not need."""
        parked = message is None or self._inbox.park(message)
        if parked:
            self._parked += 1
            self._grant_for_lent()
        return parked

    def unpark(self, message: Message | None) -> None:
        """Note that a handler goes on with its message."""
        self._parked -= 1
        if message is not None:
            self._inbox.unpark(message)

    def note_idle(self, place: Slot, idle: bool) -> None:
        """Note whether a handler only waits, in its runs. When the bot stops, it is let go: that may take days."""
        if not idle:
            self._waiting.discard(place)
            return
        self._waiting.add(place)
        if self._stopped.is_set():
            place.let_go()

    async def begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Call a function in a handler's place, once one is free; return when it has begun."""
        await self._free.acquire()
        self._tasks.start_soon(self._keep_working, work)

    async def _keep_working(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with anyio.CancelScope() as scope:
                slot.set(Slot(self, None, scope))
                await work()
        finally:
            self._free.release()

    async def _serve_own(self, own: OwnWork) -> None:
        try:
            await own.serve(self.begin)
        except Exception as error:  # raised by `run`, when the handlers have ended
            self._failure = error
            self._taking.cancel()

    def _grant_for_lent(self) -> None:
        credit = min(self._concurrency + max(self._lent - self._parked, 0), CREDIT_MAX)
        if not self._stopped.is_set() and credit != self._inbox.max_in_flight:
            self._inbox.grant(credit)

    async def _keep_handling(self, first: Message) -> None:
        """Handle messages, one after another: a new task for each one costs as much as all the rest.

        The next handler must find what a new task's would. So this ends if a handler failed or was cancelled, or
        changed its context variables.
        """
        message: Message | None = first
        with anyio.CancelScope() as scope:
            while message is not None:
                slot.set(Slot(self, message, scope))
                context = copy_context()
                if not await self._handle(message, scope) or _is_changed(context) or self._stopped.is_set():
                    return
                message = await self._next()

    async def _next(self) -> Message | None:
        """Wait until this task is given another message; return None if it is to end."""
        idle = _Idle(self.home.event())
        self._idle.append(idle)
        try:
            await idle.wake.wait()
        except BaseException as error:
            if idle.message is None:
                self._idle.remove(idle)
            else:  # given to it in the turn in which it is cancelled
                self._inbox.put_first(idle.message)
                self._free.release()
            if self._is_cancelled or not was_cancelled(error):
                raise
            return None  # an earlier handler's task was cancelled, too late: possible only in asyncio
        return idle.message

    @property
    def _is_cancelled(self) -> bool:
        return self._working.cancel_called or self._handlers.cancel_called

    async def _handle(self, message: Message, scope: anyio.CancelScope) -> bool:
        """Handle a message; return True if its handler returned."""
        handler = self._work.handler_of(message)
        try:
            if await self._work.is_left_alone(message):
                await message.ack()
            elif handler is None:
                await self._refuse(message)
            else:
                await self._answer(handler, message)
            return True
        except BaseException as error:
            if was_cancelled(error):
                if self._is_cancelled or scope.cancel_called:
                    await message.release()
                    raise
                # Something that the handler awaited was cancelled, not the handler: possible only in asyncio.
            elif not isinstance(error, Exception):
                raise
            await self._fail(message, error)
            return False
        finally:
            self._free.release()

    async def _answer(self, handler: Handler, message: Message) -> None:
        middleware = self._work.middleware
        if middleware:
            await middleware.handle(message, partial(_replied, handler))
        else:
            await _replied(handler, message)
        await message.ack()

    async def _refuse(self, message: Message) -> None:
        reason = f"no handler for message_type {message.message_type!r}"
        if message.channel is not None:
            reason += f" on channel {message.channel!r}"
        _logger.warning("message %d becomes a dead letter: %s", message.seq, reason)
        await message.term(reason)

    async def _fail(self, message: Message, error: BaseException) -> None:
        if isinstance(error, NOT_NOW):
            _logger.warning("the handler of %r has to try again later: %s", message, error)
            await message.release(error.retry_after)
        elif never_fits(error, message):
            _logger.error("%r becomes a dead letter: %s", message, error)
            await message.term(str(error))
        elif isinstance(error, BudgetSpent):
            _logger.warning("%r becomes a dead letter, because its handler did not expect this: %s", message, error)
            await message.term(str(error))
        elif isinstance(error, ENDED):
            text = " ".join(str(error).split())  # an author's error may have many lines, and was logged before
            _logger.warning("the handler of %r met a run that has ended, and is not retried: %s", message, text)
            await message.term(str(error))
        else:
            _logger.error("the handler of %r failed", message, exc_info=error)
            await message.nak()


async def _replied(handler: Handler, message: Message) -> Any:
    """Call a handler, send what it returns as a reply, and return that."""
    value = await handler(message)
    try:
        if isinstance(value, Reply):
            await message.reply(value.body, **value.options)
        elif value is not None:
            await message.reply(value)
    except BudgetSpent as error:
        # It was handled, and nobody is to hear more: so two bots end that answer each other.
        _logger.info("what the handler of %r returned was not sent: %s", message, error)
    return value
