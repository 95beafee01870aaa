"""Middleware: an author's code around what a bot sends, and around the handling of what it receives.

Owns its order: what was added first is outermost. A bot without middleware calls nothing of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from .draft import Draft
from .ids import chosen_id
from .message import Message
from .sending import Sending, SendNext, SendOperation
from .waiting import Receipt

__all__ = ["ExecuteNext", "HandleNext", "Middleware", "Middlewares"]

ExecuteNext = Callable[[Any], Awaitable[Any]]
"""Calls the function of a workflow with an open run, and returns its value."""

HandleNext = Callable[[Message], Awaitable[Any]]
"""Calls the handler, sends its reply, and returns its value."""


class Middleware:
    """Code around what a bot sends, handles and executes: override what you need, and `bot.use(…)` an object."""

    async def send(self, sending: Sending, call_next: SendNext) -> Sequence[Receipt]:
        """Send messages by `call_next`, with changes if need be, and return what it returns.

        It raises what the call raises. This is called once for each call of the bot, however often that is repeated
        because the worker was away.
        """
        return await call_next(sending)

    async def handle(self, message: Message, call_next: HandleNext) -> Any:
        """Handle a message by `call_next`, and return what it returns: the handler's value, already a sent reply.

        It raises what the handler raises, and UnfitBody if the body is not of the handler's type. The message is
        settled after this, by what is raised here: so an error that is not raised again acks.
        """
        return await call_next(message)

    def start(self, attributes: dict[str, str]) -> dict[str, str]:
        """Return the attributes with which a run is started, if it is new: those that were given, and more."""
        return attributes

    async def execute(self, run: Any, call_next: ExecuteNext) -> Any:
        """Execute a `bus.Run` by `call_next`, the function of its workflow, and return what it returns.

        The run is open, and ends by what is returned or raised here. A run that a handler opens belongs to
        `handle`.
        """
        return await call_next(run)


class Middlewares:
    """The middleware of a bot."""

    def __init__(self, bot: str) -> None:
        self._bot = bot
        self._used: list[Middleware] = []

    def __bool__(self) -> bool:
        return bool(self._used)

    def __repr__(self) -> str:
        return f"<Middlewares {self._used}>"

    def add(self, middleware: Middleware) -> None:
        """Add middleware inside of what was added before."""
        if not isinstance(middleware, Middleware):
            raise TypeError(f"pass an object of a subclass of bus.Middleware, not {middleware!r}")
        self._used.append(middleware)

    def share(self, other: Middlewares) -> None:
        """Use the middleware of another bot object, also what is added later."""
        self._used = other._used

    async def send(self, operation: SendOperation, drafts: Sequence[Draft], send: SendNext) -> Sequence[Receipt]:
        """Send messages through all middleware, each with its id."""
        drafts = [msgspec.structs.replace(draft, id=chosen_id(draft.id)) for draft in drafts]
        for each in reversed(self._used):
            send = partial(each.send, call_next=send)
        return await send(Sending(sender=self._bot, operation=operation, drafts=tuple(drafts)))

    async def handle(self, message: Message, handle: HandleNext) -> Any:
        """Handle a message through all middleware."""
        for each in reversed(self._used):
            handle = partial(each.handle, call_next=handle)
        return await handle(message)

    def start(self, attributes: dict[str, str]) -> dict[str, str]:
        """Return the attributes of a run that is to be started with these."""
        for each in self._used:
            attributes = each.start(attributes)
        return attributes

    async def execute(self, run: Any, execute: ExecuteNext) -> Any:
        """Execute a run through all middleware."""
        for each in reversed(self._used):
            execute = partial(each.execute, call_next=execute)
        return await execute(run)
