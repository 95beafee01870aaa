"""How a session with the primary begins, and which errors mean that it has ended.

Owns the settings of every session, and that each begins with an empty commit that waits: what is visible after a
crash or a cancelled wait may be on no standby yet, so nothing is believed before that commit is answered
(docs/decisions/0076-a-log-in-postgresql.md). Every session is with the primary: standbys show commits in another
order.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg

from bus.errors import DatabaseUnusable, StorageBusy, StorageFull, StoreError, StoreFailed

from .checks import SERVER, Server, refusals
from .hosts import Reign, find_primary

__all__ = ["SCHEMA", "connect", "is_lost", "make_safe", "shown", "translate"]

SCHEMA = "posthouse"
"""Everything of posthouse is in this schema, whatever else the database has."""

_SETTINGS = {
    "application_name": "posthouse",
    "search_path": SCHEMA,
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    # Nothing that has begun is given up by the server, neither a batch that waits for a standby nor one for a lock.
    "statement_timeout": "0",
    "lock_timeout": "0",
    # But for a transaction whose worker is silent in the middle of it: its locks would hold up whoever takes over.
    "idle_in_transaction_session_timeout": "30s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "4",
}

_ENDED = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # it was the primary, and is a standby now
    # No host is the primary now; or the server ended an idle session, which asyncpg reports when it is used next.
    asyncpg.InternalClientError,
    OSError,
)
"""What a failover looks like to those who are connected, or try to be."""

_EMPTY_COMMIT = "SELECT pg_logical_emit_message(true, 'posthouse', '')"
"""A transaction that writes nothing but its commit, which is answered when all that came before it is safe, too."""


async def connect(url: str) -> tuple[asyncpg.Connection, Server, Reign]:
    """Connect to the primary of a URL, which may name several hosts. Raise DatabaseUnusable if it may not be used.

    `synchronous_commit` is kept as it is now, whatever the server's configuration is changed to later. Nothing that
    the session shows may be believed before `make_safe`.
    """
    connection, reign = await find_primary(url, _SETTINGS)
    try:
        server = Server(*await connection.fetchrow(SERVER))
        if refused := refusals(server):
            raise DatabaseUnusable(f"{shown(url)} cannot be used: {'; '.join(refused)}")
        await connection.execute(f"SET synchronous_commit = {server.synchronous_commit}")
    except BaseException:
        connection.terminate()
        raise
    return connection, server, reign


async def make_safe(connection: asyncpg.Connection) -> None:
    """Wait until everything that a session shows is safe, however long that takes."""
    await connection.execute(_EMPTY_COMMIT)


def is_lost(connection: asyncpg.Connection | None, error: BaseException) -> bool:
    """Return True if an error means that the session is over, and nothing about the transaction."""
    return isinstance(error, _ENDED) or (
        isinstance(error, asyncpg.InterfaceError) and connection is not None and connection.is_closed()
    )


def translate(error: asyncpg.PostgresError) -> StoreError | None:
    """Return our error for one about the server itself, after which nothing of the transaction is stored.

    None for any other, which only concerns the operation that it comes from.
    """
    if isinstance(error, asyncpg.DiskFullError):
        return StorageFull("the disk of PostgreSQL is full; nothing was stored")
    if isinstance(
        error, asyncpg.DeadlockDetectedError | asyncpg.QueryCanceledError | asyncpg.LockNotAvailableError
    ):
        return StorageBusy(f"another program got in the way in PostgreSQL ({error}); nothing was stored")
    if isinstance(error, asyncpg.PostgresIOError | asyncpg.DataCorruptedError | asyncpg.IndexCorruptedError):
        return StoreFailed(f"PostgreSQL reported {error.sqlstate}: {error}; check its log and its disk")
    return None


def shown(url: str) -> str:
    """Return a URL without its password, for messages."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{at}{hosts}{parts.path}"
