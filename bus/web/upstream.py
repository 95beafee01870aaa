"""Connections of the page to the worker: its own, and one for each bot of a token.

Owns their lives. A connection that fails, because its key has ended for instance, is opened anew; meanwhile,
whoever asks is told why there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

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
"""Bots of tokens that are connected: each is a session at the worker."""

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
        """Return the connected bot; at first, wait for it a little. Raise the error why there is none."""
        with anyio.move_on_after(_WAIT_SECONDS):
            await self._tried.wait()
        if self._connected is None:
            raise self._fault
        return self._connected


class Upstreams:
    """The connections for tokens, by bot: opened when they are first asked for."""

    def __init__(self, make: Callable[[Token], Bot], tasks: anyio.abc.TaskGroup) -> None:
        self._make = make
        self._tasks = tasks
        self._found: dict[tuple[str, str | None], Upstream] = {}

    def __repr__(self) -> str:
        return f"<Upstreams {len(self._found)}>"

    async def bot(self, token: Token) -> Bot:
        """Return the bot as which a token acts. Raise LimitReached, or the error why there is none."""
        key = (token.bot, token.credentials)
        if key not in self._found:
            if len(self._found) == _BOTS_MAX:
                raise LimitReached("busy", f"at most {_BOTS_MAX} bots use tokens of one page")
            self._found[key] = Upstream(lambda: self._make(token))
            self._tasks.start_soon(self._found[key].run)
        return await self._found[key].bot()
