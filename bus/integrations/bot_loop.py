"""A bot for a library that calls from anywhere: from its event loop, from another one, or from threads.

Owns how such a call comes into the loop in which the bot is, a thread with a loop for programs that have none, and
what is alike in all that such a library is given.
asyncio only, as these libraries are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from ..bot import Bot, connect
from ..errors import ClosedError

__all__ = ["BotLoop", "BotOpening", "InKeyedStore"]

_READS_AT_ONCE = 16
"""Reads of one library: the worker refuses those of a bot that has many answers to come."""

P = ParamSpec("P")
T = TypeVar("T")


class BotLoop:
    """The event loop in which it is created, which has to be that of the bot."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<BotLoop {self._loop!r}>"

    async def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a function in the loop, from this loop or from another one."""
        if asyncio.get_running_loop() is self._loop:
            return await function(*args, **kwargs)
        self._check()
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(_awaited(function, args, kwargs), self._loop)
        )

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in the loop, from another thread; in the loop's own, raise RuntimeError."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            raise RuntimeError(
                "this would block the event loop of the bot: await the method of the same name that begins with"
                " 'a' (ainvoke, aget_tuple, aput, …), or call this one in a thread, with asyncio.to_thread"
            )
        self._check()
        return asyncio.run_coroutine_threadsafe(_awaited(function, args, kwargs), self._loop).result()

    def _check(self) -> None:
        if self._loop.is_closed():
            raise ClosedError("the event loop of the bot has ended: stay within the block that connected it")


async def _awaited(function: Callable[..., Awaitable[T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    return await function(*args, **kwargs)


class BotOpening(Generic[T]):
    """Connects a bot, and makes something of it: `async with` in an event loop, `with` where there is none.

    For `with` it runs a loop in a thread of its own. `options` are arguments of `bus.connect`.
    """

    def __init__(self, make: Callable[[Bot], T], **options: Any) -> None:
        self._make = make
        self._options = options
        self._opened: AbstractAsyncContextManager[T]
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<BotOpening {self._make!r}>"

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[T]:
        async with connect(**self._options) as bot:
            yield self._make(bot)

    async def __aenter__(self) -> T:
        self._opened = self._open()
        return await self._opened.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, trace)

    def __enter__(self) -> T:
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal("asyncio"))
            made = stack.enter_context(portal.wrap_async_context_manager(self._open()))
            self._stack = stack.pop_all()
        return made

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)


class InKeyedStore:
    """What keeps everything that a library gives it in a keyed store, and may be called from anywhere."""

    def _keep_in(self, bot: Bot, store: str) -> None:
        """Begin, in the loop of the bot."""
        self._loop = BotLoop()
        self.kv = bot.kv(store)
        """Where everything is."""
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kv!r}>"

    @classmethod
    def _opening(cls, url: str | None, bot: str | None, options: dict[str, Any], **own: Any) -> BotOpening[Self]:
        """Return what connects a bot that only calls, and makes one of these with its `own` options."""
        return BotOpening(partial(cls, **own), **{"url": url, "bot": bot, "max_in_flight": 0, **options})
