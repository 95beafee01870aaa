"""A bot as an application: handlers, chosen by channel and type, and serving them.

Owns which handler gets a message, and what a bot subscribes to. `service` passes messages to handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeVar

import anyio
import anyio.abc
import msgspec

from ..errors import RequestError
from ..model.patterns import WILDCARD, ChannelPattern
from ..model.records import WORKER_ID
from ..signals import received_signals
from ..wire.limits import CREDIT_MAX
from .functions import body_type, check_handler
from .ids import checked_channels, checked_name
from .inbox import Inbox
from .message import Message
from .middleware import Middlewares
from .service import Handler, OwnWork, Served, Service, WantedSubscription
from .starts import StartPosition
from .typed import check_readable

__all__ = ["CONCURRENCY", "STOP_SECONDS", "Application", "HandlerKey", "Handling"]

_H = TypeVar("_H", bound=Handler)

CONCURRENCY = 10
"""Concurrent handlers by default: enough to wait side by side, few enough to share."""

STOP_SECONDS = 10.0
"""How long running handlers may take to finish; process supervisors commonly kill after 30 s or more."""


class HandlerKey(NamedTuple):
    """What a handler is for: a channel, or None for direct messages; a type, or None for any."""

    channel: str | None
    message_type: str | None

    def __str__(self) -> str:
        place = "direct messages" if self.channel is None else f"channel {self.channel!r}"
        return f"{place}, {'any type' if self.message_type is None else f'message_type {self.message_type!r}'}"


_CRASHED = HandlerKey(None, "workflow.crashed")


class Handling(msgspec.Struct, frozen=True):
    """A handler, and the type as which it takes the bodies of messages; None if it takes them as they are."""

    function: Handler
    body: Any = None

    async def __call__(self, message: Message) -> Any:
        """Handle a message. Raise UnfitBody if its body is not of the type."""
        if self.body is not None:
            message.read_body(self.body)
        return await self.function(message)


class Application:
    """A bot's handlers, and serving them. `Bot` documents what the methods guarantee.

    `own` are the bot's built-in handlers, for types of direct messages that its author has no handler for.
    """

    def __init__(
        self,
        bot: Served,
        inbox: Inbox,
        own: Mapping[str, Handler],
        own_work: OwnWork,
        middleware: Middlewares,
    ) -> None:
        self.own_work = own_work
        self.middleware = middleware
        self._bot = bot
        self._inbox = inbox
        self._own = {HandlerKey(None, message_type): handler for message_type, handler in own.items()}
        self.handlers: dict[HandlerKey, Handling] = {}
        self._patterns: dict[str, ChannelPattern] = {}
        self.subscriptions: dict[str, WantedSubscription] = {}
        """What the bot subscribes to when it begins to serve."""
        self._service: Service | None = None

    def __repr__(self) -> str:
        return f"<Application of {self._bot.name!r} handlers={len(self.handlers)}>"

    def share(self, other: Application) -> None:
        """Include the handlers and subscriptions of another application, also those that are added later."""
        self.handlers, self.subscriptions = other.handlers, other.subscriptions
        self._patterns = other._patterns

    def on_message(self, message_type: str | None = None, *, body: Any = None) -> Callable[[_H], _H]:
        """Register a handler of direct messages."""
        return self._handling(HandlerKey(None, message_type), "on_message", body)

    def on_channel(
        self,
        channel: str,
        message_type: str | None = None,
        *,
        start: StartPosition = "new",
        echo: bool = False,
        group: str | None = None,
        body: Any = None,
    ) -> Callable[[_H], _H]:
        """Register a handler of a channel's messages."""
        if not callable(channel):  # otherwise the parentheses are missing
            checked_channels("channel", channel)
        if group is not None:
            checked_name("group", group)
        wanted = WantedSubscription(start, echo, group)
        if self.subscriptions.setdefault(channel, wanted) != wanted:
            raise ValueError(f"another handler subscribes to {channel!r} with a different start, echo or group")
        if isinstance(channel, str) and WILDCARD in channel:
            self._patterns[channel] = ChannelPattern(channel)
        return self._handling(HandlerKey(channel, message_type), "on_channel", body)

    def _handling(self, key: HandlerKey, decorator: str, body: Any) -> Callable[[_H], _H]:
        for part in key:
            if part is not None and not isinstance(part, str):
                raise TypeError(f"write @bot.{decorator}(...) with parentheses")

        def register(handler: _H) -> _H:
            check_handler(handler, "a handler", "a message")
            if key in self.handlers:
                raise ValueError(f"there is already a handler for {key}")
            kind = body_type(handler) if body is None else body
            if kind is not None:
                check_readable(kind)
            self.handlers[key] = Handling(handler, kind)
            return handler

        return register

    def handler_of(self, message: Message) -> Handler | None:
        """Return the handler of a message, or None if there is none."""
        key = HandlerKey(message.channel, message.message_type)
        own = self._own.get(key) or self.own_work.handler_of(message)
        found = self.handlers.get(key) or own or self.handlers.get(HandlerKey(key.channel, None))
        if found is None and key.channel is not None:
            found = self._by_pattern(key.channel, message.message_type)
        return found.function if isinstance(found, Handling) and found.body is None else found

    async def is_left_alone(self, message: Message) -> bool:
        """Return True for the notice that a run lost its holder, if the message that began the run comes again.

        A handler of these notices gets all of them.
        """
        key = HandlerKey(message.channel, message.message_type)
        if key != _CRASHED or message.sender_id != WORKER_ID:
            return False
        if key in self.handlers or self.own_work.handler_of(message) is not None:
            return False
        try:
            found = await self._bot.find(message.body["run_id"])
        except RequestError:
            return False
        groups = {(channel, wanted.group) for channel, wanted in self.subscriptions.items() if wanted.group}
        return any(
            fate.state != "settled" and (fate.bot == self._bot.name or (fate.channel, fate.group) in groups)
            for fate in found.mailboxes
        )

    def _by_pattern(self, channel: str, message_type: str) -> Handling | None:
        """Return the handler of the first pattern that matches a channel without one of its own, or None."""
        names = (name for name, pattern in self._patterns.items() if pattern.matches(channel))
        keys = (HandlerKey(name, kind) for name in names for kind in (message_type, None))
        return next((self.handlers[key] for key in keys if key in self.handlers), None)

    async def serve(
        self,
        *,
        concurrency: int = CONCURRENCY,
        stop_timeout: float = STOP_SECONDS,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Pass messages to the handlers until `stop` is called, or this is cancelled."""
        if not 1 <= concurrency <= CREDIT_MAX:
            raise ValueError(f"concurrency must be 1 to {CREDIT_MAX}, not {concurrency}")
        if self._service is not None:
            self._service.home.check()
            raise RuntimeError("the bot is already serving")
        self._service = Service(self, self._bot, self._inbox, concurrency=concurrency, stop_timeout=stop_timeout)
        try:
            await self._service.run(task_status)
        finally:
            self._service = None

    def stop(self) -> None:
        """Stop serving gracefully."""
        if self._service is not None:
            self._service.home.check()
            self._service.stop()

    def run(
        self,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        concurrency: int = CONCURRENCY,
        stop_timeout: float = STOP_SECONDS,
    ) -> None:
        """Serve in a new event loop until SIGINT or SIGTERM."""
        failures: list[Exception] = []

        async def main() -> None:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._heed_signals)
                try:
                    await self.serve(concurrency=concurrency, stop_timeout=stop_timeout)
                except Exception as error:  # raised as it is, not in the task group's ExceptionGroup
                    failures.append(error)
                tasks.cancel_scope.cancel()

        with suppress(KeyboardInterrupt):  # where signals are not received; it has stopped too
            anyio.run(main, backend=backend)
        if failures:
            raise failures[0]

    async def _heed_signals(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with received_signals("SIGINT", "SIGTERM") as signals:
            task_status.started()
            async for _ in signals:
                if self._service is not None:
                    self._service.stop()
