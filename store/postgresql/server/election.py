"""What a worker that stands by sees: one session with the primary, which only looks, and hears of a hand-over.

Nothing that it sees is safe yet, and nothing needs to be: who takes over looks again (`leadership.take_lead`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import asyncpg

from bus.model.leadership import Sighting

from ...urls import shown
from .catalog import made_schema
from .connecting import connect, is_lost, unreachable
from .leadership import GIVEN_UP, STANDS_BY, look_at_leadership

__all__ = ["PostgresqlElection"]

_ANSWER_SECONDS_MAX = 5.0
"""For one look, which waits for no standby and for no lock. A server that takes longer is as good as gone."""

T = TypeVar("T")


class PostgresqlElection:
    """See `bus.model.leadership.Election`. While it is connected, the worker counts as standing by."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None
        self._given_up = anyio.Event()

    def __repr__(self) -> str:
        return f"<PostgresqlElection {shown(self._url)}>"

    async def look(self) -> Sighting:
        """Return who leads. Raise StoreFailed if PostgreSQL cannot be reached, and DatabaseUnusable."""
        return await self._ask(look_at_leadership)

    async def prepare(self) -> None:
        """Find out what the schema has to be, which taking over compares it with."""
        await self._ask(_prepare)

    async def wait(self, seconds: float) -> None:
        """Wait until the leader gives its lease up, at most so many seconds."""
        with anyio.move_on_after(seconds):
            await self._given_up.wait()
        self._given_up = anyio.Event()

    async def _ask(self, question: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            with anyio.fail_after(_ANSWER_SECONDS_MAX):
                if self._connection is None:
                    self._connection, *_ = await connect(self._url, application_name=STANDS_BY)
                    await self._connection.add_listener(GIVEN_UP, lambda *_: self._given_up.set())
                return await question(self._connection)
        except BaseException as error:
            lost = isinstance(error, asyncpg.PostgresError) or is_lost(self._connection, error)
            await self.aclose()
            if not lost:
                raise
            raise unreachable(self._url, error) from error

    async def aclose(self) -> None:
        """Close the session, without waiting for the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _prepare(connection: asyncpg.Connection) -> None:
    with suppress(asyncpg.InsufficientPrivilegeError):  # operators are told when this worker leads
        await made_schema(connection)
