"""One session of a command, which is no worker's: it begins, asks and ends, and its errors are those of a start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from .checks import Server
from .connecting import connect
from .database import start_failure

__all__ = ["session"]


@asynccontextmanager
async def session(url: str, name: str) -> AsyncIterator[tuple[asyncpg.Connection, Server]]:
    """Connect to the primary under an `application_name`. Nothing may be believed before `connecting.make_safe`.

    Raise as `database.open_database` does, also for what PostgreSQL raises within.
    """
    connection: asyncpg.Connection | None = None
    try:
        connection, server, _ = await connect(url, application_name=name)
        yield connection, server
    except BaseException as error:
        if (failure := start_failure(url, error)) is not None:
            raise failure from error
        raise
    finally:
        if connection is not None:
            connection.terminate()
