"""What a database of PostgreSQL is like, without taking it over."""

from __future__ import annotations

from .server.checks import warnings
from .server.connecting import connect, is_lost, unreachable

__all__ = ["examine"]


async def examine(url: str) -> list[str]:
    """Return what operators should know. Raise DatabaseUnusable or StoreFailed if it could not be served."""
    try:
        connection, server, _ = await connect(url)
    except Exception as error:
        if is_lost(None, error):
            raise unreachable(url, error) from error
        raise
    await connection.close()
    return list(warnings(server))
