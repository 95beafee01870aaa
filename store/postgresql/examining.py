"""What a database of PostgreSQL is like, without taking it over."""

from __future__ import annotations

from .server.checks import warnings
from .server.session import session

__all__ = ["examine"]


async def examine(url: str) -> list[str]:
    """Return what operators should know. Raise DatabaseUnusable or StoreFailed if it could not be served."""
    async with session(url, "posthouse doctor") as (_, server):
        return list(warnings(server))
