"""Primary that may be believed: new ones wait for a safe commit, and none is read while a commit is in doubt.

Owns how long an engine may be unreachable, when what it shows is believed, and when a silent server is left:
nothing is given up because it takes long, but sessions end when another server has become the primary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from weakref import WeakKeyDictionary

import anyio
import asyncpg

from bus.errors import StoreError, StoreFailed
from bus.model.repository import StoreWatch

from ...urls import shown
from .checks import Server, warnings
from .connecting import connect, is_lost, make_safe
from .hosts import Reign

__all__ = ["ATTEMPTS_MAX", "Primary"]

UNREACHABLE_SECONDS_MAX = 120.0
"""A failover takes Patroni some 30 to 60 seconds with its own settings. After two minutes the worker ends, and its
supervisor starts it again.
"""

ATTEMPTS_MAX = 10
"""How often something is tried on one connection after another: more often, it is what ends them."""

_PAUSE_SECONDS_MAX = 1.0

_SILENT_SECONDS = 5.0
"""After so long without an answer, and then as often, the hosts are asked for a primary that was promoted since."""

T = TypeVar("T")


class Primary:
    """Makes sessions with the primary, with these settings, and says when they are believed."""

    def __init__(self, url: str, watch: StoreWatch | None = None, **settings: str) -> None:
        self._url = url
        self._watch = watch
        self._settings = settings
        self._warnings: frozenset[str] | None = None
        self._abandoned: StoreError | None = None
        self._attempts: set[anyio.CancelScope] = set()
        self._doubt: anyio.Event | None = None
        self._sessions: WeakKeyDictionary[asyncpg.Connection, Reign] = WeakKeyDictionary()
        self._waits: dict[object, float] = {}

    def __repr__(self) -> str:
        return f"<Primary {self} {'in doubt' if self._doubt else 'settled'}>"

    def __str__(self) -> str:
        return shown(self._url)

    async def connect(self, **settings: str) -> tuple[asyncpg.Connection, Server]:
        """Make a session, which may not be believed yet. Raise as `connecting.connect` does.

        It has these settings besides. Operators are told what they should know of this server and was not so with
        the one before.
        """
        if self._abandoned is None:
            with anyio.CancelScope() as attempt:
                self._attempts.add(attempt)
                try:
                    connection, server, reign = await connect(self._url, **self._settings | settings)
                finally:
                    self._attempts.discard(attempt)
                self._sessions[connection] = reign
                self._tell(server)
                return connection, server
        assert self._abandoned is not None, "nothing else cancels an attempt alone"
        raise self._abandoned

    def _tell(self, server: Server) -> None:
        found = frozenset(warnings(server))
        if self._watch is not None and self._warnings is not None:
            for sentence in found - self._warnings:
                self._watch.warn(sentence)
        self._warnings = found

    async def reconnect(self, **settings: str) -> asyncpg.Connection:
        """Make a session that may be believed. Raise StoreFailed if no primary can be reached for too long.

        It returns only when a commit is safe. That is not given up, however long it takes.
        """
        return (await self.ask(make_safe, **settings))[0]

    async def ask(
        self, question: Callable[[asyncpg.Connection], Awaitable[T]], **settings: str
    ) -> tuple[asyncpg.Connection, T]:
        """Make a session and ask it something first, again if it is lost meanwhile; raise as `reconnect` does.

        Asking must take a commit: only then may the session be believed.
        """
        deadline = anyio.current_time() + UNREACHABLE_SECONDS_MAX
        pause = 0.05
        while True:
            connection: asyncpg.Connection | None = None
            try:
                connection = (await self.connect(**settings))[0]
                with self.waiting():
                    return connection, await question(connection)
            except BaseException as error:
                if connection is not None:
                    connection.terminate()
                if self._abandoned is not None:
                    raise self._abandoned from error
                if not isinstance(error, Exception) or not is_lost(connection, error):
                    raise
                if anyio.current_time() > deadline:
                    raise StoreFailed(
                        f"no primary of {self} was reached for {UNREACHABLE_SECONDS_MAX:.0f} seconds ({error});"
                        " start it, or let a standby be promoted"
                    ) from error
            await anyio.sleep(pause)
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)

    def abandon(self, error: StoreError) -> None:
        """Drop all sessions, without cancelling what was asked; who waits for another one gets this error."""
        self._abandoned = error
        for attempt in self._attempts:
            attempt.cancel()
        for session in list(self._sessions):
            session.terminate()

    @contextmanager
    def doubt(self) -> Iterator[None]:
        """Block reading while it is unknown whether a commit was done, or whether it is safe."""
        self._doubt = settled = anyio.Event()
        try:
            yield
        finally:
            self._doubt = None
            settled.set()

    async def settled(self) -> None:
        """Wait until nothing is in doubt."""
        while self._doubt is not None:
            await self._doubt.wait()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that a server is expected to answer."""
        wait = object()
        self._waits[wait] = anyio.current_time()
        try:
            yield
        finally:
            del self._waits[wait]

    async def watch(self) -> None:
        """End the sessions with a server that is silent, and was replaced; what waits for it asks the other one."""
        while True:
            await anyio.sleep(_SILENT_SECONDS)
            if not self._waits or anyio.current_time() - min(self._waits.values()) < _SILENT_SECONDS:
                continue
            try:
                connection, _, latest = await connect(self._url)
            except Exception as error:
                if isinstance(error, StoreError) or is_lost(None, error):
                    continue
                raise
            connection.terminate()
            for session, reign in list(self._sessions.items()):
                if reign < latest:
                    session.terminate()
