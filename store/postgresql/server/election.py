"""What a worker that stands by sees: one session with the primary, which only looks.

Nothing that it sees is safe yet, and nothing needs to be: who takes over looks again (`leadership.take_lead`).
"""

from __future__ import annotations

import anyio
import asyncpg

from bus.model.leadership import Sighting

from ...urls import shown
from .connecting import connect, is_lost, unreachable
from .leadership import STANDS_BY, look_at_leadership

__all__ = ["PostgresqlElection"]

_ANSWER_SECONDS_MAX = 5.0
"""For one look, which waits for no standby and for no lock. A server that takes longer is as good as gone."""


class PostgresqlElection:
    """See `bus.model.leadership.Election`. While it is connected, the worker counts as standing by."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection | None = None

    def __repr__(self) -> str:
        return f"<PostgresqlElection {shown(self._url)}>"

    async def look(self) -> Sighting:
        """Return who leads. Raise StoreFailed if PostgreSQL cannot be reached, and DatabaseUnusable."""
        try:
            with anyio.fail_after(_ANSWER_SECONDS_MAX):
                if self._connection is None:
                    self._connection, *_ = await connect(self._url, application_name=STANDS_BY)
                return await look_at_leadership(self._connection)
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
