"""Connections of the page to the worker: its own, and one for each bot of a token.

Owns their lives. A connection that fails, because its key has ended for instance, is opened anew; meanwhile, a
request is told why there is none.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from ..bot import Bot
from ..errors import BusError, LimitReached, WorkerUnavailable
from .tickets import Token

__all__ = ["Upstream", "Upstreams"]

_AGAIN_SECONDS = 1.0

_WAIT_SECONDS = 5.0
"""How long a request waits for the first connection, and for an answer: whoever looks at a page waits with it."""

_BOTS_MAX = 100
"""Bots of tokens that are connected at once: each is a session at the worker."""

_IDLE_SECONDS = 60.0
"""After which the session of a bot ends that no program uses: opening it again takes a moment."""

_log = logging.getLogger("posthouse.web")


class Upstream:
    """One bot, connected as long as `run` runs."""

    def __init__(self, make: Callable[[], Bot]) -> None:
        """Connect with bots that `make` makes: one may be entered only once."""
        self._make = make
        self._connected: Bot | None = None
        self._tried = anyio.Event()
        """Set when the first attempt to connect has ended."""
        self._fault: BusError = WorkerUnavailable("the page is connecting to the worker")

    def __repr__(self) -> str:
        return f"<Upstream {self._connected or self._fault}>"

    async def run(self) -> None:
        """Stay connected, until cancelled."""
        while True:
            try:
                async with self._make() as bot:
                    bot.timeout = _WAIT_SECONDS
                    self._set(bot)
                    while True:
                        await bot.receive()  # without credit nothing comes, and a session that ends for good raises
            except BusError as error:
                if str(error) != str(self._fault):
                    _log.warning("no connection to the worker: %s", error)
                self._fault = error
            finally:
                self._set(None)
            await anyio.sleep(_AGAIN_SECONDS)

    def _set(self, bot: Bot | None) -> None:
        self._connected = bot
        self._tried.set()

    async def bot(self) -> Bot:
        """Return the connected bot; at first, wait for it briefly. Raise the error why there is none."""
        with anyio.move_on_after(_WAIT_SECONDS):
            await self._tried.wait()
        if self._connected is None:
            raise self._fault
        return self._connected


class _Used:
    """The connection of a bot of tokens, and who uses it."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.users = 0
        self.used_at = anyio.current_time()
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Stay connected, until ended or cancelled."""
        with self._scope:
            await self.upstream.run()

    def end(self) -> None:
        """End the session of the bot."""
        self._scope.cancel()


_Key = tuple[str, str | None]
"""The bot of a token, and its file of credentials."""


class Upstreams:
    """The connections for tokens, by bot: opened when they are first asked for, and ended when they are idle.

    So the session of a bot ends soon after its last token did.
    """

    def __init__(
        self,
        make: Callable[[Token], Bot],
        tasks: anyio.abc.TaskGroup,
        *,
        idle_seconds: float = _IDLE_SECONDS,
        bots_max: int = _BOTS_MAX,
    ) -> None:
        self._make = make
        self._tasks = tasks
        self._idle_seconds = idle_seconds
        self._bots_max = bots_max
        self._found: dict[_Key, _Used] = {}

    def __repr__(self) -> str:
        return f"<Upstreams {len(self._found)}>"

    async def run(self) -> None:
        """End connections that are idle, until cancelled."""
        while True:
            await anyio.sleep(self._idle_seconds / 4)
            for key in self._idle(self._idle_seconds):
                self._found.pop(key).end()

    @asynccontextmanager
    async def using(self, token: Token) -> AsyncIterator[Bot]:
        """Use the bot as which a token acts within a block. Raise LimitReached, or the error why there is none."""
        key = (token.bot, token.credentials)
        used = self._found.get(key)
        if used is None:
            used = self._open(key, token)
        used.users += 1
        try:
            yield await used.upstream.bot()
        finally:
            used.users -= 1
            used.used_at = anyio.current_time()

    def _open(self, key: _Key, token: Token) -> _Used:
        if len(self._found) >= self._bots_max:
            idle = self._idle(0)
            if not idle:
                raise LimitReached("busy", f"at most {self._bots_max} bots of tokens are connected at once")
            self._found.pop(idle[0]).end()
        used = self._found[key] = _Used(Upstream(lambda: self._make(token)))
        self._tasks.start_soon(used.run)
        return used

    def _idle(self, seconds: float) -> list[_Key]:
        """Return those that nobody has used for so many seconds, the longest unused first."""
        until = anyio.current_time() - seconds
        idle = [key for key, used in self._found.items() if not used.users and used.used_at <= until]
        return sorted(idle, key=lambda key: self._found[key].used_at)
