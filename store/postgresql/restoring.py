"""A database that PostgreSQL's tools restored to an earlier moment, which PostgreSQL does not tell by itself."""

from __future__ import annotations

from bus.errors import DatabaseUnusable

from ..moving.movable import refusal
from ..urls import shown
from .server.connecting import make_safe
from .server.epoch import begin_epoch
from .server.incarnation import end_all, read_move
from .server.schema import migrate
from .server.session import session

__all__ = ["begin_again"]

_IS_OURS = "SELECT to_regclass('log') IS NOT NULL"

_HAS_A_LOG = "SELECT EXISTS (SELECT FROM log)"


async def begin_again(url: str) -> str:
    """Set a new epoch for the log of a restored database, and return it; it is safe when this returns.

    Workers that are connected store nothing from then on, and find the new epoch when they take over again. Raise
    as `server.database.open_database` does, and DatabaseUnusable if it has nothing of posthouse's.
    """
    async with session(url, "posthouse restored") as (connection, _):
        await make_safe(connection)
        if not (await connection.fetchval(_IS_OURS) and await connection.fetchval(_HAS_A_LOG)):
            raise DatabaseUnusable(f"{shown(url)} holds nothing of posthouse's: check the name of the database")
        await migrate(connection)
        async with connection.transaction():
            if refused := refusal(shown(url), await read_move(connection)):
                raise refused
            await end_all(connection)
            return await begin_epoch(connection)
